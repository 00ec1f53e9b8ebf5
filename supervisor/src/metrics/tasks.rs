//! What is counted of dev-tasks. Labels are words of the program, so that counting a task allocates nothing; what is kept
//! grows with classes and states, never with tasks.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use protocol::policy::ExecutionClass;
use protocol::task::{State, Task};

use super::{Counter, Level};

/// Upper bounds of the buckets of both durations, s: from a program that does nothing to an afternoon's work.
const SECONDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];

type Label = (&'static str, &'static str);
type ByClass<M> = Family<[Label; 1], M>;
type ByClassAndState<M> = Family<[Label; 2], M>;

/// The numbers of dev-tasks.
#[derive(Debug)]
pub struct Tasks {
    /// Tasks that are remembered, by class and by the state that they are in.
    pub states: ByClassAndState<Level>,
    /// Tasks accepted, by class.
    pub accepted: ByClass<Counter>,
    /// Tasks that ended, by class and by how.
    pub ended: ByClassAndState<Counter>,
    /// From the acceptance to the start of those that were started, s.
    pub queue_seconds: ByClass<Histogram>,
    /// From the start of the program until nobody of the task was left, s.
    pub run_seconds: ByClass<Histogram>,
    /// Tasks that wait for their turn.
    pub queue_depth: Level,
    /// Bytes taken, those that are cut later too, by stream.
    pub output_bytes: Family<[Label; 1], Counter>,
    /// Bytes of them that are no longer kept, because a task wrote more than its limit.
    pub cut_bytes: Counter,
    /// Tasks that came and changes of their states; not shown, because the others have it by class.
    changes: Counter,
}

impl Default for Tasks {
    fn default() -> Tasks {
        let histograms = || ByClass::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let (accepted, ended) = (ByClass::<Counter>::default(), ByClassAndState::<Counter>::default());
        // A counter that begins with 1 is no increase to Prometheus: the first failure in a Pod would not be seen.
        for class in ExecutionClass::ALL {
            drop(accepted.get_or_create(&of(class)));
            for state in State::ALL.into_iter().filter(|state| state.is_final()) {
                drop(ended.get_or_create(&of_state(class, state)));
            }
        }
        Tasks {
            states: Family::default(),
            accepted,
            ended,
            queue_seconds: histograms(),
            run_seconds: histograms(),
            queue_depth: Level::default(),
            output_bytes: Family::default(),
            cut_bytes: Counter::default(),
            changes: Counter::default(),
        }
    }
}

impl Tasks {
    /// A task of a client.
    pub fn accept(&self, task: &Task) {
        self.accepted.get_or_create(&of(task.runtime.execution_class)).inc();
        self.changes.inc();
    }

    /// It is remembered, as what it is now.
    pub fn remember(&self, task: &Task) {
        self.states.get_or_create(&of_state(task.runtime.execution_class, task.state)).inc();
    }

    /// It is no longer remembered.
    pub fn forget(&self, task: &Task) {
        self.states.get_or_create(&of_state(task.runtime.execution_class, task.state)).dec();
    }

    /// It is in another state than `from`, in which it was for so long.
    pub fn change(&self, from: State, task: &Task, lasted: Duration) {
        let (class, seconds) = (task.runtime.execution_class, lasted.as_secs_f64());
        self.states.get_or_create(&of_state(class, from)).dec();
        self.remember(task);
        self.changes.inc();
        match (from, task.state) {
            (State::Queued, State::Starting) => self.queue_seconds.get_or_create(&of(class)).observe(seconds),
            (State::Running, state) if state.is_final() => self.run_seconds.get_or_create(&of(class)).observe(seconds),
            _ => {}
        }
        if task.state.is_final() {
            self.end(task);
        }
    }

    /// It has ended.
    pub fn end(&self, task: &Task) {
        self.ended.get_or_create(&of_state(task.runtime.execution_class, task.state)).inc();
    }

    /// Counts bytes of this stream.
    pub fn output(&self, stream: &'static str) -> Counter {
        self.output_bytes.get_or_create_owned(&[("stream", stream)])
    }

    /// Grows with each task that comes, with each change of a task's state and with each byte that tasks write.
    pub fn work(&self) -> u64 {
        let written = |stream| self.output_bytes.get(&[("stream", stream)]).map_or(0, |count| count.get());
        self.changes.get() + written("stdout") + written("stderr")
    }
}

fn of(class: ExecutionClass) -> [Label; 1] {
    [("class", class.name())]
}

fn of_state(class: ExecutionClass, state: State) -> [Label; 2] {
    [("class", class.name()), ("state", state.name())]
}
