//! Both ends of the session in one thread and in virtual time, with everything going wrong that a seed says: the supervisor's own link,
//! buffer, feed and lines on simulated machines, disks and networks, and the gateway's own listener, sessions and store.
//!
//! A run has a [`Plan`]. When it is over everything heals, and then it must hold: produced = delivered + gaps, of each log and class,
//! each number once and in order; what was delivered is byte for byte what was told; what the last life told is what it gave numbers to;
//! nothing is missing that was durable; commands were applied once and in order; each sandbox has one session, within [`RETURN`]. The
//! same seed gives the same run.
//!
//! [`cuts`] has the buffer alone, on a disk that loses power again and again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

mod chance;
pub mod cuts;
mod database;
// The one of the buffer's own tests.
#[allow(dead_code)]
#[path = "../../supervisor/src/buffer/tests/disk.rs"]
mod disk;
mod gateway;
mod machine;
mod middlebox;
mod net;
mod oracle;
mod plan;
mod sandbox;
#[cfg(test)]
mod tests;
mod trace;

use ::supervisor::buffer::disk::{Blocks, Disk};
use chance::Chance;
use database::Database;
use gateway::Gateway;
use net::{Net, Way};
pub use plan::Plan;
use plan::Step;
use sandbox::Sandbox;
use trace::Trace;

/// All are connected, and the gateway has everything, within this after everything has healed.
pub const RETURN: Duration = Duration::from_secs(90);

/// A run that ended as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Of everything that happened, with its times.
    pub trace: u64,
    /// How much of it was noted.
    pub notes: u64,
    /// Records that gateways have.
    pub delivered: i64,
    /// Numbers that are in gaps.
    pub gaps: i64,
    /// Commands that were applied.
    pub commands: usize,
    /// Sessions that were left because of a message that a box on the way had lost or changed.
    pub missed: u64,
}

/// Run it; what did not hold, where something did not. `aloud`: tell what happens.
pub fn run(plan: &Plan, aloud: bool) -> Result<Done, String> {
    let runtime = runtime();
    let done =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { World::new(plan, aloud).await.live(plan).await })));
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into()))
    })
}

/// One thread, on which time passes only where nobody has anything to do.
fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a thread")
}

/// The same run with as few steps as it fails with: their places in the plan.
pub fn shrink(plan: &Plan) -> Vec<usize> {
    fewest(plan, |plan| run(plan, false).is_err())
}

/// As few steps as do it.
fn fewest(plan: &Plan, does: impl Fn(&Plan) -> bool) -> Vec<usize> {
    let mut keep: Vec<usize> = (0..plan.len()).collect();
    let mut piece = keep.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < keep.len() {
            let fewer: Vec<usize> =
                keep.iter().enumerate().filter(|(i, _)| !(at..at + piece).contains(i)).map(|(_, k)| *k).collect();
            if does(&plan.only(&fewer)) {
                keep = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    keep
}

struct World {
    place: TempDir,
    trace: Trace,
    net: Net,
    gateway: Option<Gateway>,
    sandboxes: Vec<Sandbox>,
    /// What is over at that moment, by its order.
    pending: BTreeMap<(Instant, usize), Step>,
    given: Vec<i64>,
    database: Database,
}

impl World {
    async fn new(plan: &Plan, aloud: bool) -> World {
        let place = tempfile::Builder::new().tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let place = place.expect("a directory");
        let trace = Trace::new(aloud);
        let net = Net::new(plan.sandboxes, Chance::new(plan.seed, 2), trace.clone());
        database::make_store(place.path());
        let database = Database::new();
        let gateway = Gateway::start(place.path(), &net, &database).await;
        let mut sandboxes = Vec::new();
        for number in 0..plan.sandboxes {
            let mut sandbox = Sandbox::new(number, plan.seed, place.path(), net.clone(), trace.clone());
            gateway.register(&sandbox.id).await;
            sandbox.start().await;
            sandboxes.push(sandbox);
        }
        let given = vec![0; plan.sandboxes];
        World { place, trace, net, gateway: Some(gateway), sandboxes, pending: BTreeMap::new(), given, database }
    }

    async fn live(mut self, plan: &Plan) -> Result<Done, String> {
        let begun = Instant::now();
        for (number, (at, step)) in plan.steps.iter().enumerate() {
            let at = begun + Duration::from_millis(*at);
            self.until(at).await;
            self.trace.note(format_args!("{step:?}"));
            self.take(*step).await;
            if let Some(lasts) = step.lasts() {
                self.pending.insert((Instant::now() + lasts, number), *step);
            }
        }
        self.until(begun + Duration::from_millis(plan.ends)).await;
        self.heal().await;
        self.come_to_rest().await?;
        self.judge(&plan.meddled()).await
    }

    /// Until then; what ends before is ended.
    async fn until(&mut self, moment: Instant) {
        while let Some(next) = self.pending.first_entry().filter(|next| next.key().0 <= moment) {
            let ((at, _), step) = next.remove_entry();
            sleep_until(at).await;
            self.trace.note(format_args!("over: {step:?}"));
            self.end(step).await;
        }
        sleep_until(moment).await;
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Delay { least, most } => self.net.delay(least, most),
            Step::Cut { who } => self.net.cut(Some(who)),
            Step::Swallow { who, way } => self.net.swallow(Some(who), way),
            Step::Stall { who, way, ms } => self.net.stall(who, way, Duration::from_millis(ms)),
            Step::Refuse { ms } => self.net.refuse(Duration::from_millis(ms)),
            Step::Partition { who, ms } => self.net.partition(who, Duration::from_millis(ms)),
            Step::Meddle { who, way, whim } => self.net.whim(who, way, whim),
            Step::Kill { who, silent, .. } => {
                match silent {
                    true => self.net.swallow(Some(who), Way::Both),
                    false => self.net.cut(Some(who)),
                }
                self.sandboxes[who].kill();
            }
            Step::LosePower { who, .. } => {
                self.net.swallow(Some(who), Way::Both);
                self.sandboxes[who].lose_power();
            }
            Step::KillGateway { silent, .. } => {
                match silent {
                    true => self.net.forget_gateway(),
                    false => self.net.cut(None),
                }
                if let Some(gateway) = self.gateway.take() {
                    gateway.kill(&self.net).await;
                }
            }
            Step::Drain { .. } => {
                if let Some(gateway) = self.gateway.take() {
                    gateway.drain(&self.net).await;
                }
            }
            Step::Fill { who, .. } => self.sandboxes[who].fill_disk(),
            Step::Break { who, faults, .. } => self.sandboxes[who].break_disk(faults),
            Step::SetWall { who, by_ms } => self.sandboxes[who].machine.set_wall(by_ms),
            Step::Suspend { who, ms } => self.sandboxes[who].machine.leap(Duration::from_millis(ms)),
            Step::Command { who, count } => {
                for _ in 0..count {
                    let Some(gateway) = &self.gateway else { continue };
                    if let Some(n) = gateway.command(&self.sandboxes[who].id).await {
                        self.given[who] = n;
                    }
                }
            }
            Step::Slow { ms } => self.database.slow(Duration::from_millis(ms)),
            Step::Fail { ms, does } => self.database.fail(Duration::from_millis(ms), does),
            Step::Flood { who, lines } => self.sandboxes[who].flood(lines),
        }
    }

    async fn end(&mut self, step: Step) {
        match step {
            Step::Kill { who, .. } | Step::LosePower { who, .. } => self.sandboxes[who].start().await,
            Step::KillGateway { .. } | Step::Drain { .. } => self.start_gateway().await,
            Step::Fill { who, .. } => self.sandboxes[who].empty_disk(),
            Step::Break { who, .. } => self.sandboxes[who].repair_disk(),
            _ => {}
        }
    }

    async fn start_gateway(&mut self) {
        if self.gateway.is_none() {
            // It would end by 75, and be started again until then.
            self.database.fail_no_more();
            self.gateway = Some(Gateway::start(self.place.path(), &self.net, &self.database).await);
        }
    }

    async fn heal(&mut self) {
        self.trace.note(format_args!("everything heals"));
        self.net.heal();
        self.database.heal();
        self.start_gateway().await;
        for sandbox in &mut self.sandboxes {
            sandbox.heal_disk();
            sandbox.start().await;
        }
    }

    /// Until the gateway has everything.
    async fn come_to_rest(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + RETURN;
        // Nothing is told any more that would show what was lost before, and at the next beat that has to be noticed.
        self.sandboxes.iter().for_each(Sandbox::rest);
        sleep(gateway::BEAT + Duration::from_secs(1)).await;
        for number in 0..self.sandboxes.len() {
            self.until_has_all(number, deadline).await?;
        }
        for number in 0..self.sandboxes.len() {
            self.until_connected(number, deadline).await?;
            // One more of everything shows what was missed.
            self.take(Step::Command { who: number, count: 1 }).await;
            self.sandboxes[number].last_word().await;
            self.until_has_all(number, deadline).await?;
        }
        // Beats have the sums of all that.
        sleep(gateway::BEAT + Duration::from_secs(1)).await;
        Ok(())
    }

    async fn until_has_all(&self, number: usize, deadline: Instant) -> Result<(), String> {
        let sandbox = &self.sandboxes[number];
        while let Some(missing) = self.missing(number).await {
            if Instant::now() >= deadline {
                let extents = sandbox.extents().await;
                return Err(format!("{}: {missing} in time: {extents}", sandbox.id));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What the gateway does not have yet.
    async fn missing(&self, number: usize) -> Option<String> {
        let Some(gateway) = &self.gateway else { return Some("no gateway".into()) };
        let (sandbox, given) = (&self.sandboxes[number], self.given[number]);
        if sandbox.produced().await.is_none() {
            return Some("not all was acknowledged".into());
        }
        // All of them were applied where the last was, for they are applied in order.
        if sandbox.ledger().applied.len() < given as usize {
            return Some("not all commands were applied".into());
        }
        let unknown = gateway.without_outcome(&sandbox.id, given).await;
        (!unknown.is_empty()).then(|| format!("of commands {unknown:?} it was not told what became"))
    }

    async fn until_connected(&mut self, number: usize, deadline: Instant) -> Result<(), String> {
        // A session that seems to be there may be one of which an end does not know yet that it is over.
        let Some(gateway) = &self.gateway else { return Err("no gateway".into()) };
        let sandbox = &self.sandboxes[number];
        loop {
            if sandbox.is_connected() && gateway.sessions.registry.get(&sandbox.id).is_some() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{}: not connected in time: {}", sandbox.id, sandbox.extents().await));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
