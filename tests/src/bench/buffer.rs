//! The buffer: how soon a record is on the disk, and that neither kill -9 nor rot makes it lose, double or alter one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::session::Class;
use supervisor::buffer::{self, Buffer, Config, Limits, Piece};
use supervisor::machine::Machine;
use supervisor::metrics::Metrics;
use supervisor::state::StateDir;

use super::Line;
use crate::binaries;
use crate::memory_disk::MemoryDisk;

const LIMITS: Limits = Limits { size: 64 * 1024 * 1024, reserve: 4 * 1024 * 1024 };
const APPENDS: usize = 2_000;
const KILLS: u64 = 100;
const LOG: usize = 256 * 1024;

/// All of it.
pub fn measure() -> Vec<Line> {
    let mut lines = vec![durable()];
    lines.extend(kills());
    lines.extend(rot());
    lines
}

/// What the appender writes as its `n`th record.
pub fn record(class: Class, life: u64, n: u64) -> Vec<u8> {
    let mut bytes = format!("{} {life} {n} ", class.name()).into_bytes();
    bytes.resize(bytes.len() + (n * 37 % 700) as usize, b'.');
    bytes
}

/// From the call to the answer, where the answer waits for the disk.
fn durable() -> Line {
    let folder = tempfile::tempdir().expect("a folder");
    let state = StateDir::open(folder.path()).expect("a state directory");
    let config = Config { limits: LIMITS, sync_always: true };
    let opened = buffer::open(&state, &config).expect("it can be opened");
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut times: Vec<f64> = event_loop.block_on(async {
        let (handle, part) = buffer::new(opened, &config, Machine::default(), Arc::new(Metrics::default()));
        let part = tokio::spawn(part.run());
        let mut times = Vec::with_capacity(APPENDS);
        for n in 0..APPENDS {
            let before = Instant::now();
            handle.append(Class::Lifecycle, record(Class::Lifecycle, 0, n as u64)).await.expect("there is room");
            times.push(before.elapsed().as_secs_f64() * 1e3);
        }
        handle.close().await.expect("the disk is well");
        part.await.expect("it ends");
        times
    });
    times.sort_by(f64::total_cmp);
    let what = format!("append to durable, p99 of {APPENDS} (p50 {:.2} ms)", times[APPENDS / 2]);
    Line::new(what, 10.0, times[APPENDS * 99 / 100], "ms")
}

/// A real process appends as fast as it can until it is killed; what it said that it had written is there.
fn kills() -> Vec<Line> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut written, mut lost, mut altered, mut gaps) = (0u64, 0u64, 0u64, 0u64);
    let mut next = BTreeMap::from(Class::ALL.map(|class| (class, 1)));
    let mut told = Vec::new();
    for life in 1..=KILLS {
        let before = told.len();
        told.extend(live_and_die(folder.path(), life));
        written += (told.len() - before) as u64;
        let state = StateDir::open(folder.path()).expect("it can be opened");
        let config = Config { limits: LIMITS, sync_always: false };
        let mut buffer = buffer::open(&state, &config).expect("it can be opened");
        for class in Class::ALL {
            let from = next[&class];
            let pieces = buffer.peek(class, from, usize::MAX).expect("it can be read");
            let mut found = BTreeMap::new();
            for piece in pieces {
                match piece {
                    Piece::Record { seq, bytes } => drop(found.insert(seq, bytes)),
                    Piece::Gap { from, to, .. } => gaps += (to - from + 1) as u64,
                }
            }
            for one in told.iter().filter(|one| one.class == class) {
                match found.get(&one.seq) {
                    Some(bytes) => altered += u64::from(*bytes != record(class, one.life, one.n)),
                    None => lost += 1,
                }
            }
            // An even life is not acknowledged: the next one starts on what both left.
            if life % 2 == 1
                && let Some(last) = found.keys().last()
            {
                buffer.acknowledge(class, *last).expect("it was sent");
                next.insert(class, last + 1);
            }
        }
        if life % 2 == 1 {
            told.clear();
        }
    }
    let of = format!("of {written} records in {KILLS} kill -9 of the process that writes them");
    vec![
        Line::new(format!("lost {of}"), 0.0, lost as f64, "records"),
        Line::new(format!("altered or given out twice, {of}"), 0.0, altered as f64, "records"),
        // A write that was broken off inside a page leaves a doubt, and then numbers are skipped.
        Line::new(format!("skipped {of}"), 65_536.0, gaps as f64, "numbers"),
    ]
}

/// A record of which the process said that it is written.
struct Told {
    class: Class,
    seq: i64,
    life: u64,
    n: u64,
}

/// Start it, kill it, and hear what it had said.
fn live_and_die(folder: &Path, life: u64) -> Vec<Told> {
    let mut child = Command::new(binaries::helper("appender"))
        .arg(folder)
        .arg(life.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the appender");
    let output = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // It ends with the process.
        let _ = BufReader::new(output).read_to_end(&mut text);
        text
    });
    std::thread::sleep(Duration::from_millis(10 + life * 13 % 60));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let text = reader.join().expect("it reads");
    let parse = |line: String| {
        let mut words = line.split(' ');
        let class = Class::from_name(words.next()?)?;
        Some(Told { class, seq: words.next()?.parse().ok()?, life, n: words.next()?.parse().ok()? })
    };
    // A last line that was cut is not one.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    text[..whole].lines().map_while(Result::ok).filter_map(parse).collect()
}

/// A log of 256 KiB, each byte of it flipped, and cut at each of its lengths.
fn rot() -> Vec<Line> {
    let (name, whole, records) = log();
    let length = whole.len();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = |damage: fn(&[u8], usize) -> Vec<u8>| {
        std::thread::scope(|scope| {
            let part = |thread: usize| {
                let (name, whole, records) = (&name, &whole, &records);
                move || {
                    let mut seen = Seen::default();
                    (thread..length).step_by(threads).for_each(|at| seen.look(name, damage(whole, at), records));
                    seen
                }
            };
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(part(thread))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_default()).fold(Seen::default(), Seen::and)
        })
    };
    let flips = count(|whole, at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cuts = count(|whole, at| whole[..at].to_vec());
    let all = records.len();
    vec![
        Line::at_least("bytes of a log flipped, one at a time", LOG as f64, flips.opened as f64, "logs"),
        Line::at_least("lengths to which it was cut", LOG as f64, cuts.opened as f64, "logs"),
        Line::new("panics over them", 0.0, (flips.panics + cuts.panics) as f64, "panics"),
        Line::new("altered records over them", 0.0, (flips.altered + cuts.altered) as f64, "records"),
        Line::new(format!("most records of {all} lost by a flip: those in 4 KiB"), 8.0, flips.most as f64, "records"),
    ]
}

/// What came of damaged logs.
#[derive(Default)]
struct Seen {
    opened: u64,
    panics: u64,
    altered: u64,
    most: usize,
}

impl Seen {
    fn look(&mut self, name: &str, bytes: Vec<u8>, records: &BTreeMap<i64, Vec<u8>>) {
        self.opened += 1;
        let read = catch_unwind(AssertUnwindSafe(|| {
            let disk = MemoryDisk::default();
            disk.0.borrow_mut().insert(name.to_owned(), bytes);
            let mut buffer = Buffer::open(disk, LIMITS, [0; 16]).ok()?;
            buffer.peek(Class::Logs, 1, usize::MAX).ok()
        }));
        let Ok(Some(pieces)) = read else {
            self.panics += 1;
            return;
        };
        let mut found = 0;
        for piece in pieces {
            if let Piece::Record { seq, bytes } = piece {
                found += 1;
                self.altered += u64::from(records.get(&seq) != Some(&bytes));
            }
        }
        self.most = self.most.max(records.len() - found);
    }

    fn and(self, other: Seen) -> Seen {
        Seen {
            opened: self.opened + other.opened,
            panics: self.panics + other.panics,
            altered: self.altered + other.altered,
            most: self.most.max(other.most),
        }
    }
}

fn log() -> (String, Vec<u8>, BTreeMap<i64, Vec<u8>>) {
    let disk = MemoryDisk::default();
    let mut buffer = Buffer::open(disk.clone(), LIMITS, [1; 16]).expect("it can be opened");
    let mut records = BTreeMap::new();
    for n in 0.. {
        let mut bytes = record(Class::Logs, 0, n);
        bytes.resize(bytes.len() + 700, b'-');
        let seq = buffer.append(Class::Logs, &bytes).expect("there is room");
        records.insert(seq, bytes);
        if buffer.bytes() > LOG as u64 {
            break;
        }
    }
    buffer.close().expect("memory is well");
    let files = disk.0.borrow();
    let (name, bytes) = files.iter().find(|(name, _)| name.ends_with(".seg")).expect("a segment");
    (name.clone(), bytes.clone(), records)
}
