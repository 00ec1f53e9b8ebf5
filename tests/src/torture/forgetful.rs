//! A file system in memory that forgets what was not synced, as a disk does that loses its power.
//!
//! It has two states: what programs see, and what is on the disk. `fsync` of a file brings its bytes and its length there, and nothing of
//! the folder that it is in; `fsync` of a folder brings its names. That is all that POSIX promises, and less than most file systems
//! give. At a [`Forgetful::cut`] any sector of what was not synced may have come to the disk and any not, and so may a longer
//! length; of what happened to names, a beginning of any length has. [`mount`](mod@mount) shows it to programs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use super::chance::Chance;

mod fault;
mod mount;

pub use fault::{Call, Damage, Fault, Refusal};
pub use mount::Forgetful;

/// Number of the folder that is mounted.
const ROOT: u64 = 1;

/// What is in a folder, by number.
type Names = BTreeMap<OsString, u64>;

/// Files and folders by number.
struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// What happened to names and is not on the disk, in order.
    pending: Vec<Change>,
}

/// One of them. What it may is on the disk at once: nobody here relies on it.
struct Node {
    mode: u32,
    uid: u32,
    gid: u32,
    body: Body,
}

enum Body {
    File(File),
    Folder(Folder),
}

#[derive(Default)]
struct File {
    seen: Vec<u8>,
    disk: Vec<u8>,
    /// First and one past the last byte that may differ.
    dirty: Option<(usize, usize)>,
    /// Others may differ for good: a sync of them was refused.
    apart: bool,
}

#[derive(Default)]
struct Folder {
    seen: Names,
    disk: Names,
}

/// What may happen to names.
enum Change {
    Added(u64, OsString, u64),
    Removed(u64, OsString),
    /// Over what had that name.
    Renamed((u64, OsString), (u64, OsString)),
}

impl Change {
    fn is_in(&self, folder: u64) -> bool {
        match self {
            Change::Added(of, ..) | Change::Removed(of, _) => *of == folder,
            Change::Renamed((from, _), (to, _)) => *from == folder || *to == folder,
        }
    }
}

impl Tree {
    fn new() -> Tree {
        let root = Node { mode: 0o755, uid: 0, gid: 0, body: Body::Folder(Folder::default()) };
        Tree { nodes: [(ROOT, root)].into(), next: ROOT + 1, pending: Vec::new() }
    }

    fn file(&mut self, number: u64) -> Option<&mut File> {
        match &mut self.nodes.get_mut(&number)?.body {
            Body::File(file) => Some(file),
            Body::Folder(_) => None,
        }
    }

    fn folder(&mut self, number: u64) -> Option<&mut Folder> {
        match &mut self.nodes.get_mut(&number)?.body {
            Body::Folder(folder) => Some(folder),
            Body::File(_) => None,
        }
    }

    fn look_up(&mut self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folder(folder)?.seen.get(name).copied()
    }

    fn add(&mut self, folder: u64, name: &OsStr, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(Change::Added(folder, name.into(), number));
        number
    }

    /// Programs see it at once.
    fn change(&mut self, change: Change) {
        self.apply(&change, |folder| &mut folder.seen);
        self.pending.push(change);
    }

    fn apply(&mut self, change: &Change, names: fn(&mut Folder) -> &mut Names) {
        match change {
            Change::Added(folder, name, number) => {
                self.folder(*folder).map(|of| names(of).insert(name.clone(), *number));
            }
            Change::Removed(folder, name) => {
                self.folder(*folder).map(|of| names(of).remove(name));
            }
            Change::Renamed((from, old), (to, new)) => {
                if let Some(number) = self.folder(*from).and_then(|of| names(of).remove(old)) {
                    self.folder(*to).map(|of| names(of).insert(new.clone(), number));
                }
            }
        }
    }

    /// All that happened in this folder is on the disk.
    fn sync_folder(&mut self, folder: u64) {
        let (done, rest) = std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(folder));
        self.pending = rest;
        self.write_down(done);
    }

    fn write_down(&mut self, changes: Vec<Change>) {
        changes.iter().for_each(|change| self.apply(change, |folder| &mut folder.disk));
    }

    /// What was synced is there, and what chance has brought to the disk beside it.
    fn cut(&mut self, chance: &mut Chance) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.truncate(chance.below(pending.len() + 1));
        self.write_down(pending);
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(file) => file.cut(chance),
                Body::Folder(folder) => folder.seen = folder.disk.clone(),
            }
        }
        let (mut reached, mut next) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(number) = next.pop() {
            let inner = self.folder(number).into_iter().flat_map(|folder| folder.seen.values().copied());
            next.extend(inner.filter(|number| reached.insert(*number)));
        }
        self.nodes.retain(|number, _| reached.contains(number));
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        let from = offset.min(self.seen.len());
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.taint(from, end);
    }

    fn set_length(&mut self, length: usize) {
        let from = self.seen.len().min(length);
        self.seen.resize(length, 0);
        self.taint(from, length);
    }

    fn taint(&mut self, from: usize, to: usize) {
        let (first, last) = self.dirty.unwrap_or((from, to));
        self.dirty = Some((first.min(from), last.max(to)));
    }

    fn sync(&mut self) {
        self.disk.resize(self.seen.len(), 0);
        if let Some((from, to)) = self.dirty.take() {
            let to = to.min(self.seen.len());
            let from = from.min(to);
            self.disk[from..to].copy_from_slice(&self.seen[from..to]);
        }
    }

    /// A sync was refused: no other one brings this to the disk, though programs still see it (fsync(2), NOTES).
    fn let_go(&mut self) {
        self.apart |= self.dirty.take().is_some();
    }

    fn cut(&mut self, chance: &mut Chance) {
        match self.dirty {
            Some(dirty) => self.bring(dirty, chance),
            None if !self.apart => return,
            None => {}
        }
        self.seen = self.disk.clone();
        (self.dirty, self.apart) = (None, false);
    }

    /// To the disk, as chance has it.
    fn bring(&mut self, (from, to): (usize, usize), chance: &mut Chance) {
        match chance.below(4) {
            0 => {}
            1 => self.sync(),
            _ => {
                if chance.below(2) == 0 {
                    self.disk.resize(self.seen.len(), 0);
                }
                let sector = [512, 4096][chance.below(2)];
                let to = to.min(self.seen.len()).min(self.disk.len());
                for at in (from / sector * sector..to).step_by(sector) {
                    let end = (at + sector).min(to);
                    if chance.below(2) == 0 {
                        self.disk[at..end].copy_from_slice(&self.seen[at..end]);
                    }
                }
            }
        }
    }
}
