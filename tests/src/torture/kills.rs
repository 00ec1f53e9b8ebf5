//! kill -9 of both ends of the link under load, at any instant: each record that a supervisor produced is in the gateway's
//! store once and unaltered, or in a gap, and each task that a client saw created has one end there.

use super::account::Account;
use super::chance::Chance;
use super::load::Sandbox;
use crate::bench::Line;
use crate::control_plane::Gateway;

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

/// The line of what is in gaps after so many kills.
pub(super) fn gaps(account: &Account, kills: usize) -> Line {
    let goal = GAPS * kills.div_ceil(TOGETHER) as f64;
    Line::new(format!("in gaps because one of {kills} kills left a doubt"), goal, account.gaps() as f64, "numbers")
}
