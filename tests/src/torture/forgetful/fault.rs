//! One call that a disk does not do as it should.

use std::thread::sleep;
use std::time::Duration;

use fuser::Errno;

/// What a program asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A file is opened or made.
    Open,
    /// write(2), pwrite(2).
    Write,
    /// fsync(2), fdatasync(2) of a file.
    Sync,
    /// fsync(2) of a folder.
    SyncFolder,
    /// rename(2).
    Rename,
    /// fallocate(2), ftruncate(2).
    Length,
    /// mkdir(2), unlink(2), rmdir(2).
    Name,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 7] =
        [Call::Open, Call::Write, Call::Sync, Call::SyncFolder, Call::Rename, Call::Length, Call::Name];
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is not done.
    Refused(Refusal),
    /// Half of the bytes are taken, as write(2) may; other calls are done.
    Short,
    /// It takes its time.
    Late(Duration),
}

/// As errno(3) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refusal {
    Eio,
    Enospc,
    Erofs,
    Edquot,
    Eintr,
}

impl Damage {
    /// All of it.
    pub const ALL: [Damage; 7] = [
        Damage::Refused(Refusal::Eio),
        Damage::Refused(Refusal::Enospc),
        Damage::Refused(Refusal::Erofs),
        Damage::Refused(Refusal::Edquot),
        Damage::Refused(Refusal::Eintr),
        Damage::Short,
        Damage::Late(Duration::from_millis(300)),
    ];
}

impl Refusal {
    fn errno(self) -> Errno {
        match self {
            Refusal::Eio => Errno::EIO,
            Refusal::Enospc => Errno::ENOSPC,
            Refusal::Erofs => Errno::EROFS,
            Refusal::Edquot => Errno::EDQUOT,
            Refusal::Eintr => Errno::EINTR,
        }
    }
}

/// The call of this kind that has this number, and so many behind it, meet this damage.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its kind.
    pub call: Call,
    /// From 0, from when the fault is expected on.
    pub number: usize,
    /// So many in a row.
    pub times: usize,
    /// What becomes of each.
    pub damage: Damage,
}

/// Counts calls up to a fault.
#[derive(Default)]
pub(super) struct Faults {
    fault: Option<Fault>,
    seen: usize,
}

impl Faults {
    /// From now on, this.
    pub(super) fn expect(&mut self, fault: Fault) {
        *self = Faults { fault: Some(fault), seen: 0 };
    }

    /// From now on nothing.
    pub(super) fn forget(&mut self) {
        self.fault = None;
    }

    /// How many calls have met it.
    pub(super) fn met(&self) -> usize {
        self.fault.map_or(0, |fault| self.seen.saturating_sub(fault.number).min(fault.times))
    }

    /// What this call meets.
    pub(super) fn meets(&mut self, call: Call) -> Option<Damage> {
        let fault = self.fault.filter(|fault| fault.call == call)?;
        let number = self.seen;
        self.seen += 1;
        (fault.number..fault.number + fault.times).contains(&number).then_some(fault.damage)
    }
}

/// Refused, or done later; with how much of its bytes is taken.
pub(super) fn suffer(damage: Option<Damage>, length: usize) -> Result<usize, Errno> {
    match damage {
        None => Ok(length),
        Some(Damage::Refused(refusal)) => Err(refusal.errno()),
        Some(Damage::Short) => Ok(length.div_ceil(2)),
        Some(Damage::Late(by)) => {
            sleep(by);
            Ok(length)
        }
    }
}
