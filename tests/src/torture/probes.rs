//! Every escape, tried where nothing confines it, which must work, and where the supervisor confines it, which must not.
//!
//! `CHAPERONE_PROBE=state-` tries only those whose names contain that.

use crate::bench::Line;
use crate::probes::trial::{Confined, agent, task, unconfined};
use crate::probes::{self, Control, Outcome, Probe};
use crate::stage::{Pids, Profile, available, container_available};
use crate::supervisor::Supervisor;
use crate::table;

/// Escapes with a control, at least.
const PROVEN: f64 = 150.0;
/// Where the supervisor confines them.
const PLACES: [(&str, Profile, Pids, Confined); 5] = [
    ("in a restricted Pod", Profile::Restricted, Pids::First, agent),
    ("in a baseline Pod", Profile::Baseline, Pids::First, agent),
    ("where the supervisor is not PID 1", Profile::Restricted, Pids::Child, agent),
    ("as a task in a restricted Pod", Profile::Restricted, Pids::First, task),
    ("as a task in a baseline Pod", Profile::Baseline, Pids::First, task),
];

/// How many there are, and those that go otherwise than they should, who are named on standard error.
pub fn measure() -> Vec<Line> {
    if !container_available() {
        return Vec::new();
    }
    let mut lines = vec![
        number(tried()),
        told("escapes that do not work where nothing confines them, and so prove nothing".into(), &without_control()),
    ];
    let places: Vec<_> = PLACES.into_iter().filter(|&(_, profile, pids, _)| available(pids, profile)).collect();
    let (all, here) = (PLACES.len() as f64, places.len() as f64);
    lines.push(Line::at_least("places in which they are confined", all, here, "places"));
    lines.extend(places.into_iter().map(|(place, profile, pids, confined)| {
        let open = tried().filter(|probe| is_open(probe, profile)).count();
        let what =
            format!("escapes that got out {place}, or could not be tried; {open} more are known to be open there");
        told(what, &not_denied(profile, pids, confined))
    }));
    lines
}

/// How many have a control.
pub fn number(probes: impl Iterator<Item = &'static Probe>) -> Line {
    let proven = probes.filter(|probe| probe.has_control()).count();
    Line::at_least("escapes that are tried, each with an unconfined control", PROVEN, proven as f64, "probes")
}

/// Those whose control does not get out: why.
pub fn without_control() -> Vec<String> {
    wrong(|probe| {
        let profile = match probe.control {
            Control::User => Profile::User,
            Control::Root => Profile::Plain,
            Control::Nobody(_) => return None,
        };
        match unconfined(probe, profile) {
            Outcome::Escaped(_) => None,
            other => Some(other),
        }
    })
}

/// Those that are not denied under the supervisor: what they say.
pub fn not_denied(profile: Profile, pids: Pids, confined: Confined) -> Vec<String> {
    wrong(|probe| match confined(probe, Supervisor::new().profile(profile), pids) {
        Outcome::Denied(_) => None,
        Outcome::Escaped(_) if is_open(probe, profile) => None,
        other => Some(other),
    })
}

/// `docs/security.md` says so too.
fn is_open(probe: &Probe, profile: Profile) -> bool {
    profile == Profile::Restricted && probe.open_in_restricted.is_some()
}

fn tried() -> impl Iterator<Item = &'static Probe> {
    let filter = std::env::var("CHAPERONE_PROBE").unwrap_or_default();
    probes::all().filter(move |probe| probe.name.contains(&filter))
}

fn wrong(attempt: impl Fn(&Probe) -> Option<Outcome> + Sync) -> Vec<String> {
    table::wrong(tried(), |probe| {
        attempt(probe).map(|outcome| format!("{} ({}): {outcome}", probe.name, probe.guards.name()))
    })
}

fn told(what: String, wrong: &[String]) -> Line {
    wrong.iter().for_each(|problem| eprintln!("{problem}"));
    Line::new(what, 0.0, wrong.len() as f64, "probes")
}
