//! The lists of `profiles/`, as `build.rs` compiled them in: one decision per call, architecture, class and ABI.

use protocol::policy::ExecutionClass;

/// A processor architecture that a filter can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// All, for tests and golden files.
    pub const ALL: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

    /// The one that this binary runs on.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Architecture = Architecture::X86_64;
    /// The one that this binary runs on.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Architecture = Architecture::Aarch64;

    /// `AUDIT_ARCH_*` of linux/audit.h, as `seccomp_data.arch` has it.
    pub const fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 => 0xc000_003e,
            Architecture::Aarch64 => 0xc000_00b7,
        }
    }

    /// As in the lists.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }

    /// Every known call, in the order of the numbers.
    pub fn calls(self) -> &'static [Entry] {
        match self {
            Architecture::X86_64 => X86_64,
            Architecture::Aarch64 => AARCH64,
        }
    }
}

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs it.
    Allow,
    /// Returns this `errno` without running it.
    Errno(u16),
    /// Ends the process with `SIGSYS`.
    Kill,
}

/// One system call.
#[derive(Debug)]
pub struct Entry {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    variants: &'static [Variant],
}

#[derive(Debug)]
struct Variant {
    classes: u8,
    abi_min: u8,
    abi_max: u8,
    clauses: &'static [Clause],
}

/// One alternative of a rule: if every test holds, the action. The last clause of a rule has no test.
#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    /// What then happens.
    pub action: Action,
    /// All must hold.
    pub tests: &'static [Test],
}

/// A test on one argument.
#[derive(Debug, PartialEq, Eq)]
pub struct Test {
    /// 0 to 5.
    pub argument: u8,
    /// Whether the kernel reads 64 bits of it or 32. A filter that looks at more bits than the kernel can be passed
    /// by setting the others (CVE-2019-10063); one that looks at fewer misses some.
    pub wide: bool,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: Value,
}

/// A comparison; numbers are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Equal,
    Differs,
    /// Any bit of the value is set.
    AnyBit,
    AtMost,
    /// Equal after masking.
    Masked(u64),
}

/// A number, or one that is only known when the program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Value {
    Number(u64),
    Supervisor,
    Shim,
    Floor,
    SupervisorGroup,
    MinusSupervisorGroup,
    MinusShim,
}

impl Entry {
    /// The rule for a class under a Landlock ABI.
    pub fn rule(&self, class: ExecutionClass, landlock_abi: u32) -> &'static [Clause] {
        let bit = match class {
            ExecutionClass::Local => 1,
            ExecutionClass::Readonly => 2,
            ExecutionClass::Networked => 4,
        };
        let abi = landlock_abi.min(u32::from(u8::MAX)) as u8;
        self.variants
            .iter()
            .find(|variant| variant.classes & bit != 0 && (variant.abi_min..=variant.abi_max).contains(&abi))
            .map_or(&UNKNOWN, |variant| variant.clauses)
    }
}

/// The answer to numbers that no list knows: what an older kernel would say.
pub static UNKNOWN: [Clause; 1] = [Clause { action: Action::Errno(libc::ENOSYS as u16), tests: &[] }];

include!(concat!(env!("OUT_DIR"), "/profiles.rs"));
