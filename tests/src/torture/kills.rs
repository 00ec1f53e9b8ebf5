//! kill -9 of both ends of the link under load, at any instant: each record that a supervisor produced is in the gateway's
//! store once and unaltered, or in a gap, and each task that a client saw created has one end there.

use super::account::Account;
use super::chance::Chance;
use super::load::Sandbox;
use crate::bench::Line;
use crate::control_plane::Gateway;
use crate::postgres::Postgres;

/// Each has a supervisor.
const SANDBOXES: [&str; 2] = ["a", "b"];
/// Kills of either end before all is counted, and begun anew: tasks that are kept make each start longer.
const TOGETHER: usize = 100;
/// So often so many kills may leave a doubt: a write was broken off inside a page, or a file was begun and has no header yet. Then numbers are
/// skipped that may never have been records. That is rare, and excuses nothing.
pub(super) const DOUBTS: usize = 1;

/// So many kills of supervisors, and as many of the gateway.
pub fn measure(kills: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(0x9e37_79b9_7f4a_7c15);
    let mut account = Account::default();
    let (mut done, mut on_server) = (0, 0);
    while done < kills {
        let together = TOGETHER.min(kills - done);
        // Every other time the gateway's records are with a server that outlives it.
        let server = if done / TOGETHER % 2 == 1 { Postgres::start() } else { None };
        on_server += if server.is_some() { together } else { 0 };
        some(together, server.as_ref(), &mut chance, &mut account);
        done += together;
        println!("{done} of {kills} kills of either end");
    }
    let mut lines = account.lines(&format!("{kills} kill -9 of supervisors and {kills} of the gateway"));
    // Short runs have none, and nor do machines without the package.
    if kills > TOGETHER {
        lines.push(Line::at_least(
            "kills of either end with a gateway on PostgreSQL",
            kills as f64 / 2.0,
            on_server as f64,
            "kills",
        ));
    }
    lines.push(account.gaps(&format!("{kills} kills of either end"), DOUBTS * kills.div_ceil(TOGETHER)));
    lines
}

fn some(kills: usize, server: Option<&Postgres>, chance: &mut Chance, account: &mut Account) {
    let builder = match server {
        Some(server) => Gateway::build().set("database_url", &server.url()),
        None => Gateway::build(),
    };
    let mut gateway = builder.start();
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
