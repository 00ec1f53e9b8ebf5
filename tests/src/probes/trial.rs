//! One probe tried once: where nothing confines it, or under the real supervisor.

use std::fmt;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::{Outcome, Probe};
use crate::stage::{Cut, Pids, Profile, Stage};
use crate::supervisor::{Builder, End, Supervisor};
use crate::tasks::Api;
use crate::{binaries, scene};

/// A system call that a probe asked for: number and arguments.
pub type Asked = (u32, [u64; 6]);

/// What the supervisor says where it has to start a shim.
const NOT_FORKED: &str = "could not be forked";
/// What it says where somebody has killed one.
const SHIM_KILLED: &str = "shim was killed";
const SILENT: &str = "it was ended before its verdict";

/// The probe's own line; what killed it before it could print one is a denial by signal.
pub fn verdict(stdout: &str) -> Outcome {
    let line = stdout.lines().find_map(Outcome::parse);
    line.unwrap_or_else(|| Outcome::Denied(format!("{SILENT}; output {stdout:?}")))
}

/// The same where its end is known: only a signal can have denied it anything before its word. What ended otherwise and said nothing
/// has not tried.
fn verdict_at_end(stdout: &str, signalled: bool, end: impl fmt::Display) -> Outcome {
    match verdict(stdout) {
        Outcome::Denied(why) if why.starts_with(SILENT) && !signalled => {
            Outcome::Untried(format!("it said nothing: {end}"))
        }
        said => said,
    }
}

/// Without shim and supervisor, on the same stage. A signal that ends the stand-in of PID 1 may end the probe before its word: then it is
/// tried again.
pub fn unconfined(probe: &Probe, profile: Profile) -> Outcome {
    let attempt = || alone(probe, profile, &[]).0;
    let silent = |outcome: &Outcome| matches!(outcome, Outcome::Denied(why) if why.starts_with(SILENT));
    (0..2).map(|_| attempt()).find(|outcome| !silent(outcome)).unwrap_or_else(attempt)
}

/// The calls that it asks for there, of those that the filter does not always allow.
pub fn asks(probe: &Probe, profile: Profile) -> Vec<Asked> {
    let (_, errors) = alone(probe, profile, &[Cut::Record]);
    let read = |line: &str| {
        let mut words = line.strip_prefix("asked: ")?.split(' ');
        let number = words.next()?.parse().ok()?;
        let arguments: Vec<u64> = words.filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
        Some((number, arguments.try_into().ok()?))
    };
    errors.lines().filter_map(read).collect()
}

fn alone(probe: &Probe, profile: Profile, cuts: &[Cut]) -> (Outcome, String) {
    let dir = binaries::scratch();
    let stage = Stage {
        pids: Pids::First,
        profile,
        container: Some((dir.path().into(), binaries::directory().into())),
        outsider: true,
        cuts: cuts.to_vec(),
        argv: [scene::PROBE, "stand-in", probe.name].map(Into::into).into(),
        ..Stage::default()
    };
    let output = Command::new(binaries::helper("stage"))
        .args(stage.arguments())
        .env_clear()
        .env(scene::SECRET_VARIABLE, scene::CANARY)
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .expect("cargo has built the stage");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("stage:"), "{}: {errors}", probe.name);
    (verdict(&String::from_utf8_lossy(&output.stdout)), errors)
}

/// Where a probe is confined.
pub type Confined = fn(&Probe, Builder, Pids) -> Outcome;

/// As the agent of the supervisor that `builder` makes.
pub fn agent(probe: &Probe, builder: Builder, pids: Pids) -> Outcome {
    let builder = on_stage(builder, pids).set("agent-class", probe.class.name());
    let builder = probe.settings.iter().fold(builder, |builder, (flag, value)| builder.set(flag, value));
    let mut supervisor = builder.agent([scene::PROBE, probe.name]).start();
    let end = supervisor.wait_exit();
    supervisor.stdout.to_end();
    supervisor.stderr.to_end();
    let stdout = supervisor.stdout.text();
    // What kills its shim dies with it, and may come neither to its word nor to that of its start.
    if supervisor.stderr.text().contains(SHIM_KILLED) {
        return Outcome::Escaped("the shim was killed".into());
    }
    if !supervisor.stderr.text().contains("the agent runs") {
        return Outcome::Untried(format!("it was not started ({end:?}): {}", supervisor.stderr.text()));
    }
    if end == End::Signal(9) {
        return Outcome::Escaped("the supervisor was killed".into());
    }
    // It ends as its agent did: with 128 and the number, where that was a signal.
    let signalled = !matches!(end, End::Code(code) if code <= 128);
    verdict_at_end(&stdout, signalled, format_args!("{end:?}"))
}

/// As a task of that supervisor, whose shim comes from the zygote, beside an agent that does nothing.
pub fn task(probe: &Probe, builder: Builder, pids: Pids) -> Outcome {
    let mut create =
        json!({ "argv": [scene::PROBE, probe.name], "execution_class": probe.class.name(), "task_id": "probe" });
    for (flag, value) in probe.settings {
        match *flag {
            "agent-connect-ports" => create["connect_ports"] = json!([value.parse::<u16>().expect("one port")]),
            "agent-limits" => {
                create["limits"] =
                    json!({ "open_files": value.trim_start_matches("nofile=").parse::<u64>().expect("one limit") })
            }
            other => return Outcome::Untried(format!("a task has nothing like --{other}")),
        }
    }
    let mut supervisor = on_stage(builder, pids).agent(["sleep", "1000"]).start();
    supervisor.wait_log("the agent runs");
    let tried = in_network_of(&supervisor, || run(create));
    if supervisor.has_ended() {
        return Outcome::Escaped("the supervisor was ended".into());
    }
    if supervisor.stderr.text().contains(NOT_FORKED) {
        return Outcome::Untried("its shim came from no zygote".into());
    }
    tried.unwrap_or_else(|error| Outcome::Untried(format!("{error}: {}", supervisor.stderr.text())))
}

fn on_stage(builder: Builder, pids: Pids) -> Builder {
    let builder = builder.container().set("grace", "2s");
    if pids == Pids::Child { builder.child() } else { builder }
}

/// The task, to its end; what the probe has said.
fn run(create: Value) -> io::Result<Outcome> {
    let api = Api::at(([127, 0, 0, 1], scene::PORT).into(), scene::CANARY);
    let made = api.try_call("POST", "/dev-tasks?wait=60s", &[], create.to_string().as_bytes())?;
    if made.status() != 201 {
        return Err(io::Error::other(made.json().to_string()));
    }
    let output = api.try_call("GET", "/dev-tasks/probe/logs?stream=stdout", &[], b"")?;
    let ended = made.json();
    if ended.to_string().contains(SHIM_KILLED) {
        return Ok(Outcome::Escaped("the shim was killed".into()));
    }
    Ok(verdict_at_end(&String::from_utf8_lossy(&output.body), !ended["signal"].is_null(), &ended))
}

/// The supervisor listens in a network of its own, as in a Pod. A thread that has entered one does not come back.
fn in_network_of<T: Send>(supervisor: &Supervisor, what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let network = File::open(format!("/proc/{}/ns/net", supervisor.pid()))?;
    let inside = || {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        what()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().expect("no panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_was_denied_by_a_signal_or_has_not_tried() {
        let silent = |signalled| verdict_at_end("no verdict\n", signalled, "its end");
        assert!(matches!(silent(true), Outcome::Denied(_)));
        assert!(matches!(silent(false), Outcome::Untried(why) if why.ends_with("its end")));
        assert_eq!(verdict_at_end("denied: no\n", false, "its end"), Outcome::Denied("no".into()));
        assert_eq!(verdict_at_end("escaped: yes\n", true, "its end"), Outcome::Escaped("yes".into()));
    }
}
