//! How long the gateway takes to answer while a fleet beats: a few sessions by hand, which measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use protocol::session::{Class, FromGateway, FromSupervisor};

use crate::control_plane::Gateway;
use crate::dialler::Dialler;

/// How many there are.
const PROBES: usize = 4;
/// Between two questions of one of them: no part of a second, so that they do not meet the same beats again and again.
const PAUSE: Duration = Duration::from_millis(53);

/// They ask until they are told to stop.
pub(super) struct Probes {
    over: Arc<AtomicBool>,
    asking: Vec<JoinHandle<Times>>,
}

/// Seconds.
#[derive(Default)]
pub(super) struct Times {
    /// From a beat to its answer.
    pub(super) beats: Vec<f64>,
    /// From a lifecycle record to its acknowledgement, which follows the commit.
    pub(super) records: Vec<f64>,
}

/// The sandboxes that are probes.
pub(super) fn ids() -> impl Iterator<Item = String> {
    (0..PROBES).map(|number| format!("probe-{number}"))
}

impl Probes {
    /// At each of these gateways some.
    pub(super) fn start(gateways: &[Gateway]) -> Probes {
        let over = Arc::<AtomicBool>::default();
        let ask_all = |(id, gateway): (String, &Gateway)| {
            let (mut session, over) = (Dialler::begin(gateway, &id).0, over.clone());
            std::thread::spawn(move || ask(&mut session, &over))
        };
        Probes { asking: ids().zip(gateways.iter().cycle()).map(ask_all).collect(), over }
    }

    /// What they saw.
    pub(super) fn stop(mut self) -> Times {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Times::default();
        for times in self.asking.drain(..).map(|probe| probe.join().expect("its session lasts")) {
            all.beats.extend(times.beats);
            all.records.extend(times.records);
        }
        all
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // They would miss the gateways that end next.
        self.asking.drain(..).for_each(|probe| drop(probe.join()));
    }
}

/// A beat and a record in turn.
fn ask(session: &mut Dialler, over: &AtomicBool) -> Times {
    let mut times = Times::default();
    for number in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sleep(PAUSE);
        let asked = Instant::now();
        session.send(&FromSupervisor::Beat { n: number, d: "000000000000".into() });
        session.receive_until(|frame| matches!(frame, FromGateway::Beat { n, .. } if n == number).then_some(()));
        times.beats.push(asked.elapsed().as_secs_f64());
        sleep(PAUSE);
        let (asked, seq) = (Instant::now(), number as i64);
        session.send_records(Class::Lifecycle, seq..=seq);
        session.until_acknowledged(Class::Lifecycle, seq);
        times.records.push(asked.elapsed().as_secs_f64());
    }
    times
}
