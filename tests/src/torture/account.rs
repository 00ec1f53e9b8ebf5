//! What became of all that was produced, and of all tasks: the numbers that every run ends with.

use std::collections::BTreeMap;

use protocol::session::Class;
use serde_json::Value;

use super::load::Sandbox;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::tally::Tally;

/// What was found, counted over any number of sandboxes.
#[derive(Default)]
pub struct Account {
    tally: Tally,
    tasks: usize,
    ends: usize,
    altered: usize,
    taken_back: usize,
}

impl Account {
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
            self.tally.count(&events, &produced);
            self.check(sandbox, &tasks, &events);
        }
    }

    /// Of records alone, where tasks may have lost their last words, and have told them once more.
    pub fn settle_records(&mut self, sandboxes: &mut [Sandbox], gateway: &Gateway) {
        sandboxes.iter_mut().for_each(Sandbox::end_load);
        for sandbox in sandboxes {
            let produced = sandbox.produced();
            self.tally.count(&gateway.events(sandbox.id), &produced);
        }
    }

    /// What another one has found, too.
    pub fn add(&mut self, other: &Account) {
        self.tally.add(&other.tally);
        self.tasks += other.tasks;
        self.ends += other.ends;
        self.altered += other.altered;
        self.taken_back += other.taken_back;
    }

    /// Whether a goal is missed.
    pub fn is_wrong(&self) -> bool {
        !self.lines("").iter().all(Line::kept)
    }

    /// Numbers that are in gaps.
    pub fn gaps(&self) -> i64 {
        self.tally.gaps
    }

    /// All of it but the gaps, after these `faults`.
    pub fn lines(&self, faults: &str) -> Vec<Line> {
        [self.records(faults), self.tasks(faults)].concat()
    }

    /// What became of records.
    pub fn records(&self, faults: &str) -> Vec<Line> {
        let tally = &self.tally;
        let of = format!("of {} records in {faults}", tally.delivered);
        vec![
            Line::new(format!("neither stored nor in a gap, {of}"), 0.0, tally.lost as f64, "records"),
            Line::new(format!("stored twice, {of}"), 0.0, tally.twice as f64, "records"),
            Line::new(format!("stored and never produced, beside those {of}"), 0.0, tally.invented as f64, "records"),
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

    /// One last state and one result, both as it is told here.
    fn check_task(&mut self, id: &str, task: &Value, records: &[&Value], refused: &mut Refused) {
        let told = |kind: &dyn Fn(&str) -> bool| -> Vec<&Value> {
            records.iter().filter(|record| kind(record["kind"].as_str().unwrap_or_default())).copied().collect()
        };
        let word = task["state"].as_str().unwrap_or_default();
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
        } else if last[0]["kind"] != format!("task.{word}") || results[0]["body"] != *task {
            self.altered += noted(id, &format!("is told here as {task}, and is {} and {}", last[0], results[0]));
        }
    }
}

/// Numbers by class that are gaps because a disk refused their records, or because there was no room for them while the gateway was away. Each
/// stands for one record that nobody can have.
struct Refused(BTreeMap<Class, i64>);

impl Refused {
    fn of(events: &[Value]) -> Refused {
        let of = |class: Class| {
            let excused = |event: &&Value| ["disk", "evicted"].iter().any(|reason| event["gap"]["reason"] == *reason);
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
