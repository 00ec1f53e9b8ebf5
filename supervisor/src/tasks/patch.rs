//! What is told of a patch: shown, approved, applied. Each step is on the disk before the next one begins.
//!
//! An approval names the bytes that somebody saw. `applying` is written before the relay is called, so that a crash in
//! between is known for what it is: `unknown`. Asking again uses the same key, and the relay applies a key once.

use protocol::task::{Apply, ApplyState, Shown, Task};

use super::{Refused, identity};

/// A patch was shown.
pub fn show(sha256: String, bytes: u64) -> impl FnOnce(&mut Task) -> Result<bool, Refused> + Send {
    move |task| {
        task.diff = Some(Shown { sha256, bytes, at: identity::now() });
        Ok(true)
    }
}

/// It was approved: now applying, unless it is applied already.
pub fn approve(sha256: String) -> impl FnOnce(&mut Task) -> Result<bool, Refused> + Send {
    move |task| {
        let before = task.apply.as_ref().filter(|apply| apply.sha256 == sha256);
        match before.map(|apply| apply.state) {
            Some(ApplyState::Applied) => return Ok(false),
            Some(ApplyState::Applying) => return Err(Refused::State("this patch is being applied")),
            // Approved once; asked again.
            Some(ApplyState::Refused | ApplyState::Unknown) => {}
            None if task.diff.as_ref().is_none_or(|shown| shown.sha256 != sha256) => {
                return Err(Refused::Conflict("sha256 is not that of the patch that was shown last; look at it again"));
            }
            None => {}
        }
        if task.apply.as_ref().is_some_and(|apply| apply.state == ApplyState::Applying) {
            return Err(Refused::State("another patch of this task is being applied"));
        }
        if before.is_none() && task.diff.as_ref().is_some_and(|shown| shown.bytes == 0) {
            return Err(Refused::State("the patch is empty: there is nothing to apply"));
        }
        let idempotency_key = format!("{}-{sha256}", task.runtime.backend_run_id);
        let state = ApplyState::Applying;
        task.apply = Some(Apply { sha256, state, idempotency_key, detail: None, at: identity::now() });
        Ok(true)
    }
}

/// The relay answered, or did not.
pub fn answered(
    sha256: String,
    state: ApplyState,
    detail: String,
) -> impl FnOnce(&mut Task) -> Result<bool, Refused> + Send {
    move |task| {
        let Some(apply) = task.apply.as_mut().filter(|apply| apply.sha256 == sha256) else { return Ok(false) };
        (apply.state, apply.detail, apply.at) = (state, Some(detail), identity::now());
        Ok(true)
    }
}

/// After a crash: whether the relay was called and what it said is not known.
pub(super) fn forget_the_answer(apply: &mut Apply) -> bool {
    if apply.state != ApplyState::Applying {
        return false;
    }
    apply.state = ApplyState::Unknown;
    apply.detail = Some("the supervisor ended before the relay's answer was written down".into());
    true
}
