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
    /// Bytes written, kept or not, by stream.
    pub output_bytes: Family<[Label; 1], Counter>,
    /// Bytes of them that are no longer kept, because a task wrote more than its limit.
    pub cut_bytes: Counter,
}

impl Default for Tasks {
    fn default() -> Tasks {
        let histograms = || ByClass::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        Tasks {
            states: Family::default(),
            accepted: Family::default(),
            ended: Family::default(),
            queue_seconds: histograms(),
            run_seconds: histograms(),
            queue_depth: Level::default(),
            output_bytes: Family::default(),
            cut_bytes: Counter::default(),
        }
    }
}

impl Tasks {
    /// A task of a client.
    pub fn accept(&self, task: &Task) {
        let class = task.runtime.execution_class;
        self.accepted.get_or_create(&of(class)).inc();
        // A counter that begins with 1 is no increase to Prometheus: the first failure of a Pod would not be seen.
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            drop(self.ended.get_or_create(&of_state(class, state)));
        }
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

    /// Grows with each task that comes and with each that ends.
    pub fn work(&self) -> u64 {
        let of_class = |class| {
            let accepted = self.accepted.get(&of(class)).map_or(0, |count| count.get());
            let ended = |state| self.ended.get(&of_state(class, state)).map_or(0, |count| count.get());
            accepted + State::ALL.into_iter().map(ended).sum::<u64>()
        };
        ExecutionClass::ALL.into_iter().map(of_class).sum()
    }
}

fn of(class: ExecutionClass) -> [Label; 1] {
    [("class", class.name())]
}

fn of_state(class: ExecutionClass, state: State) -> [Label; 2] {
    [("class", class.name()), ("state", state.name())]
}
