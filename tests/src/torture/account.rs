//! What became of all that was produced, and of all tasks: the numbers that every run ends with.

use std::collections::BTreeMap;

use protocol::session::Class;
use serde_json::Value;

use super::load::Sandbox;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::tally::{Produced, Tally};

/// What was found, counted over any number of sandboxes.
#[derive(Default)]
pub struct Account {
    /// Whether power is lost, which takes what was not synced: output, and by default the last words on tasks, which may then run again.
    power: bool,
    tally: Tally,
    tasks: usize,
    ends: usize,
    altered: usize,
    taken_back: usize,
    /// Of what tasks wrote, line by line.
    lines: usize,
    misplaced: usize,
}

impl Account {
    /// Of a run in which power is lost.
    pub fn of_power() -> Account {
        Account { power: true, ..Account::default() }
    }

    /// End the load of these sandboxes, and hold what the gateway has of them to what they and their clients know.
    pub fn settle(&mut self, sandboxes: &mut [Sandbox], gateway: &Gateway) {
        self.settle_by(sandboxes, |id| gateway.events(id));
    }

    /// The same with the events that somebody else finds, once everything is delivered.
    pub fn settle_by(&mut self, sandboxes: &mut [Sandbox], mut events: impl FnMut(&str) -> Vec<Value>) {
        sandboxes.iter_mut().for_each(Sandbox::end_load);
        let ends: Vec<_> = sandboxes.iter_mut().map(|sandbox| (sandbox.tasks(), sandbox.produced())).collect();
        for (sandbox, (tasks, produced)) in sandboxes.iter().zip(ends) {
            let events = events(sandbox.id);
            self.count(&events, &produced);
            self.check(sandbox, &tasks, &events);
        }
    }

    /// Of records alone, where tasks may have lost their last words, and have told them once more.
    pub fn settle_records(&mut self, sandboxes: &mut [Sandbox], gateway: &Gateway) {
        sandboxes.iter_mut().for_each(Sandbox::end_load);
        for sandbox in sandboxes {
            let produced = sandbox.produced();
            self.count(&gateway.events(sandbox.id), &produced);
        }
    }

    /// What another one has found, too.
    pub fn add(&mut self, other: &Account) {
        self.tally.add(&other.tally);
        self.tasks += other.tasks;
        self.ends += other.ends;
        self.altered += other.altered;
        self.taken_back += other.taken_back;
        self.lines += other.lines;
        self.misplaced += other.misplaced;
    }

    /// Whether a goal is missed.
    pub fn is_wrong(&self) -> bool {
        ![self.records(""), self.tasks("")].concat().iter().all(Line::kept)
    }

    /// So many gaps at most, each of however many numbers, after these `faults`.
    pub fn gaps(&self, faults: &str, goal: usize) -> Line {
        Line::new(format!("gaps in {faults}"), goal as f64, self.tally.gaps_told as f64, "gaps")
    }

    /// All of it but the gaps, after these `faults`.
    pub fn lines(&self, faults: &str) -> Vec<Line> {
        [self.records(faults), self.tasks(faults), self.load(faults)].concat()
    }

    /// That there was something to lose, of every class.
    pub fn load(&self, faults: &str) -> Vec<Line> {
        let of = |class: Class| self.tally.stored.get(&class).copied().unwrap_or(0);
        let class = |class: Class| {
            Line::at_least(format!("stored of {} in {faults}", class.name()), 1.0, of(class) as f64, "records")
        };
        Class::ALL.map(class).into()
    }

    /// What became of records.
    pub fn records(&self, faults: &str) -> Vec<Line> {
        let tally = &self.tally;
        let of = format!("of {} records in {faults}", tally.delivered);
        vec![
            Line::new(format!("neither stored nor in a gap, {of}"), 0.0, tally.lost as f64, "records"),
            Line::new(format!("stored twice, {of}"), 0.0, tally.twice as f64, "records"),
            Line::new(format!("stored and never produced, beside those {of}"), 0.0, tally.invented as f64, "records"),
            Line::new(
                format!("twice or not in their order, of {} lines of tasks in {faults}", self.lines),
                0.0,
                self.misplaced as f64,
                "lines",
            ),
        ]
    }

    /// What became of tasks.
    pub fn tasks(&self, faults: &str) -> Vec<Line> {
        let tasks = format!("of {} tasks that a client saw created in {faults}", self.tasks);
        vec![
            Line::new(format!("without their one last state and one result, {tasks}"), 0.0, self.ends as f64, "tasks"),
            Line::new(format!("told to the gateway otherwise than here, {tasks}"), 0.0, self.altered as f64, "tasks"),
            Line::new(
                format!("told otherwise than a client was told before, {tasks}"),
                0.0,
                self.taken_back as f64,
                "tasks",
            ),
        ]
    }

    fn count(&mut self, events: &[Value], produced: &Produced) {
        self.tally.count(events, produced);
        let mut last: BTreeMap<&str, u32> = BTreeMap::new();
        for body in
            events.iter().filter(|event| event["record"]["kind"] == "line").map(|event| &event["record"]["body"])
        {
            // As `load` has tasks write: who, and which of them. Elsewhere programs complain of what the kernel refuses them.
            let Some((id, number)) = body["text"].as_str().and_then(|text| text.split_once(' ')) else { continue };
            let Ok(number) = number.parse() else { continue };
            let before = last.insert(id, number).unwrap_or(0);
            let again = self.power && number == 1;
            self.lines += 1;
            if body["task_id"] != id || number <= before && !again {
                self.misplaced += noted(id, &format!("has line {number} after line {before}: {body}"));
            }
        }
    }

    fn check(&mut self, sandbox: &Sandbox, tasks: &BTreeMap<String, Value>, events: &[Value]) {
        self.tasks += sandbox.told.len();
        for (id, told) in &sandbox.told {
            match tasks.get(id) {
                None => self.ends += noted(id, "was told to be there, and is gone"),
                Some(task) if told.end.as_ref().is_some_and(|end| task["state"] != end.as_str()) => {
                    self.taken_back += noted(id, &format!("was told to have {:?}, and is told as {task}", told.end));
                }
                Some(_) => {}
            }
        }
        let mut excused = Refused::of(events);
        let mut by_task: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for record in events.iter().map(|event| &event["record"]) {
            by_task.entry(record["body"]["task_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        for (id, task) in tasks {
            let records = by_task.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
            self.check_task(id, task, records, &mut excused);
        }
    }

    /// Whether a task is what its result said, but for output that power took since.
    fn is_as_told(&self, task: &Value, result: &Value) -> bool {
        let cut = |task: &Value| task["output"]["cut_bytes"].as_u64();
        let mut then = task.clone();
        if self.power && cut(task) > cut(result) {
            then["output"]["cut_bytes"] = result["output"]["cut_bytes"].clone();
        }
        then == *result
    }

    /// One last state and one result, both as it is told here, and each state before where it ran.
    fn check_task(&mut self, id: &str, task: &Value, records: &[&Value], refused: &mut Refused) {
        let told = |kind: &dyn Fn(&str) -> bool| -> Vec<&Value> {
            records.iter().filter(|record| kind(record["kind"].as_str().unwrap_or_default())).copied().collect()
        };
        let word = task["state"].as_str().unwrap_or_default();
        for kind in ["task.starting", "task.running"] {
            // A kill may come between noting a state and telling it; of a lost task the end alone is told afterwards.
            let must = word != "lost" && !task["started_at"].is_null();
            let times = told(&|told| told == kind).len();
            if times > 1 || times < usize::from(must) && !refused.takes(Class::Lifecycle) {
                self.ends += noted(id, &format!("is told here as {task}, and {times} times to be {kind}"));
            }
        }
        let open = ["task.starting", "task.running", "task.result", "line"];
        let last = told(&|kind| !open.contains(&kind));
        let results = told(&|kind| kind == "task.result");
        if (last.is_empty() && refused.takes(Class::Lifecycle)) || (results.is_empty() && refused.takes(Class::Results))
        {
            return;
        }
        if last.len() != 1 || results.len() != 1 {
            let has = format!("has {} last states and {} results", last.len(), results.len());
            self.ends += noted(id, &format!("is told here as {task}, and {has}"));
        } else if last[0]["kind"] != format!("task.{word}") || !self.is_as_told(task, &results[0]["body"]) {
            self.altered += noted(id, &format!("is told here as {task}, and is {} and {}", last[0], results[0]));
        }
    }
}

/// Numbers by class that are gaps because a disk refused their records, or to give them back, or because there was no room for them while the
/// gateway was away. Each stands for one record that nobody can have.
struct Refused(BTreeMap<Class, i64>);

const REFUSED: [&str; 3] = ["disk", "damaged", "evicted"];

impl Refused {
    fn of(events: &[Value]) -> Refused {
        let of = |class: Class| {
            let excused = |event: &&Value| REFUSED.iter().any(|reason| event["gap"]["reason"] == *reason);
            let gaps = events.iter().filter(|event| event["class"] == class.name()).filter(excused);
            let number = |gap: &Value, name: &str| gap["gap"][name].as_i64().unwrap_or_default();
            (class, gaps.map(|gap| number(gap, "to") - number(gap, "from") + 1).sum())
        };
        Refused(Class::ALL.map(of).into())
    }

    /// One of them.
    fn takes(&mut self, class: Class) -> bool {
        let left = self.0.entry(class).or_default();
        *left -= 1;
        *left >= 0
    }
}

/// One more.
fn noted(id: &str, what: &str) -> usize {
    println!("{id} {what}");
    1
}
