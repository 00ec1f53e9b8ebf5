//! The machine under the link and the buffer: time, chance, connections, and threads that may block.
//!
//! The real one is [`Machine::default`]. A simulation passes a [`StandIn`] whose time, chance and network are its own: the
//! code that ships then runs on one thread, the same for the same seed, in a time that costs nothing while nobody works.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use peer::names::Names;
use peer::{PeerError, Stream};
use tokio::task::{JoinError, spawn_blocking};

pub(crate) mod alarm;
pub(crate) mod clock;

use crate::backoff;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Machine(Option<Arc<dyn StandIn>>);

/// What a [`StandIn`] answers later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a simulation has in the place of a machine.
pub trait StandIn: Send + Sync {
    /// Since it was started; goes on while it is suspended.
    fn boot(&self) -> Duration;
    /// What its wall clock says, since 1970.
    fn wall(&self) -> Duration;
    /// Comes at that moment of its boot clock.
    fn until(&self, boot: Duration) -> Later<()>;
    /// A number from 0 to 1.
    fn random(&self) -> f64;
    /// Comes when the disk has its time for a part of what it is asked: once before that is done, and once behind it.
    fn disk(&self) -> Later<()>;
    /// A connection with that host.
    fn connect(&self, host: &str, port: u16) -> Later<Result<Box<dyn Stream>, PeerError>>;
}

/// Rings at a moment of a machine's boot clock.
pub(crate) enum Alarm {
    Kernel(alarm::Alarm),
    Simulated(Arc<dyn StandIn>),
}

impl Alarm {
    /// Until that moment. It can be given up and asked for again, with another moment too.
    pub(crate) async fn at(&mut self, when: Duration) -> io::Result<()> {
        match self {
            Alarm::Kernel(alarm) => alarm.at(when).await,
            Alarm::Simulated(machine) => {
                machine.until(when).await;
                Ok(())
            }
        }
    }
}

impl Machine {
    /// The machine of a simulation.
    pub fn simulated(stand_in: Arc<dyn StandIn>) -> Machine {
        Machine(Some(stand_in))
    }

    /// By the boot clock: every span is measured on it.
    pub fn now(&self) -> Duration {
        self.0.as_ref().map_or_else(clock::now, |machine| machine.boot())
    }

    /// The same, as records and frames have it.
    pub fn boot_ms(&self) -> i64 {
        self.now().as_millis() as i64
    }

    /// What the wall clock says, as records and frames have it.
    pub fn wall_ms(&self) -> i64 {
        self.0.as_ref().map_or_else(clock::wall_ms, |machine| machine.wall().as_millis() as i64)
    }

    /// A number from 0 to 1 that differs between processes started at one instant.
    pub(crate) fn random(&self) -> f64 {
        self.0.as_ref().map_or_else(backoff::random, |machine| machine.random())
    }

    /// Until that moment of the boot clock.
    pub(crate) async fn until(&self, when: Duration) {
        match &self.0 {
            Some(machine) => machine.until(when).await,
            None => alarm::until(when).await,
        }
    }

    /// The same, again and again.
    pub(crate) fn alarm(&self) -> io::Result<Alarm> {
        match &self.0 {
            Some(machine) => Ok(Alarm::Simulated(machine.clone())),
            None => alarm::Alarm::new().map(Alarm::Kernel),
        }
    }

    /// TCP to that host.
    pub(crate) async fn connect(&self, names: &Names, host: &str, port: u16) -> Result<Box<dyn Stream>, PeerError> {
        match &self.0 {
            Some(machine) => machine.connect(host, port).await,
            None => Ok(Box::new(peer::tcp(names, host, port).await?)),
        }
    }

    /// Do what may block on a disk: not on the event loop. In a simulation it is done in place, between two times of the disk.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.0 {
            Some(machine) => {
                machine.disk().await;
                let done = work();
                machine.disk().await;
                Ok(done)
            }
            None => spawn_blocking(work).await,
        }
    }
}
