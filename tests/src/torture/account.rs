//! What became of all that was produced, and of all tasks: the numbers that every run ends with.

use std::collections::{BTreeMap, BTreeSet};

use protocol::session::Class;
use serde_json::{Value, json};

use super::load::{Sandbox, Told};
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::tally::{DAMAGED_FILE, Produced, Tally};

mod cost;

pub use cost::Cost;
use cost::Excused;

/// What was found, counted over any number of sandboxes.
#[derive(Default)]
pub struct Account {
    cost: Cost,
    tally: Tally,
    /// Tasks that a client was told of, and those of them of which the gateway has a result.
    tasks: usize,
    results: usize,
    ends: usize,
    altered: usize,
    taken_back: usize,
    /// Tasks that a client was refused for want of a disk, and those of them that are there.
    refused: usize,
    came_back: usize,
    /// Of what tasks wrote, line by line.
    lines: usize,
    misplaced: usize,
    missing: usize,
}

impl Account {
    /// Of a run whose faults may cost this; by default they may cost nothing.
    pub fn of(cost: Cost) -> Account {
        Account { cost, ..Account::default() }
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
            let excused = Excused::of(self.cost, &self.count(&events, &produced));
            self.deliver(&sandbox.told, &events);
            self.check((&sandbox.told, &sandbox.refused), &tasks, &events, excused);
        }
    }

    /// Of records alone, where tasks may have lost their last words, and have told them once more.
    pub fn settle_records(&mut self, sandboxes: &mut [Sandbox], gateway: &Gateway) {
        sandboxes.iter_mut().for_each(Sandbox::end_load);
        for sandbox in sandboxes {
            // Not what they are: a task that still waits has no result.
            let _ = sandbox.tasks();
            let produced = sandbox.produced();
            let events = gateway.events(sandbox.id);
            self.count(&events, &produced);
            self.deliver(&sandbox.told, &events);
        }
    }

    /// What another one has found, too.
    pub fn add(&mut self, other: &Account) {
        self.tally.add(&other.tally);
        self.tasks += other.tasks;
        self.results += other.results;
        self.ends += other.ends;
        self.altered += other.altered;
        self.taken_back += other.taken_back;
        self.refused += other.refused;
        self.came_back += other.came_back;
        self.lines += other.lines;
        self.misplaced += other.misplaced;
        self.missing += other.missing;
    }

    /// Whether a goal is missed.
    pub fn is_wrong(&self) -> bool {
        self.unexplained().0 > 0 || ![self.records(""), self.tasks("")].concat().iter().all(Line::kept)
    }

    /// Gaps after these `faults`, which are printed by their reasons: none but those that the faults explain, and so many `doubts` at most as ends
    /// without a last word may leave.
    pub fn gaps(&self, faults: &str, doubts: usize) -> Line {
        println!("gaps in {faults}: {}", self.tally.gaps_in_words());
        let (others, in_doubt) = self.unexplained();
        let but = if doubts == 0 { String::new() } else { format!(", but for {doubts} that are in doubt") };
        let too_many = others + (in_doubt - doubts as i64).max(0);
        Line::new(format!("gaps that are not explained by {faults}{but}"), 0.0, too_many as f64, "gaps")
    }

    /// Gaps that the faults do not explain, and those of numbers that may never have been records: a write was broken off, or a file only begun. They
    /// excuse nothing.
    fn unexplained(&self) -> (i64, i64) {
        let (mut others, mut in_doubt) = (0, 0);
        for ((class, reason), gaps) in &self.tally.reasons {
            match reason.as_str() {
                "crash" | DAMAGED_FILE => in_doubt += gaps.told,
                reason if !self.cost.explains(*class, reason) => others += gaps.told,
                _ => {}
            }
        }
        (others, in_doubt)
    }

    /// That at least so many of a hundred results arrived, whatever excuses the others.
    pub fn delivered(&self, faults: &str, least: f64) -> Line {
        let of = format!("of {} tasks that a client saw created in {faults}", self.tasks);
        let part = 100.0 * self.results as f64 / self.tasks.max(1) as f64;
        Line::at_least(format!("with a result at the gateway, {of}"), least, part, "%")
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
        let lines = format!("of {} lines of tasks in {faults}", self.lines);
        let none = |what: String, seen: i64, unit| Line::new(what, 0.0, seen as f64, unit);
        vec![
            none(format!("neither stored nor in a gap, {of}"), tally.lost, "records"),
            none(format!("stored twice, {of}"), tally.twice, "records"),
            none(format!("stored and never produced, beside those {of}"), tally.invented, "records"),
            none(format!("twice or not in their order, {lines}"), self.misplaced as i64, "lines"),
            none(format!("before a later one, and neither there nor in a gap, {lines}"), self.missing as i64, "lines"),
        ]
    }

    /// What became of tasks.
    pub fn tasks(&self, faults: &str) -> Vec<Line> {
        let tasks = format!("of {} tasks that a client saw created in {faults}", self.tasks);
        let refused = format!("of {} tasks that a client was refused so in {faults}", self.refused);
        let none = |what: String, seen: usize| Line::new(what, 0.0, seen as f64, "tasks");
        vec![
            none(format!("without their one last state and one result, {tasks}"), self.ends),
            none(format!("told to the gateway otherwise than here, {tasks}"), self.altered),
            none(format!("told otherwise than a client was told before, {tasks}"), self.taken_back),
            none(format!("refused for want of a disk, and there all the same, {refused}"), self.came_back),
        ]
    }

    /// By numbers, and what tasks wrote by lines; the numbers of this sandbox.
    fn count(&mut self, events: &[Value], produced: &Produced) -> Tally {
        let mut tally = Tally::default();
        tally.count(events, produced);
        self.tally.add(&tally);
        // Numbers are given out in the order of a stream: a line that is there brings those before it, if not in a gap.
        let all_are_due = !tally.reasons.keys().any(|(class, _)| *class == Class::Logs);
        let mut last: BTreeMap<&str, u32> = BTreeMap::new();
        for body in
            events.iter().filter(|event| event["record"]["kind"] == "line").map(|event| &event["record"]["body"])
        {
            // As `load` has tasks write: who, and which of them. Elsewhere programs complain of what the kernel refuses them.
            let Some((id, number)) = body["text"].as_str().and_then(|text| text.split_once(' ')) else { continue };
            let Ok(number) = number.parse() else { continue };
            let before = last.insert(id, number).unwrap_or(0);
            let again = self.loses_power() && number == 1;
            self.lines += 1;
            if body["task_id"] != id || number <= before && !again {
                self.misplaced += noted(id, &format!("has line {number} after line {before}: {body}"));
            } else if all_are_due && number > before + 1 {
                self.missing += noted(id, &format!("has line {number} after line {before}, and no gap: {body}"));
            }
        }
        tally
    }

    /// Which of these tasks have a result at the gateway.
    fn deliver(&mut self, told: &BTreeMap<String, Told>, events: &[Value]) {
        let results = events.iter().map(|event| &event["record"]).filter(|record| record["kind"] == "task.result");
        let with: BTreeSet<&str> = results.filter_map(|record| record["body"]["task_id"].as_str()).collect();
        self.tasks += told.len();
        self.results += told.keys().filter(|id| with.contains(id.as_str())).count();
    }

    /// Tasks, as clients were told of them or that they are refused, and as the supervisor tells of them in the end.
    fn check(
        &mut self,
        (told, refused): (&BTreeMap<String, Told>, &BTreeSet<String>),
        tasks: &BTreeMap<String, Value>,
        events: &[Value],
        mut excused: Excused,
    ) {
        for (id, told) in told {
            match tasks.get(id) {
                None => self.ends += noted(id, "was told to be there, and is gone"),
                Some(task) if told.end.as_ref().is_some_and(|end| task["state"] != end.as_str()) => {
                    self.taken_back += noted(id, &format!("was told to have {:?}, and is told as {task}", told.end));
                }
                Some(_) => {}
            }
        }
        let mut by_task: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for record in events.iter().map(|event| &event["record"]) {
            by_task.entry(record["body"]["task_id"].as_str().unwrap_or_default()).or_default().push(record);
        }
        self.refused += refused.len();
        for id in refused.iter().filter(|id| tasks.contains_key(*id) || by_task.contains_key(id.as_str())) {
            let told = json!([tasks.get(id), by_task.get(id.as_str())]);
            self.came_back += noted(id, &format!("was refused, and is told here, and to the gateway, as {told}"));
        }
        for (id, task) in tasks {
            let records = by_task.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
            self.check_task(id, task, records, &mut excused);
        }
    }

    /// Whether faults take what was not synced: output, and by default the last words on tasks, which may then run again.
    fn loses_power(&self) -> bool {
        matches!(self.cost, Cost::Unsynced { .. })
    }

    /// Whether a task is what its result said, but for output that power took since.
    fn is_as_told(&self, task: &Value, result: &Value) -> bool {
        let cut = |task: &Value| task["output"]["cut_bytes"].as_u64();
        let mut then = task.clone();
        if self.loses_power() && cut(task) > cut(result) {
            then["output"]["cut_bytes"] = result["output"]["cut_bytes"].clone();
        }
        then == *result
    }

    /// One last state and one result, both as it is told here, and each state before where it ran. What is excused may be missing; what is there
    /// is held to the same.
    fn check_task(&mut self, id: &str, task: &Value, records: &[&Value], excused: &mut Excused) {
        let told = |kind: &dyn Fn(&str) -> bool| -> Vec<&Value> {
            records.iter().filter(|record| kind(record["kind"].as_str().unwrap_or_default())).copied().collect()
        };
        let word = task["state"].as_str().unwrap_or_default();
        for kind in ["task.starting", "task.running"] {
            // A kill may come between noting a state and telling it; of a lost task the end alone is told afterwards.
            let must = word != "lost" && !task["started_at"].is_null();
            let times = told(&|told| told == kind).len();
            if times > 1 || times < usize::from(must) && !excused.takes(Class::Lifecycle) {
                self.ends += noted(id, &format!("is told here as {task}, and {times} times to be {kind}"));
            }
        }
        let open = ["task.starting", "task.running", "task.result", "line"];
        let last = told(&|kind| !open.contains(&kind));
        let results = told(&|kind| kind == "task.result");
        let without_state = last.is_empty() && !excused.takes(Class::Lifecycle);
        let without_result = results.is_empty() && !excused.takes(Class::Results);
        if last.len() > 1 || results.len() > 1 || without_state || without_result {
            let has = format!("has {} last states and {} results", last.len(), results.len());
            self.ends += noted(id, &format!("is told here as {task}, and {has}"));
        } else if last.iter().any(|state| state["kind"] != format!("task.{word}"))
            || results.iter().any(|result| !self.is_as_told(task, &result["body"]))
        {
            let is = json!([last, results]);
            self.altered += noted(id, &format!("is told here as {task}, and to the gateway as {is}"));
        }
    }
}

/// One more.
fn noted(id: &str, what: &str) -> usize {
    println!("{id} {what}");
    1
}

#[cfg(test)]
mod tests;
