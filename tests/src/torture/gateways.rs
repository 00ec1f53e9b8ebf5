//! Three gateways on one PostgreSQL, under load, and what befalls them: one is killed, stopped for longer than its lease, or drained, the
//! database is killed, and supervisors are. With the same account at the end.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::account::Account;
use super::chance::Chance;
use super::kills::DOUBTS;
use super::load::Sandbox;
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::postgres::Postgres;

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// A lease lasts 10 s: its sessions have moved when it goes on.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(12);

/// The gateways and what they share.
pub(super) struct Several {
    server: Postgres,
    /// All of them.
    pub gateways: [Gateway; 3],
    /// Leads to any of them.
    pub front: Balancer,
}

/// What befalls them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// kill -9 of a gateway.
    Kill,
    /// One that does nothing until its lease is over, and then goes on.
    Stop,
    /// One that is asked to end.
    Drain,
    /// kill -9 of the database.
    Database,
}

impl Fault {
    /// One after the other.
    pub(super) const ALL: [Fault; 4] = [Fault::Kill, Fault::Stop, Fault::Drain, Fault::Database];
}

impl Several {
    /// `None` where this machine has no PostgreSQL, which is printed.
    pub(super) fn start() -> Option<Several> {
        let server = Postgres::start()?;
        let one = || Gateway::build().among_several(&server.url()).start();
        let gateways = [one(), one(), one()];
        let front = Balancer::before(&gateways.each_ref().map(|gateway| gateway.address));
        Some(Several { server, gateways, front })
    }

    /// Until all is there again, but perhaps not as it was.
    pub(super) fn befall(&mut self, fault: Fault, chance: &mut Chance) {
        let gateway = &mut self.gateways[chance.below(3)];
        match fault {
            Fault::Kill => gateway.kill(),
            Fault::Stop => {
                gateway.signal(Signal::SIGSTOP);
                std::thread::sleep(LONGER_THAN_A_LEASE);
                return gateway.signal(Signal::SIGCONT);
            }
            Fault::Drain => {
                gateway.signal(Signal::SIGTERM);
                gateway.wait();
            }
            Fault::Database => {
                self.server.kill();
                chance.pause(300);
                return self.server.start_again();
            }
        }
        chance.pause(300);
        gateway.start_again();
    }
}

/// So many faults, every fifth of a supervisor.
pub fn measure(faults: usize) -> Vec<Line> {
    let Some(mut several) = Several::start() else { return Vec::new() };
    let mut chance = Chance::seeded(0x2545_f491_4f6c_dd1d);
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, several.front.address));
    for round in 0..faults {
        chance.pause(1500);
        match Fault::ALL.get(round % 5) {
            Some(fault) => several.befall(*fault, &mut chance),
            None => sandboxes[round / 5 % SANDBOXES.len()].kill_and_start_again(),
        }
    }
    let mut account = Account::default();
    account.settle(&mut sandboxes, &several.gateways[0]);
    let of = format!("{faults} faults of three gateways, their database and supervisors");
    let mut lines = account.lines(&of);
    lines.push(account.gaps(&of, DOUBTS));
    lines
}
