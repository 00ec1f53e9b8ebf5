//! The file system for programs: FUSE, without a cache of the kernel's, so that nothing is known that was forgotten.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};
use tempfile::TempDir;

use super::fault::{Call, Fault, Faults, suffer};
use super::{Body, Chance, Change, File, Folder, Node, Tree};
use crate::binaries;

/// How long names and attributes are known.
const FORGOTTEN: Duration = Duration::ZERO;
/// What a sync takes, as on a good disk.
const SYNC: Duration = Duration::from_millis(1);
const BLOCK: u32 = 4096;
/// As much as it says that it has.
const BLOCKS: u64 = 1 << 20;

/// A file system that forgets, mounted until this value goes.
pub struct Forgetful {
    tree: Arc<Mutex<Tree>>,
    faults: Arc<Mutex<Faults>>,
    // Before the directory that it is mounted on.
    _session: BackgroundSession,
    place: TempDir,
}

impl Forgetful {
    /// Empty. Where this machine has no FUSE, or nobody may mount it, why is printed.
    pub fn mount() -> Option<Forgetful> {
        let place = binaries::scratch();
        let tree = Arc::new(Mutex::new(Tree::new()));
        let faults: Arc<Mutex<Faults>> = Arc::default();
        let mut config = Config::default();
        config.acl = SessionACL::All;
        match fuser::spawn_mount(Shown { tree: tree.clone(), faults: faults.clone() }, place.path(), &config) {
            Ok(_session) => Some(Forgetful { tree, faults, _session, place }),
            Err(error) => {
                eprintln!("skipped: no file system in user space can be mounted here: {error}");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// From now on calls are counted, up to this fault.
    pub fn expect(&self, fault: Fault) {
        lock(&self.faults).expect(fault);
    }

    /// From now on every call is done.
    pub fn heal(&self) {
        lock(&self.faults).forget();
    }

    /// How many calls have met it.
    pub fn met(&self) -> usize {
        lock(&self.faults).met()
    }

    /// Power is lost and comes back. Whoever used it has ended.
    pub fn cut(&self, chance: &mut Chance) {
        lock(&self.tree).cut(chance);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shown {
    tree: Arc<Mutex<Tree>>,
    faults: Arc<Mutex<Faults>>,
}

impl Shown {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }

    /// Whether this call may be done; it may take its time.
    fn may(&self, call: Call) -> Result<(), Errno> {
        self.takes(call, 0).map(drop)
    }

    /// How many of so many bytes it takes.
    fn takes(&self, call: Call, length: usize) -> Result<usize, Errno> {
        let damage = lock(&self.faults).meets(call);
        suffer(damage, length)
    }

    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, body: Body) -> Result<FileAttr, Errno> {
        let mut tree = self.tree();
        if tree.look_up(parent.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let node = Node { mode: mode & 0o7777, uid: request.uid(), gid: request.gid(), body };
        let number = tree.add(parent.0, name, node);
        attributes(&tree, number)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let mut tree = self.tree();
        let number = tree.look_up(parent.0, name).ok_or(Errno::ENOENT)?;
        if tree.folder(number).is_some_and(|folder| !folder.seen.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        tree.change(Change::Removed(parent.0, name.into()));
        Ok(())
    }

    fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), flags: RenameFlags) -> Result<(), Errno> {
        let mut tree = self.tree();
        tree.look_up(from.0, from.1).ok_or(Errno::ENOENT)?;
        let target = tree.look_up(to.0, to.1);
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && target.is_some() {
            return Err(Errno::EEXIST);
        }
        let full = target.and_then(|number| tree.folder(number)).is_some_and(|folder| !folder.seen.is_empty());
        if full {
            return Err(Errno::ENOTEMPTY);
        }
        tree.change(Change::Renamed((from.0, from.1.into()), (to.0, to.1.into())));
        Ok(())
    }
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr, Errno> {
    let node = tree.nodes.get(&number).ok_or(Errno::ENOENT)?;
    let (kind, size) = match &node.body {
        Body::File(file) => (FileType::RegularFile, file.seen.len() as u64),
        Body::Folder(_) => (FileType::Directory, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode as u16,
        nlink: 1,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

/// Answer what was done.
fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(found) => reply.entry(&FORGOTTEN, &found, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn attribute(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(found) => reply.attr(&FORGOTTEN, &found),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Shown {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // SQLite shares an index of its log that way. An older kernel has it not.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.tree();
        let found = tree.look_up(parent.0, name).ok_or(Errno::ENOENT);
        entry(found.and_then(|number| attributes(&tree, number)), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attribute(attributes(&self.tree(), number.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if size.is_some()
            && let Err(errno) = self.may(Call::Length)
        {
            return reply.error(errno);
        }
        let mut tree = self.tree();
        if let Some(node) = tree.nodes.get_mut(&number.0) {
            node.mode = mode.map_or(node.mode, |mode| mode & 0o7777);
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
        }
        if let (Some(size), Some(file)) = (size, tree.file(number.0)) {
            file.set_length(size as usize);
        }
        attribute(attributes(&tree, number.0), reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let may = self.may(Call::Name);
        entry(
            may.and_then(|()| self.make(request, parent, name, mode & !umask, Body::Folder(Folder::default()))),
            reply,
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let may = self.may(Call::Open);
        match may.and_then(|()| self.make(request, parent, name, mode & !umask, Body::File(File::default()))) {
            Ok(made) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&FORGOTTEN, &made, Generation(0), FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.may(Call::Name).and_then(|()| self.remove(parent, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.may(Call::Name).and_then(|()| self.remove(parent, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let may = self.may(Call::Rename);
        done(may.and_then(|()| self.rename((parent.0, name), (newparent.0, newname), flags)), reply);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Err(errno) = self.may(Call::Open) {
            return reply.error(errno);
        }
        if let Some(file) = self.tree().file(number.0)
            && flags.0 & libc::O_TRUNC != 0
        {
            file.set_length(0);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tree = self.tree();
        let Some(file) = tree.file(number.0) else { return reply.error(Errno::ENOENT) };
        let from = (offset as usize).min(file.seen.len());
        let to = (from + size as usize).min(file.seen.len());
        reply.data(&file.seen[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = match self.takes(Call::Write, data.len()) {
            Ok(taken) => &data[..taken],
            Err(errno) => return reply.error(errno),
        };
        let mut tree = self.tree();
        let Some(file) = tree.file(number.0) else { return reply.error(Errno::ENOENT) };
        let end = file.seen.len();
        file.write(if flags.0 & libc::O_APPEND != 0 { end } else { offset as usize }, data);
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        sleep(SYNC);
        let may = self.may(Call::Sync);
        let mut tree = self.tree();
        let Some(file) = tree.file(number.0) else { return reply.ok() };
        match may {
            Ok(()) => {
                file.sync();
                reply.ok();
            }
            Err(errno) => {
                file.let_go();
                reply.error(errno);
            }
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut tree = self.tree();
        let Some(folder) = tree.folder(number.0) else { return reply.error(Errno::ENOTDIR) };
        let mut names: Vec<_> = folder.seen.iter().map(|(name, number)| (*number, name.clone())).collect();
        // By number, so that who goes on behind one finds the others, whatever was removed meanwhile.
        names.sort_unstable();
        for (number, name) in names.into_iter().filter(|(number, _)| *number > offset) {
            let kind = attributes(&tree, number).map_or(FileType::RegularFile, |found| found.kind);
            if reply.add(INodeNo(number), number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        sleep(SYNC);
        if let Err(errno) = self.may(Call::SyncFolder) {
            return reply.error(errno);
        }
        self.tree().sync_folder(number.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, mode: i32, reply: ReplyEmpty) {
        // Room is always there; a longer length is not asked for.
        let known = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        done(self.may(Call::Length).and(if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }), reply);
    }
}
