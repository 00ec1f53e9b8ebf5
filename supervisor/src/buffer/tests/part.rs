//! The buffer on the event loop and on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peer::{PeerError, Stream};
use protocol::session::Class;
use tokio::task::JoinHandle;

use super::USUAL;
use super::disk::{Faults, Simulated};
use crate::buffer::part::RETRY;
use crate::buffer::{self, Buffer, Config, Handle, Piece, Reason, window};
use crate::machine::{Later, Machine, StandIn};
use crate::metrics::Metrics;
use crate::state::StateDir;

struct Running {
    handle: Handle,
    metrics: Arc<Metrics>,
    part: JoinHandle<()>,
    _state: StateDir,
}

/// Offer what `before` offers, and only then run.
fn start(folder: &Path, sync_always: bool, before: impl FnOnce(&Handle)) -> Running {
    let state = StateDir::open(folder).expect("it can be opened");
    let config = Config { limits: USUAL, sync_always };
    let opened = buffer::open(&state, &config).expect("it can be opened");
    let metrics = Arc::new(Metrics::default());
    let (handle, part) = buffer::new(opened, &config, Machine::default(), metrics.clone());
    before(&handle);
    Running { handle, metrics, part: tokio::spawn(part.run()), _state: state }
}

/// A new buffer on a disk whose syncs can be counted and whose faults can be chosen.
fn on_simulated_disk(machine: Machine) -> (Simulated, Handle) {
    let disk = Simulated::new(1, 4096);
    let opened = Buffer::open(disk.clone(), USUAL, [1; 16]).expect("an empty disk");
    let config = Config { limits: USUAL, sync_always: false };
    let (handle, part) = buffer::new(opened, &config, machine, Arc::new(Metrics::default()));
    tokio::spawn(part.run());
    (disk, handle)
}

fn event_loop() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not within 10 s");
}

#[test]
fn what_one_life_wrote_the_next_one_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    event_loop().block_on(async {
        let first = start(folder.path(), false, |_| ());
        let epoch = first.handle.epoch().to_owned();
        for number in 0..10 {
            let bytes = format!("record {number}").into_bytes();
            assert_eq!(first.handle.append(Class::Results, bytes).await.expect("there is room"), number + 1);
        }
        first.handle.acknowledge(Class::Results, 4).await.expect("it was sent");
        first.handle.close().await.expect("the disk is well");
        first.part.await.expect("it ends");
        drop(first._state);

        let second = start(folder.path(), false, |_| ());
        assert_eq!(second.handle.epoch(), epoch);
        let extent = second.handle.extents().await.expect("it runs")[&Class::Results];
        assert_eq!((extent.first_unacked, extent.last), (5, 10));
        let pieces = second.handle.peek(Class::Results, 1, 1_000).await.expect("it can be read");
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces[0], Piece::Record { seq: 5, bytes: b"record 4".to_vec() });
        assert_eq!(second.handle.append(Class::Results, vec![b'x']).await.expect("there is room"), 11);
    });
}

#[test]
fn a_written_record_is_synced_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    event_loop().block_on(async {
        let running = start(folder.path(), false, |_| ());
        running.handle.append(Class::Lifecycle, vec![b'x']).await.expect("there is room");
        // Two for the name and the header of a new file; the third is the record's.
        until("a sync of the record", || running.metrics.buffer_syncs.get() >= 3).await;
    });
}

#[test]
fn with_sync_always_the_record_is_on_the_disk_before_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    event_loop().block_on(async {
        let running = start(folder.path(), true, |_| ());
        for number in 1..4 {
            running.handle.append(Class::Lifecycle, vec![b'x']).await.expect("there is room");
            // The answer comes out of the blocking pool, the count when the loop is back.
            until("a sync for each", || running.metrics.buffer_syncs.get() >= 2 + number).await;
        }
        assert_eq!(running.metrics.buffer_syncs.get(), 2 + 3);
    });
}

#[test]
fn an_offer_never_waits_and_what_does_not_fit_is_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    event_loop().block_on(async {
        let mut news = None;
        let running = start(folder.path(), false, |handle| {
            news = Some(handle.news());
            // Nobody takes them yet.
            (0..3_000).for_each(|_| handle.offer(Class::Logs, vec![b'x'; 100]));
        });
        let mut news = news.expect("it was asked for");
        let (mut at, mut records, mut lost) = (1, 0, 0);
        while at <= 3_000 {
            let pieces = running.handle.peek(Class::Logs, at, 100_000).await.expect("it can be read");
            if pieces.is_empty() {
                let more = tokio::time::timeout(Duration::from_secs(10), news.changed()).await;
                more.expect("there is more").expect("it runs");
            }
            for piece in pieces {
                at = match piece {
                    Piece::Record { seq, .. } => {
                        records += 1;
                        seq + 1
                    }
                    Piece::Gap { from, to, reason, bytes } => {
                        assert_eq!((reason, bytes), (Reason::Budget, 100 * (to - from + 1) as u64));
                        lost += to - from + 1;
                        to + 1
                    }
                };
            }
        }
        assert_eq!(records + lost, 3_000);
        assert!(records > 0 && lost > 0, "{records} {lost}");
    });
}

#[test]
fn what_is_no_plain_file_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = StateDir::open(folder.path()).expect("it can be opened");
    let config = Config { limits: USUAL, sync_always: false };
    drop(buffer::open(&state, &config).expect("it can be opened"));
    let name = |ordinal| format!("logs-{ordinal:016x}-{:016x}.seg", 1);
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("buffer").join(name(1))).expect("a link");
    std::fs::create_dir(folder.path().join("buffer").join(name(2))).expect("a folder");
    let opened = buffer::open(&state, &config).expect("it can be opened");
    assert_eq!(opened.counts().quarantined, 2);
}

/// A machine whose disk takes longer for anything than a record may wait for its sync.
struct Busy;

impl StandIn for Busy {
    fn disk(&self) -> Later<()> {
        Box::pin(tokio::time::sleep(window(Class::Lifecycle)))
    }

    fn boot(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Duration {
        Duration::ZERO
    }

    fn random(&self) -> f64 {
        0.0
    }

    fn until(&self, _: Duration) -> Later<()> {
        Box::pin(std::future::pending())
    }

    fn connect(&self, _: &str, _: u16) -> Later<Result<Box<dyn Stream>, PeerError>> {
        Box::pin(std::future::pending())
    }
}

/// While the disk had something else to do a sync became due, which was then taken for done: under a load that a slow disk could
/// just bear, nothing was ever synced.
#[test]
fn a_sync_that_becomes_due_while_the_disk_is_busy_is_not_put_off() {
    event_loop().block_on(async {
        let (disk, handle) = on_simulated_disk(Machine::simulated(Arc::new(Busy)));
        let append = async || handle.append(Class::Lifecycle, vec![b'x']).await.expect("there is room");
        append().await;
        let of_a_new_file = disk.syncs();
        // Each comes before the disk has done with the one before.
        append().await;
        append().await;
        assert_eq!(disk.syncs() - of_a_new_file, 1);
    });
}

/// A record that was refused put off the sync of those that were written, until a disk that refuses is asked again.
#[test]
fn a_record_that_was_refused_keeps_no_other_from_the_disk() {
    event_loop().block_on(async {
        let (disk, handle) = on_simulated_disk(Machine::default());
        let append = async || handle.append(Class::Lifecycle, vec![b'x']).await;
        append().await.expect("there is room");
        let of_a_new_file = disk.syncs();
        disk.break_with(Faults { writes: 1, ..Faults::default() });
        append().await.expect_err("the disk refuses one write");
        let synced = until("a sync", || disk.syncs() > of_a_new_file);
        tokio::time::timeout(RETRY / 2, synced).await.expect("nothing waits for another try");
    });
}

/// Found by reading: a sync that was refused put off that of records which came when the disk took them again.
#[test]
fn a_record_behind_a_refused_sync_waits_for_no_other_try() {
    event_loop().block_on(async {
        let (disk, handle) = on_simulated_disk(Machine::default());
        let append = async || handle.append(Class::Lifecycle, vec![b'x']).await.expect("there is room");
        append().await;
        let of_a_new_file = disk.syncs();
        // Of the file, and of the one that is to take what it lost.
        disk.break_with(Faults { syncs: 2, ..Faults::default() });
        until("both are refused", || disk.syncs() >= of_a_new_file + 2).await;
        append().await;
        let before = disk.syncs();
        let synced = until("a sync", || disk.syncs() > before);
        tokio::time::timeout(RETRY / 2, synced).await.expect("nothing waits for another try");
    });
}
