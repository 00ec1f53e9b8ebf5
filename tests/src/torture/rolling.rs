//! Gateways are replaced one after the other, as a rolling update does, again and again under load: a successor comes, then the oldest is
//! stopped. Sandboxes move, and nobody is away for long.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::account::Account;
use super::chance::Chance;
use super::load::Sandbox;
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::postgres::Postgres;
use crate::supervisor::log_lines;
use crate::wait::wait_until;

/// Each has a supervisor.
const SANDBOXES: [&str; 4] = ["a", "b", "c", "d"];
/// Beside each other, at rest.
const GATEWAYS: usize = 2;
/// Between the end of a session and the next one of that sandbox.
const AWAY: Duration = Duration::from_secs(2);

/// So many gateways replaced.
pub fn measure(rolls: usize) -> Vec<Line> {
    let Some(server) = Postgres::start() else { return Vec::new() };
    let one = || Gateway::build().among_several(&server.url()).start();
    let mut gateways: Vec<Gateway> = (0..GATEWAYS).map(|_| one()).collect();
    let addresses = |gateways: &[Gateway]| gateways.iter().map(|gateway| gateway.address).collect::<Vec<_>>();
    let front = Balancer::before(&addresses(&gateways));
    let mut chance = Chance::seeded(0x3c6e_f372_fe94_f82b);
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, front.address));
    let mut moves = Moves::default();
    let mut codes = 0;
    wait_until("all are there", || sessions(&gateways) == SANDBOXES.len() as f64);
    for _ in 0..rolls {
        gateways.push(one());
        let count = gateways.len() as f64;
        wait_until("the gateways see each other", || {
            gateways.iter().all(|gateway| gateway.metric("gateway_gateways") == count)
        });
        front.now_before(&addresses(&gateways));
        chance.pause(1000);
        let mut oldest = gateways.remove(0);
        oldest.signal(Signal::SIGTERM);
        codes += usize::from(oldest.wait() != 0);
        front.now_before(&addresses(&gateways));
        wait_until("all are at the others", || sessions(&gateways) == SANDBOXES.len() as f64);
        moves.note(&oldest);
    }
    gateways.iter().for_each(|gateway| moves.note(gateway));
    let faults = format!("{rolls} gateways replaced one after the other");
    let mut account = Account::default();
    account.settle(&mut sandboxes, &gateways[0]);
    let mut lines = account.lines(&faults);
    lines.push(account.gaps(&faults, 0));
    let longest = moves.longest_away().as_secs_f64() * 1000.0;
    let goal = AWAY.as_secs_f64() * 1000.0;
    lines.push(Line::new(format!("longest between two sessions of a sandbox, in {faults}"), goal, longest, "ms"));
    lines.push(Line::new(format!("gateways that did not end with 0, of {faults}"), 0.0, codes as f64, "gateways"));
    lines
}

fn sessions(gateways: &[Gateway]) -> f64 {
    gateways.iter().map(|gateway| gateway.metric("gateway_sessions")).sum()
}

/// When sessions began and ended, by sandbox: Unix milliseconds, and how many more there are.
#[derive(Default)]
struct Moves(BTreeMap<String, Vec<(i64, i64)>>);

impl Moves {
    /// As this gateway has logged it.
    fn note(&mut self, gateway: &Gateway) {
        for line in log_lines(&gateway.stderr.text()) {
            let message = line["message"].as_str().unwrap_or_default();
            let more = match message {
                _ if message.starts_with("a session began") => 1,
                _ if message.starts_with("a session ended") => -1,
                _ => continue,
            };
            let at = line["timestamp"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
            let since = at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
            let sandbox = line["sandbox"].as_str().unwrap_or_default().to_owned();
            self.0.entry(sandbox).or_default().push((since.as_millis() as i64, more));
        }
    }

    /// For which a sandbox had no session, between two of them.
    fn longest_away(mut self) -> Duration {
        let mut longest = 0;
        for times in self.0.values_mut() {
            // Who moves within a millisecond is not away.
            times.sort_by_key(|(at, more)| (*at, -more));
            let (mut open, mut since) = (0, None);
            for (at, more) in times {
                open += *more;
                match since.take() {
                    Some(from) if open > 0 => longest = longest.max(*at - from),
                    _ => {}
                }
                since = (open <= 0).then_some(*at);
            }
        }
        Duration::from_millis(longest.max(0) as u64)
    }
}
