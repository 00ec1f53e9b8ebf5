//! A disk that does what disks do: it forgets what was not synced, tears what is under way, fills up, refuses and rots.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

// Also a part of the simulation in the tests crate, which has these under the same name.
use super::{Blocks, Disk};

/// One disk, and every handle to it.
#[derive(Clone, Default)]
pub(super) struct Simulated(Arc<Mutex<State>>);

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// So many writes fail, in part done.
    pub(super) writes: u32,
    /// So many syncs of files fail; what they had to write is lost.
    pub(super) syncs: u32,
    /// So many syncs of the directory fail.
    pub(super) names: u32,
    /// So many removals fail.
    pub(super) removals: u32,
    /// So many times there is no memory to open a file or to read of it: it may be better at the next try.
    pub(super) reads: u32,
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// What power cannot take.
    kept: BTreeMap<String, usize>,
    /// Changes of names that nobody synced: each may be kept or lost.
    changes: Vec<Change>,
    capacity: Option<u64>,
    faults: Faults,
    random: u64,
    sector: usize,
    syncs: u64,
}

#[derive(Clone)]
enum Change {
    Made(String, usize),
    Gone(String),
    Renamed(String, String),
}

#[derive(Default)]
struct Node {
    now: Vec<u8>,
    kept: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    reserved: usize,
}

/// An open file.
pub(super) struct Handle {
    disk: Simulated,
    node: usize,
}

impl Simulated {
    /// What is under way is torn where a sector of so many bytes ends.
    pub(super) fn new(seed: u64, sector: usize) -> Simulated {
        let disk = Simulated::default();
        disk.lock().random = seed | 1;
        disk.lock().sector = sector;
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was not synced is there or not, sector by sector and name by name.
    pub(super) fn lose_power(&self) {
        let state = &mut *self.lock();
        let odds = random(&mut state.random, 4);
        for node in &mut state.nodes {
            keep_some(node, state.sector, &mut state.random, odds);
            node.now = node.kept.clone();
            node.reserved = 0;
        }
        for change in std::mem::take(&mut state.changes) {
            if random(&mut state.random, 4) < odds {
                change.apply(&mut state.kept);
            }
        }
        state.names = state.kept.clone();
        state.faults = Faults::default();
    }

    pub(super) fn break_with(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Some reads will fail.
    pub(super) fn fails_reads(&self) -> bool {
        self.lock().faults.reads > 0
    }

    /// So many bytes fit; `None` is enough.
    pub(super) fn limit(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    pub(super) fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Syncs that were asked for.
    pub(super) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Put bytes there, for good.
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) {
        let state = &mut *self.lock();
        state.nodes.push(Node { now: bytes.clone(), kept: bytes, ..Node::default() });
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        state.kept.insert(name.to_owned(), node);
    }

    /// All files with their bytes.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        state.names.iter().map(|(name, node)| (name.clone(), state.nodes[*node].now.clone())).collect()
    }

    /// Another disk with the same bytes.
    pub(super) fn copy(&self) -> Simulated {
        let copy = Simulated::new(1, self.lock().sector);
        self.files().into_iter().for_each(|(name, bytes)| copy.write(&name, bytes));
        copy
    }
}

impl State {
    fn used(&self) -> u64 {
        let size = |node: &usize| self.nodes[*node].now.len().max(self.nodes[*node].reserved).next_multiple_of(4096);
        self.names.values().map(size).sum::<usize>() as u64
    }

    fn fails(&mut self, which: impl Fn(&mut Faults) -> &mut u32) -> bool {
        let left = which(&mut self.faults);
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    }

    fn has_room(&self, node: usize, end: usize) -> bool {
        let node = &self.nodes[node];
        let has = node.now.len().max(node.reserved).next_multiple_of(4096);
        let more = end.next_multiple_of(4096).saturating_sub(has) as u64;
        more == 0 || self.capacity.is_none_or(|capacity| self.used() + more <= capacity)
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Made(name, node) => drop(names.insert(name, node)),
            Change::Gone(name) => drop(names.remove(&name)),
            Change::Renamed(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
        }
    }
}

/// Each unsynced sector reaches the disk with `odds` in 4.
fn keep_some(node: &mut Node, sector: usize, random_state: &mut u64, odds: u64) {
    for (offset, bytes) in std::mem::take(&mut node.unsynced) {
        let mut at = offset;
        while at < offset + bytes.len() {
            let end = (at / sector * sector + sector).min(offset + bytes.len());
            if random(random_state, 4) < odds {
                put(&mut node.kept, at, &bytes[at - offset..end - offset]);
            }
            at = end;
        }
    }
}

fn put(into: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    into.resize(into.len().max(at + bytes.len()), 0);
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

/// xorshift: the same seed, the same faults.
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

fn refused(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Disk for Simulated {
    type File = Handle;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let state = &mut *self.lock();
        if state.names.contains_key(name) {
            return Err(refused(libc::EEXIST));
        }
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        state.changes.push(Change::Made(name.to_owned(), node));
        Ok(Handle { disk: self.clone(), node })
    }

    fn open(&self, name: &str) -> io::Result<Handle> {
        let state = &mut *self.lock();
        if state.fails(|faults| &mut faults.reads) {
            return Err(refused(libc::ENOMEM));
        }
        let node = state.names.get(name).copied().ok_or_else(|| refused(libc::ENOENT))?;
        Ok(Handle { disk: self.clone(), node })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.lock();
        let change = Change::Renamed(from.to_owned(), to.to_owned());
        change.clone().apply(&mut state.names);
        state.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.lock();
        if state.fails(|faults| &mut faults.removals) {
            return Err(refused(libc::EIO));
        }
        state.names.remove(name).ok_or_else(|| refused(libc::ENOENT))?;
        state.changes.push(Change::Gone(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.lock();
        state.syncs += 1;
        if state.fails(|faults| &mut faults.names) {
            return Err(refused(libc::EIO));
        }
        state.changes.clear();
        state.kept = state.names.clone();
        Ok(())
    }
}

impl Blocks for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = &mut *self.disk.lock();
        if state.fails(|faults| &mut faults.reads) {
            return Err(refused(libc::ENOMEM));
        }
        let bytes = state.nodes[self.node].now.get(offset as usize..).unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let state = &mut *self.disk.lock();
        let at = offset as usize;
        let (room, broken) = (state.has_room(self.node, at + bytes.len()), state.fails(|faults| &mut faults.writes));
        let part = if room && !broken { bytes.len() } else { random(&mut state.random, bytes.len() as u64) as usize };
        // A full disk takes what fits into the blocks that are there.
        let part = if room { part } else { part.min((4096 - at % 4096) % 4096) };
        let node = &mut state.nodes[self.node];
        put(&mut node.now, at, &bytes[..part]);
        node.unsynced.push((at, bytes[..part].to_vec()));
        match (room, broken) {
            (true, false) => Ok(()),
            (false, _) => Err(refused(libc::ENOSPC)),
            (true, true) => Err(refused(libc::EIO)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let state = &mut *self.disk.lock();
        state.syncs += 1;
        if state.fails(|faults| &mut faults.syncs) {
            // What could not be written is clean from now on, and the cache has it or has the old bytes again. The length
            // stays as long as the kernel runs.
            let (reverts, odds) = (random(&mut state.random, 2) == 0, random(&mut state.random, 4));
            let node = &mut state.nodes[self.node];
            keep_some(node, state.sector, &mut state.random, odds);
            if reverts {
                let length = node.now.len();
                node.now = node.kept.clone();
                node.now.resize(length, 0);
            }
            return Err(refused(libc::EIO));
        }
        let node = &mut state.nodes[self.node];
        node.kept = node.now.clone();
        node.unsynced.clear();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().nodes[self.node].now.len() as u64)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Err(refused(libc::EINVAL));
        }
        let state = &mut *self.disk.lock();
        if !state.has_room(self.node, bytes as usize) {
            return Err(refused(libc::ENOSPC));
        }
        state.nodes[self.node].reserved = bytes as usize;
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        self.disk.lock().nodes[self.node].reserved = 0;
        Ok(())
    }
}
