//! What the runs have shown, kept: one file a run in `docs/evidence`, and `docs/evidence.md` made of all of them.
//!
//! `just evidence torture kills` runs `just torture kills`, whose last words go into a file; a newer run of the same command takes the place of
//! the one before. Nobody writes the page: a test holds it against the files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::bench::Line;

mod page;

pub use page::page;

/// Where runs are kept; nothing is kept where it is not set.
const DIRECTORY: &str = "EVIDENCE_DIR";
/// The command, as it is typed behind `just`.
const COMMAND: &str = "EVIDENCE_COMMAND";
/// What was run.
const REVISION: &str = "EVIDENCE_REVISION";

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// As it is typed.
    pub command: String,
    /// The commit; with `+` where files were changed since.
    pub revision: String,
    /// When it ended, RFC 3339.
    pub date: String,
    /// How long it took.
    pub seconds: u64,
    /// Where.
    pub machine: String,
    /// What else went on: processes that wanted a core in the minute before it began.
    pub load: f64,
    /// What was seen.
    pub numbers: Vec<Line>,
}

/// A run that has begun.
#[derive(Debug)]
pub struct Begun {
    at: Instant,
    load: f64,
    /// It was kept, or that was tried.
    kept: Cell<bool>,
}

/// Whether this part of a run shows anything, which is told where it does not: what was skipped is not passed.
pub fn shown(name: &str, lines: &[Line]) -> bool {
    if lines.is_empty() {
        eprintln!("{name} was not run here: nothing is shown");
    }
    !lines.is_empty()
}

/// Begin.
pub fn begin() -> Begun {
    Begun { at: Instant::now(), load: load(), kept: Cell::new(false) }
}

impl Begun {
    /// Keep what was seen, where that was asked for; whether all promises are kept.
    ///
    /// # Panics
    ///
    /// Where it was asked for and cannot be kept.
    pub fn end(self, lines: &[Line]) -> bool {
        self.keep(lines);
        lines.iter().all(Line::kept)
    }

    fn keep(&self, lines: &[Line]) {
        self.kept.set(true);
        if let Some(directory) = std::env::var_os(DIRECTORY).filter(|_| !lines.is_empty()) {
            let variable = |name| std::env::var(name).unwrap_or_default();
            let run = Run {
                command: variable(COMMAND),
                revision: variable(REVISION),
                date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
                seconds: self.at.elapsed().as_secs(),
                machine: machine(),
                load: self.load,
                numbers: lines.to_vec(),
            };
            keep(Path::new(&directory), &run);
        }
    }
}

impl Drop for Begun {
    /// What a run before has shown does not stand for one that failed on its way.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.kept.get() {
            self.keep(&[Line::at_least("runs that came to their end", 1.0, 0.0, "runs")]);
        }
    }
}

fn keep(directory: &Path, run: &Run) {
    let name: String = run.command.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let text = serde_json::to_string_pretty(run).expect("numbers and words") + "\n";
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(directory.join(format!("{name}.json")), text))
        .unwrap_or_else(|error| panic!("evidence cannot be kept in {}: {error}", directory.display()));
}

/// All that are kept, by their commands.
///
/// # Panics
///
/// Where one is not as we write them.
pub fn runs(directory: &Path) -> Vec<Run> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    let read = |path: &PathBuf| -> Run {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{} is no run: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

/// Kernel, cores, memory: what numbers depend on, and nothing that names this machine.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim));
        line.unwrap_or("unknown").to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kib: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let model = field(&read("/proc/cpuinfo"), "model name");
    format!("{cores} cores ({model}), {} GiB, Linux {kernel}", kib >> 20)
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
