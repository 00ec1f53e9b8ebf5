//! Many sessions held for a while on one gateway, some of them of real supervisors: none ends unasked.

use std::time::{Duration, Instant};

use protocol::session::{FromGateway, FromSupervisor};

use super::super::Line;
use crate::control_plane::{Gateway, token_of};
use crate::dialler::{Dialler, Received, hello};
use crate::processes::resident_kib;
use crate::supervisor::Supervisor;
use crate::wait::wait_until;

const LIGHT: usize = 980;
const REAL: usize = 20;
/// Each has its share of the light ones.
const THREADS: usize = 20;

pub(super) fn measure(short: bool) -> Vec<Line> {
    let (hold, beat) = if short { (30, 5) } else { (300, 30) };
    let names: Vec<String> = (0..LIGHT + REAL).map(|number| format!("s-{number:04}")).collect();
    let builder = Gateway::build().set("beat", &format!("{beat}s")).set("log_level", "info");
    let tokens: String = names.iter().map(|id| format!("{id} {}\n", token_of(id))).collect();
    std::fs::write(builder.directory().join("sandboxes"), tokens).expect("our own directory");
    let gateway = builder.start();
    let (light, real) = names.split_at(LIGHT);
    let supervisors: Vec<Supervisor> = real.iter().map(|id| supervisor(id, &gateway)).collect();
    let before = resident_kib(gateway.pid());
    let lost: usize = std::thread::scope(|scope| {
        let part = |ids: &[String]| {
            let (ids, gateway) = (ids.to_vec(), &gateway);
            move || hold_all(gateway, &ids, Duration::from_secs(beat), Duration::from_secs(hold))
        };
        let threads: Vec<_> = light.chunks(LIGHT.div_ceil(THREADS)).map(|ids| scope.spawn(part(ids))).collect();
        wait_until("all are connected", || gateway.metric("gateway_sessions") as usize == LIGHT + REAL);
        let each = (resident_kib(gateway.pid()) - before) / LIGHT as f64;
        println!("a light session takes {each:.1} KiB of the gateway's memory");
        threads.into_iter().map(|thread| thread.join().expect("they hold")).sum()
    });
    let connected = supervisors.iter().filter(|supervisor| supervisor.health()["link"]["state"] == "connected").count();
    // Each was connected all the time: it was dialled once.
    let dialled_once =
        |supervisor: &&Supervisor| supervisor.metric("supervisor_link_dials_total{outcome=\"connected\"}") == Some(1.0);
    let steady = supervisors.iter().filter(dialled_once).count().min(connected);
    let what = format!("sessions held for {hold} s by one gateway, {REAL} of them of real supervisors");
    vec![
        Line::at_least(what, (LIGHT + REAL) as f64, (LIGHT - lost + steady) as f64, "sessions"),
        Line::new("closes of those that nobody asked for", 0.0, (lost + REAL - steady) as f64, "closes"),
    ]
}

fn supervisor(id: &str, gateway: &Gateway) -> Supervisor {
    let builder = Supervisor::new();
    let token = builder.path("link-token");
    std::fs::write(&token, token_of(id)).expect("our own directory");
    builder
        .set("gateway-url", format!("ws://{}", gateway.address))
        .set("link-token-file", token)
        .set("link-window", "100ms")
        .set("agent-id", id)
        .agent(["sleep", "1000"])
        .start()
}

/// Hold these sessions, each with its beats; how many ended.
fn hold_all(gateway: &Gateway, ids: &[String], beat: Duration, hold: Duration) -> usize {
    let dial = |id: &String| Some(Dialler::begin_with(gateway, hello(id)).0);
    let mut sessions: Vec<Option<Dialler>> = ids.iter().map(dial).collect();
    let begun = Instant::now();
    for n in 1.. {
        for session in &mut sessions {
            if !session.as_mut().is_some_and(|session| beats(session, n)) {
                *session = None;
            }
        }
        let next = begun + beat * u32::try_from(n).unwrap_or(u32::MAX);
        if next > begun + hold {
            break;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sessions.iter().filter(|session| session.is_none()).count()
}

/// One beat and its answer.
fn beats(session: &mut Dialler, n: u64) -> bool {
    session.send(&FromSupervisor::Beat { n, d: "000000000000".into() });
    loop {
        match session.receive() {
            Received::Frame(FromGateway::Beat { n: answered, .. }) if answered == n => return true,
            Received::Frame(_) | Received::Binary(_) => {}
            Received::Closed(_) | Received::Lost => return false,
        }
    }
}
