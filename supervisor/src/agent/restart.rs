//! When the agent is started again.

use std::time::Duration;

use protocol::control::Exit;

use crate::backoff::{Backoff, random};

/// The operator's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The supervisor ends as the agent did, and the kubelet's policy applies.
    Never,
    /// After any end but exit code 0.
    OnFailure,
    /// After any end.
    Always,
}

/// After an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this long.
    After(Duration),
    /// Do not.
    End,
}

/// Policy and back-off.
#[derive(Debug)]
pub struct Restart {
    policy: Policy,
    backoff: Backoff,
    calm: Duration,
}

impl Restart {
    /// Back-off doubles from `min` to `max`; a run as long as `max`, and at least 10 s, forgives what was before.
    pub fn new(policy: Policy, min: Duration, max: Duration) -> Restart {
        Restart { policy, backoff: Backoff::new(min, max), calm: max.max(Duration::from_secs(10)) }
    }

    /// After a run that took `lasted`.
    pub fn decide(&mut self, exit: Exit, lasted: Duration) -> Decision {
        let again = match self.policy {
            Policy::Never => false,
            Policy::OnFailure => exit != Exit::Code(0),
            Policy::Always => true,
        };
        if !again {
            return Decision::End;
        }
        if lasted >= self.calm {
            self.backoff.reset();
        }
        Decision::After(self.backoff.next(random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Exit = Exit::Code(1);
    const SHORT: Duration = Duration::ZERO;

    fn restart(policy: Policy) -> Restart {
        Restart::new(policy, Duration::from_secs(1), Duration::from_secs(60))
    }

    #[test]
    fn each_policy_answers_success_and_failure_as_named() {
        for (policy, after_success, after_failure) in
            [(Policy::Never, false, false), (Policy::OnFailure, false, true), (Policy::Always, true, true)]
        {
            assert_eq!(restart(policy).decide(Exit::Code(0), SHORT) != Decision::End, after_success, "{policy:?}");
            assert_eq!(restart(policy).decide(FAILURE, SHORT) != Decision::End, after_failure, "{policy:?}");
            assert_eq!(restart(policy).decide(Exit::Signal(9), SHORT) != Decision::End, after_failure, "{policy:?}");
        }
    }

    #[test]
    fn a_long_calm_run_forgives_earlier_failures() {
        let mut restart = restart(Policy::Always);
        for _ in 0..10 {
            restart.decide(FAILURE, SHORT);
        }
        let Decision::After(tired) = restart.decide(FAILURE, SHORT) else { panic!("always starts again") };
        assert!(tired >= Duration::from_secs(30), "{tired:?}");
        let Decision::After(fresh) = restart.decide(FAILURE, Duration::from_secs(61)) else { panic!("always") };
        assert!(fresh <= Duration::from_secs(1), "{fresh:?}");
    }
}
