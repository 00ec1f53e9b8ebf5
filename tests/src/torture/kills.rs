//! kill -9 of both ends of the link under load, at any instant: each record that a supervisor produced is in the gateway's
//! store once and unaltered, or in a gap, and each task that a client saw created has one end there. The same with several gateways on
//! one PostgreSQL, which are also stopped, drained, and cut off.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::account::Account;
use super::chance::Chance;
use super::load::Sandbox;
use crate::balancer::Balancer;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::postgres::Postgres;

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// Kills of either end before all is counted, and begun anew: tasks that are kept make each start longer.
const TOGETHER: usize = 100;
/// A write that was broken off inside a page leaves a doubt, and then numbers are skipped. That seldom happens: once in so many kills.
const GAPS: f64 = 65_536.0;

/// So many kills of supervisors, and as many of the gateway.
pub fn measure(kills: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0x9e37_79b9_7f4a_7c15);
    let mut account = Account::default();
    let mut done = 0;
    while done < kills {
        let together = TOGETHER.min(kills - done);
        some(together, &mut chance, &mut account);
        done += together;
        println!("{done} of {kills} kills of either end");
    }
    let mut lines = account.lines(&format!("{kills} kill -9 of supervisors and {kills} of the gateway"));
    lines.push(gaps(&account, kills));
    lines
}

fn some(kills: usize, chance: &mut Chance, account: &mut Account) {
    let mut gateway = Gateway::start();
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, gateway.address));
    for round in 0..2 * kills {
        chance.pause(200);
        if round % 2 == 0 {
            gateway.kill();
            // Some outages are long enough that records pile up.
            chance.pause(150);
            gateway.start_again();
        } else {
            sandboxes[round / 2 % SANDBOXES.len()].kill_and_start_again();
        }
    }
    account.settle(&mut sandboxes, &gateway);
}

/// So many faults of one of three gateways, with kill -9 of supervisors between them.
pub fn measure_several(faults: usize) -> Vec<Line> {
    let Some(server) = Postgres::start() else { return Vec::new() };
    let one = || Gateway::build().among_several(&server.url()).start();
    let mut gateways = [one(), one(), one()];
    let front = Balancer::before(&gateways.each_ref().map(|gateway| gateway.address));
    let mut chance = Chance::seeded(0x2545_f491_4f6c_dd1d);
    let mut sandboxes = SANDBOXES.map(|id| Sandbox::start(id, front.address));
    for round in 0..faults {
        let gateway = &mut gateways[round % 3];
        chance.pause(1500);
        match round % 4 {
            0 => gateway.kill(),
            1 => {
                // Longer than its lease: its sessions have moved when it goes on.
                gateway.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_secs(12));
                gateway.signal(Signal::SIGCONT);
                continue;
            }
            2 => {
                gateway.signal(Signal::SIGTERM);
                gateway.wait();
            }
            _ => {
                sandboxes[round / 4 % SANDBOXES.len()].kill_and_start_again();
                continue;
            }
        }
        chance.pause(300);
        gateway.start_again();
    }
    let mut account = Account::default();
    account.settle(&mut sandboxes, &gateways[0]);
    let mut lines = account.lines(&format!("{faults} faults of three gateways and of supervisors"));
    lines.push(gaps(&account, faults));
    lines
}

fn gaps(account: &Account, kills: usize) -> Line {
    let goal = GAPS * kills.div_ceil(TOGETHER) as f64;
    Line::new(format!("in gaps because one of {kills} kills left a doubt"), goal, account.gaps() as f64, "numbers")
}
