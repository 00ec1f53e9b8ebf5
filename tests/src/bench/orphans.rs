//! Zombies at rest after many orphans with supervised exits beside them, and every exit status right.

use std::collections::BTreeMap;

use super::Line;
use crate::stage::{Pids, Profile, available};
use crate::supervisor::Supervisor;
use crate::wait::wait_until;
use crate::{binaries, processes};

/// The agent ends this often, each time with its number modulo 256, and leaves orphans each time.
pub fn measure(orphans: usize, exits: usize) -> Vec<Line> {
    [Pids::First, Pids::Child]
        .into_iter()
        .filter(|&p| available(p, Profile::Plain))
        .flat_map(|p| run(p, orphans, exits))
        .collect()
}

fn run(pids: Pids, orphans: usize, exits: usize) -> Vec<Line> {
    let builder = Supervisor::new();
    let builder = if pids == Pids::First { builder.first() } else { builder.child() };
    let count = builder.path("workspace/count");
    let each = orphans / exits;
    let script = format!(
        "n=$(cat {0} 2>/dev/null || echo 0); [ $n -ge {exits} ] && exec sleep 1000; echo $((n+1)) > {0}; \
         {1} orphans {each} || exit 99; exit $((n % 256))",
        count.display(),
        binaries::helper("agent").display(),
    );
    let supervisor = builder
        .set("agent-restart", "always")
        .set("agent-restart-min", "1ms")
        .set("agent-restart-max", "1ms")
        .shell(&script)
        .start();
    let mut extra = 0;
    if pids == Pids::First {
        // and as many from a `kubectl exec`, which PID 1 inherits
        let agent = binaries::helper("agent");
        let output = supervisor.enter(&[&*agent.to_string_lossy(), "orphans", &orphans.to_string()]);
        assert!(output.status.success(), "{output:?}");
        extra = orphans;
    }
    wait_until_slow("every exit", || {
        supervisor.metric("supervisor_agent_restarts_total").is_some_and(|n| n >= exits as f64)
    });
    wait_until("no zombie", || !supervisor.processes().into_iter().any(processes::is_zombie));
    let zombies = supervisor.processes().into_iter().filter(|&p| processes::is_zombie(p)).count();
    let expected = (each * exits + extra) as f64;
    let reaped = supervisor.metric("supervisor_orphans_reaped_total").unwrap_or(0.0);
    let wrong = wrong_exits(&supervisor.get("/metrics").body, exits);
    let place = if pids == Pids::First { "as PID 1" } else { "not PID 1" };
    vec![
        Line::new(format!("zombies at rest after {expected} orphans, {place}"), 0.0, zombies as f64, "zombies"),
        Line::new(format!("orphans not counted of {expected}, {place}"), 0.0, (expected - reaped).max(0.0), "orphans"),
        Line::new(format!("wrong exit statuses of {exits}, {place}"), 0.0, wrong, "exits"),
    ]
}

/// The counter by exit code against what was asked of the agent.
fn wrong_exits(metrics: &str, exits: usize) -> f64 {
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for number in 0..exits {
        *expected.entry((number % 256).to_string()).or_default() += 1.0;
    }
    let mut seen: BTreeMap<String, f64> = BTreeMap::new();
    for line in metrics.lines().filter(|l| l.starts_with("supervisor_agent_exits_total{")) {
        let code = line.split('"').nth(1).unwrap_or_default().to_string();
        let value = line.rsplit(' ').next().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN);
        seen.insert(code, value);
    }
    let codes: std::collections::BTreeSet<_> = expected.keys().chain(seen.keys()).collect();
    let count = |map: &BTreeMap<String, f64>, code| map.get(code).copied().unwrap_or(0.0);
    codes.into_iter().map(|code| (count(&expected, code) - count(&seen, code)).abs()).sum()
}

/// This one may take minutes.
fn wait_until_slow(what: &str, mut condition: impl FnMut() -> bool) {
    let done = crate::wait::within(std::time::Duration::from_secs(600), || condition().then_some(()));
    assert!(done.is_some(), "waited in vain: {what}");
}
