//! How a task ended: in facts, in words and as an exit code.

use gateway::exit;
use protocol::task::{State, Task};

use super::client::note;
use super::table::between;

/// What a person wants to know of a task.
pub(super) fn facts(task: &Task) -> Vec<(&'static str, String)> {
    let mut facts = vec![("task", task.task_id.clone()), ("state", task.state.name().into())];
    let optional = [
        ("exit code", task.exit_code.map(|code| code.to_string())),
        ("signal", task.signal.map(|signal| signal.to_string())),
        ("reason", task.reason.clone()),
    ];
    facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    facts.push(("took", between(task.started_at.as_deref(), task.finished_at.as_deref())));
    facts.push(("class", task.runtime.execution_class.name().into()));
    facts.push(("output", format!("{} + {} bytes", task.output.stdout_bytes, task.output.stderr_bytes)));
    facts
}

/// Tell a person what the output and the exit code do not; the exit code.
pub(super) fn report(task: &Task) -> u8 {
    if let Some(words) = surprise(task) {
        note(&words);
    }
    code(task)
}

/// What a person would not see from the output and the exit code.
fn surprise(task: &Task) -> Option<String> {
    let ordinary = task.exit_code.is_some() && matches!(task.state, State::Succeeded | State::Failed);
    let reason = task.reason.as_deref().map(|reason| format!(": {reason}"));
    match (ordinary, &reason) {
        (true, None) => None,
        _ => Some(format!("task {} {}{}", task.task_id, ending(task), reason.unwrap_or_default())),
    }
}

fn ending(task: &Task) -> String {
    match (task.state, task.signal) {
        (State::Failed, Some(signal)) => format!("was ended by signal {signal}"),
        (State::TimedOut, _) => "ran out of time".into(),
        (State::Cancelled, _) => "was cancelled".into(),
        (State::Lost, _) => "was lost".into(),
        (state, _) => format!("has {}", state.name()),
    }
}

/// What a shell would say of it.
pub(super) fn code(task: &Task) -> u8 {
    let own = task.exit_code.or(task.signal.map(|signal| 128 + signal)).and_then(|code| u8::try_from(code).ok());
    match (task.state, own) {
        // As timeout(1) does.
        (State::TimedOut, _) => 124,
        (State::Cancelled, None) => 143,
        (State::Succeeded, _) => 0,
        (_, Some(code)) => code,
        (State::Failed, None) => 71,
        (_, None) => exit::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: State, exit_code: Option<i32>, signal: Option<i32>) -> Task {
        let json = serde_json::json!({
            "task_id": "t", "state": state, "exit_code": exit_code, "signal": signal, "reason": null, "oom_killed": null,
            "created_at": "2026-11-21T11:18:32Z", "started_at": null, "finished_at": null,
            "runtime": {"backend_run_id": "r", "execution_class": "local", "artifact_root": "/a", "log_root": "/l"},
            "output": {"stdout_bytes": 0, "stderr_bytes": 0, "cut_bytes": 0},
            "usage": {"user_us": 0, "system_us": 0, "max_rss_kib": 0},
        });
        serde_json::from_value(json).expect("a task")
    }

    #[test]
    fn the_exit_code_is_what_a_shell_would_say() {
        let of = |state, exit_code, signal| code(&task(state, exit_code, signal));
        assert_eq!(of(State::Succeeded, Some(0), None), 0);
        assert_eq!(of(State::Failed, Some(7), None), 7);
        assert_eq!(of(State::Failed, None, Some(9)), 137);
        assert_eq!(of(State::Failed, None, None), 71);
        assert_eq!(of(State::TimedOut, None, Some(15)), 124);
        assert_eq!(of(State::Cancelled, None, Some(15)), 143);
        assert_eq!(of(State::Lost, None, None), 70);
    }

    #[test]
    fn only_what_the_code_does_not_say_is_told() {
        assert_eq!(surprise(&task(State::Failed, Some(7), None)), None);
        assert!(surprise(&task(State::Failed, None, Some(9))).is_some_and(|words| words.contains("signal 9")));
        assert!(surprise(&task(State::Lost, None, None)).is_some_and(|words| words.contains("lost")));
    }
}
