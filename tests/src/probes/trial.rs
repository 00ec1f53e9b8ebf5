//! One probe tried once: where nothing confines it, or under the real supervisor.

use std::process::{Command, Stdio};

use super::{Outcome, Probe};
use crate::stage::{Cut, Pids, Profile, Stage};
use crate::supervisor::{Builder, End};
use crate::{binaries, scene};

/// A system call that a probe asked for: number and arguments.
pub type Asked = (u32, [u64; 6]);

const SILENT: &str = "it was ended before its verdict";

/// The probe's own line; what killed it before it could print one is a denial by signal.
pub fn verdict(stdout: &str) -> Outcome {
    let line = stdout.lines().find_map(Outcome::parse);
    line.unwrap_or_else(|| Outcome::Denied(format!("{SILENT}; output {stdout:?}")))
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

/// As the agent of the supervisor that `builder` makes.
pub fn confined(probe: &Probe, builder: Builder, pids: Pids) -> Outcome {
    let builder = builder.container().set("agent-class", probe.class.name());
    let builder = probe.settings.iter().fold(builder, |builder, (flag, value)| builder.set(flag, value));
    let builder = if pids == Pids::Child { builder.child() } else { builder };
    let mut supervisor = builder.set("grace", "2s").agent([scene::PROBE, probe.name]).start();
    let end = supervisor.wait_exit();
    supervisor.stdout.to_end();
    supervisor.stderr.to_end();
    let stdout = supervisor.stdout.text();
    if !supervisor.stderr.text().contains("the agent runs") {
        return Outcome::Untried(format!("it was not started ({end:?}): {}", supervisor.stderr.text()));
    }
    if end == End::Signal(9) {
        return Outcome::Escaped("the supervisor was killed".into());
    }
    verdict(&stdout)
}
