//! A process of many sandboxes, on one thread beside those for the disk: `fleet agents SHARE`.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisor::link::Phase;
use supervisor::metrics::Metrics;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::door::Door;
use super::sandbox::Sandbox;
use super::words::{Now, Order, Return, Share, Word};
use super::{id, place};
use crate::bench::now_ns;

/// Between two words about how it stands.
const SAY: Duration = Duration::from_millis(200);
/// The gateway has everything within this, or never.
const PATIENCE: Duration = Duration::from_secs(120);
/// What becomes of a dial where no session does.
const NOT_CONNECTED: [&str; 10] =
    ["token", "name", "connect", "tls", "proxy", "broken", "denied", "refused", "answer", "timeout"];
/// Threads that wait for the disk.
const DISK: usize = 4;

/// Until it is told to finish, or until whoever started it is gone.
pub fn run(share: &str) -> ExitCode {
    let share: Share = serde_json::from_str(share).expect("what `Group::start` wrote");
    let place = place();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(DISK).build();
    let runtime = runtime.expect("a thread and a few descriptors");
    let finished = runtime.block_on(agents(&share, &place));
    // Links end with their runtime: nobody asks for a goodbye of thousands.
    runtime.shutdown_background();
    if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn agents(share: &Share, place: &TempDir) -> bool {
    let mut orders = orders();
    let fleet = Fleet::start(share, place).await;
    let (work, rate) = watch::channel(Some(0.0));
    let mut load = tokio::spawn(load(fleet.sandboxes.clone(), fleet.seen.clone(), rate));
    let mut ticks = interval(SAY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => fleet.say(),
            order = orders.recv() => match order {
                Some(Order::Work(tasks)) => drop(work.send_replace(Some(tasks))),
                Some(Order::Fill(kib)) => drop(tokio::spawn(fill(fleet.sandboxes.clone(), fleet.seen.clone(), kib))),
                Some(Order::Before(gateways)) => if let Some(door) = &fleet.door { door.now_before(gateways) },
                Some(Order::Finish) => drop(work.send_replace(None)),
                None => return false,
            },
            _ = &mut load => break,
        }
    }
    fleet.account().await;
    fleet.say();
    true
}

/// What comes by standard input; it ends with the process at the other end.
fn orders() -> mpsc::Receiver<Order> {
    let (sender, orders) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let order = serde_json::from_str(&line).expect("what `Group::order` wrote");
            if sender.blocking_send(order).is_err() {
                return;
            }
        }
    });
    orders
}

fn say(word: &Word) {
    let line = serde_json::to_string(word).expect("plain data");
    // Whoever is not there to read it is seen by its end of standard input.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The sandboxes of this process, and what was seen of them.
struct Fleet {
    sandboxes: Arc<Vec<Arc<Sandbox>>>,
    metrics: Arc<Metrics>,
    seen: Arc<Seen>,
    door: Option<Door>,
}

#[derive(Default)]
struct Seen(Mutex<Now>);

impl Seen {
    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Fleet {
    async fn start(share: &Share, place: &TempDir) -> Fleet {
        let (metrics, seen) = (Arc::<Metrics>::default(), Arc::<Seen>::default());
        let window = Duration::from_millis(share.window_ms);
        let door = if share.door { Some(Door::before(share.gateways.clone()).await) } else { None };
        let scheme = if share.authority.is_some() { "wss" } else { "ws" };
        let gateway = format!("{scheme}://{}", door.as_ref().map_or(share.gateways[0], |door| door.address));
        let mut sandboxes = Vec::with_capacity(share.count);
        for number in share.first..share.first + share.count {
            let sandbox =
                Sandbox::start(&id(number), &gateway, window, share.authority.as_deref(), place.path(), &metrics).await;
            tokio::spawn(watch_phase(sandbox.phase(), seen.clone()));
            sandboxes.push(Arc::new(sandbox));
            // Those that were started before have their turn.
            tokio::task::yield_now().await;
        }
        Fleet { sandboxes: Arc::new(sandboxes), metrics, seen, door }
    }

    fn say(&self) {
        let dials = |outcome: &str| self.metrics.link_dials.get_or_create(&vec![("outcome", outcome.into())]).get();
        self.seen.change(|now| {
            now.begun = dials("connected");
            now.failed = NOT_CONNECTED.into_iter().map(dials).sum();
            now.beats = self.metrics.link_beats.get();
            say(&Word::Now(now.clone()));
            now.returns.clear();
        });
    }

    /// Say of each sandbox what it has produced, once the gateway has it.
    async fn account(&self) {
        let deadline = Instant::now() + PATIENCE;
        for sandbox in self.sandboxes.iter() {
            loop {
                match sandbox.produced().await {
                    Ok(Some(produced)) => break say(&Word::Produced(sandbox.id().into(), produced)),
                    Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                    _ => break say(&Word::Waits(sandbox.id().into())),
                }
            }
        }
    }
}

/// Take note of each return; for as long as there is a link.
async fn watch_phase(mut phase: watch::Receiver<Phase>, seen: Arc<Seen>) {
    let mut left = Some(now_ns());
    while phase.changed().await.is_ok() {
        match (*phase.borrow_and_update(), left) {
            (Phase::Connected, Some(since)) => {
                left = None;
                let at_ns = now_ns();
                seen.change(|now| {
                    now.connected += 1;
                    now.returns.push(Return { at_ns, away_ns: at_ns - since });
                });
            }
            (Phase::Connected, None) | (_, Some(_)) => {}
            (_, None) => {
                left = Some(now_ns());
                seen.change(|now| now.connected -= 1);
            }
        }
    }
}

/// Each keeps so many KiB; then until the gateway has all of it.
async fn fill(sandboxes: Arc<Vec<Arc<Sandbox>>>, seen: Arc<Seen>, kib: usize) {
    for sandbox in sandboxes.iter() {
        sandbox.fill(kib).await.expect("memory has room for it");
        seen.change(|now| now.filled += 1);
    }
    for sandbox in sandboxes.iter() {
        while !matches!(sandbox.produced().await, Ok(Some(_))) {
            sleep(Duration::from_millis(50)).await;
        }
        seen.change(|now| now.caught_up += 1);
    }
}

/// So many tasks a second, one sandbox after the other, until there is no rate any more; and then until they have ended. All processes are
/// told at once, so each begins at its own instant: tasks of a real fleet do not come together.
async fn load(sandboxes: Arc<Vec<Arc<Sandbox>>>, seen: Arc<Seen>, mut rate: watch::Receiver<Option<f64>>) {
    let (mut running, mut next) = (JoinSet::new(), Instant::now());
    let phase = f64::from(peer::random::bits() as u32) / f64::from(u32::MAX);
    for number in 0.. {
        let Some(tasks) = *rate.borrow_and_update() else { break };
        // At rest, until the rate is another one.
        let pause = if tasks > 0.0 { Duration::from_secs_f64(1.0 / tasks) } else { Duration::from_secs(3600) };
        next += pause;
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                let (sandbox, seen) = (sandboxes[number as usize % sandboxes.len()].clone(), seen.clone());
                running.spawn(async move {
                    sandbox.run_a_task(number).await;
                    seen.change(|now| now.tasks += 1);
                });
            }
            _ = rate.changed() => {
                let tasks = rate.borrow().filter(|tasks| *tasks > 0.0);
                next = Instant::now() + tasks.map_or(Duration::ZERO, |tasks| Duration::from_secs_f64(phase / tasks));
            }
        }
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}
