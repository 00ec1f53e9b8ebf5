//! Which paths, ports and processes the program can reach: its Landlock domain, and the shim's own around it.
//!
//! A domain only allows; what no rule names is closed. Every access right of the ABI that both kernel and crate know
//! is handled, none is degraded silently: below an ABI, what is missing shows in [`crate::guarantees`].

use std::ffi::OsString;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use protocol::control::{Failure, Step};
use protocol::policy::{Access, ExecutionClass, FileRule, Policy};

use crate::failure::{because, failed};

mod place;

use place::{Kernels, Place};

/// The highest ABI that this build knows.
pub const KNOWN_ABI: u32 = ABI::V9 as u32;
/// Landlock itself.
pub const FIRST_ABI: u32 = ABI::V1 as u32;
/// From here on truncation is an access right.
pub const TRUNCATE_ABI: u32 = ABI::V3 as u32;
/// From here on TCP ports can be listed.
pub const PORTS_ABI: u32 = ABI::V4 as u32;
/// From here on signals and abstract sockets can be kept inside.
pub const SCOPE_ABI: u32 = ABI::V6 as u32;

/// The shim's own domain: no path and no port, only a closed scope, so that `kill(-1)` means its tree. Call it with
/// `abi` at or above [`SCOPE_ABI`].
///
/// Every domain denies moving and linking between directories unless a rule allows it, also one that handles no file
/// access at all (landlock(7), `LANDLOCK_ACCESS_FS_REFER`), so this one allows it everywhere: what may be moved where is
/// the program's own domain's business.
pub fn enclose_tree(abi: u32) -> Result<(), Failure> {
    let root = openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(because(Step::Landlock, "/, the root of the tree's own domain"))?;
    let enter = || {
        ruleset()
            .handle_access(AccessFs::Refer)?
            .scope(Scope::from_all(known(abi)))?
            .create()?
            .add_rule(PathBeneath::new(root, AccessFs::Refer))?
            .restrict_self()?;
        Ok::<_, landlock::RulesetError>(())
    };
    enter().map_err(|error| refused("the tree's own domain", &error))
}

/// Places that a zygote holds open for those who may read them.
#[derive(Default)]
pub struct Held(Vec<Place>);

impl Held {
    /// What these paths mean now, as when a rule names them.
    pub fn open(paths: &[OsString]) -> Result<Held, Failure> {
        let open = |path: &OsString| place::open(Path::new(path)).map_err(|errno| unreadable(Path::new(path), errno));
        paths.iter().filter_map(|path| open(path).transpose()).collect::<Result<_, _>>().map(Held)
    }
}

/// The program's domain. Below [`FIRST_ABI`] there is none.
pub fn confine(policy: &Policy, held: &Held, abi: u32) -> Result<(), Failure> {
    if abi < FIRST_ABI {
        return Ok(());
    }
    let mut domain = domain(policy, abi).map_err(|error| refused("making the domain", &error))?;
    for place in held.0.iter().filter(|_| policy.held) {
        domain = add(domain, place, Access::Read, known(abi))
            .map_err(|error| refused("allowing what most may read", &error))?;
    }
    let kernels = Kernels::look();
    for rule in &policy.files {
        domain = allow(domain, rule, &kernels, known(abi))?;
    }
    domain.restrict_self().map_err(|error| refused("entering the domain", &error))?;
    Ok(())
}

fn domain(policy: &Policy, abi: u32) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut ruleset = ruleset().handle_access(AccessFs::from_all(known(abi)))?;
    if abi >= SCOPE_ABI {
        ruleset = ruleset.scope(Scope::from_all(known(abi)))?;
    }
    match (&policy.connect_ports, policy.class) {
        (Some(ports), ExecutionClass::Networked) if abi >= PORTS_ABI => {
            let domain = ruleset.handle_access(AccessNet::ConnectTcp)?.create()?;
            ports.iter().try_fold(domain, |domain, &port| domain.add_rule(NetPort::new(port, AccessNet::ConnectTcp)))
        }
        _ => ruleset.create(),
    }
}

/// Without this the crate would leave out in silence what the kernel lacks.
fn ruleset() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

fn known(abi: u32) -> ABI {
    ABI::from(i32::try_from(abi).unwrap_or(i32::MAX))
}

fn allow(domain: RulesetCreated, rule: &FileRule, kernels: &Kernels, abi: ABI) -> Result<RulesetCreated, Failure> {
    let path = Path::new(&rule.path);
    let Some(place) = place::open(path).map_err(|errno| unreadable(path, errno))? else { return Ok(domain) };
    // The supervisor refuses to be configured so; here the path may have become what it is since.
    if rule.access != Access::Read && kernels.own(&place).map_err(|errno| unreadable(path, errno))? {
        return Ok(domain);
    }
    add(domain, &place, rule.access, abi).map_err(|error| refused(&format!("allowing {}", path.display()), &error))
}

fn add(
    domain: RulesetCreated,
    place: &Place,
    access: Access,
    abi: ABI,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut access = rights(access, abi);
    if !place.is_directory() {
        access &= AccessFs::from_file(abi);
    }
    domain.add_rule(PathBeneath::new(&place.handle, access))
}

fn unreadable(path: &Path, errno: Errno) -> Failure {
    because(Step::Landlock, format!("{}, a path of the confinement", path.display()))(errno)
}

fn rights(access: Access, abi: ABI) -> BitFlags<AccessFs> {
    let read = AccessFs::from_read(abi);
    let all = AccessFs::from_all(abi);
    match access {
        Access::Read => read,
        Access::Device => {
            let device = AccessFs::ReadFile
                | AccessFs::ReadDir
                | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::IoctlDev
                | AccessFs::ResolveUnix;
            device & all
        }
        Access::Write => all,
    }
}

fn refused(what: &str, error: &landlock::RulesetError) -> Failure {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    failed(Step::Landlock, errno, format!("Landlock: {what}: {error}"))
}
