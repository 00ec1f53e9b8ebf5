//! What a signal means to the supervisor.

use std::sync::Arc;

use crate::metrics::Metrics;

use super::Request;

/// systemd's convention for "halt", which some images name as their STOPSIGNAL.
const RTMIN_PLUS_3: i32 = 34 + 3;

/// A signal as `signalfd(2)` tells it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Number.
    pub signal: i32,
    /// Sender's pid in our pid namespace; 0 for the kernel and for senders outside it.
    pub sender: u32,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A child changed state.
    Child,
    /// Ask the supervisor.
    Ask(Request),
    /// A stop signal from inside the namespace, which PID 1 does not obey.
    FromInside,
    /// Not for us, not for the agent.
    Nothing,
}

/// How signals are read.
pub struct Rules {
    /// The kernel shields PID 1 only from signals that it has no handler for. We read TERM, so an agent of the same
    /// uid could stop the Pod; the runtime's own signals come from outside the namespace, with sender 0.
    pub shield: bool,
    /// Counts what was ignored.
    pub metrics: Arc<Metrics>,
}

impl Rules {
    /// Whether `incoming` is obeyed, forwarded or ignored.
    pub fn meaning(&self, incoming: Incoming) -> Meaning {
        use libc::*;
        match incoming.signal {
            SIGCHLD => Meaning::Child,
            SIGTERM | SIGINT | SIGQUIT | SIGPWR | RTMIN_PLUS_3 => {
                if self.shield && incoming.sender != 0 {
                    self.metrics.signals_ignored.inc();
                    Meaning::FromInside
                } else {
                    Meaning::Ask(Request::Stop(incoming.signal))
                }
            }
            // Faults are about ourselves, the terminal's stop signals and timers too.
            SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGABRT | SIGTRAP | SIGSYS => Meaning::Nothing,
            SIGTSTP | SIGTTIN | SIGTTOU | SIGPIPE | SIGALRM | SIGVTALRM | SIGPROF | SIGIO => Meaning::Nothing,
            other => Meaning::Ask(Request::Forward(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(shield: bool) -> Rules {
        Rules { shield, metrics: Arc::default() }
    }

    #[test]
    fn pid_1_obeys_a_stop_signal_only_from_outside() {
        let rules = rules(true);
        assert_eq!(
            rules.meaning(Incoming { signal: libc::SIGTERM, sender: 0 }),
            Meaning::Ask(Request::Stop(libc::SIGTERM))
        );
        assert_eq!(rules.meaning(Incoming { signal: libc::SIGTERM, sender: 7 }), Meaning::FromInside);
        assert_eq!(rules.metrics.signals_ignored.get(), 1);
    }

    #[test]
    fn elsewhere_every_sender_is_obeyed() {
        let stop = Incoming { signal: libc::SIGINT, sender: 7 };
        assert_eq!(rules(false).meaning(stop), Meaning::Ask(Request::Stop(libc::SIGINT)));
    }

    #[test]
    fn user_signals_are_forwarded_and_faults_are_not() {
        let meaning = |signal| rules(true).meaning(Incoming { signal, sender: 9 });
        assert_eq!(meaning(libc::SIGUSR1), Meaning::Ask(Request::Forward(libc::SIGUSR1)));
        assert_eq!(meaning(libc::SIGHUP), Meaning::Ask(Request::Forward(libc::SIGHUP)));
        assert_eq!(meaning(40), Meaning::Ask(Request::Forward(40)));
        assert_eq!(meaning(libc::SIGSEGV), Meaning::Nothing);
    }
}
