//! System calls and entries that no agent needs.

use nix::errno::Errno;
use nix::unistd::getpid;
use protocol::guarantee::Guarantee::SyscallsFiltered;
use protocol::policy::ExecutionClass::Readonly;

use super::{Outcome, Probe, call, effect, probe, reaches};
use crate::kernel::{self, address, address_mut, x86};

const SESSION_KEYRING: u64 = -3i64 as u64;

pub(super) const PROBES: &[Probe] = &[
    probe("i386-entry", SyscallsFiltered, |_| {
        // getpid has number 20 there
        match kernel::i386_entry(20) {
            Some(pid) => effect(pid == getpid().as_raw(), "a call through int 0x80"),
            None => Outcome::Untried("this architecture has no such gate".into()),
        }
    })
    .only_x86(),
    probe("x32-entry", SyscallsFiltered, |_| call(0x4000_0000 | libc::SYS_getpid, &[])).nobody("CONFIG_X86_X32 is off"),
    probe("io-uring-setup", SyscallsFiltered, |_| io_uring_setup()),
    probe("io-uring-register", SyscallsFiltered, |_| {
        reaches(kernel::call(libc::SYS_io_uring_register, &[0, 0, 0, 0]), &[Errno::EOPNOTSUPP, Errno::EBADF])
    }),
    probe("io-uring-enter", SyscallsFiltered, |_| {
        reaches(kernel::call(libc::SYS_io_uring_enter, &[0, 0, 0, 0, 0, 0]), &[Errno::EOPNOTSUPP, Errno::EBADF])
    }),
    probe("keyctl", SyscallsFiltered, |_| call(libc::SYS_keyctl, &[0, SESSION_KEYRING, 1])),
    probe("keyctl-high-bits", SyscallsFiltered, |_| call(libc::SYS_keyctl, &[1 << 32, SESSION_KEYRING, 1])),
    probe("add-key", SyscallsFiltered, |_| {
        let (kind, name) = (c"user", c"escaped");
        call(libc::SYS_add_key, &[address(kind), address(name), address("x"), 1, SESSION_KEYRING])
    }),
    probe("request-key", SyscallsFiltered, |_| {
        let answer = kernel::call(libc::SYS_request_key, &[address(c"user"), address(c"escaped"), 0, 0]);
        reaches(answer, &[Errno::from_raw(libc::ENOKEY)])
    }),
    probe("bpf-map", SyscallsFiltered, |_| {
        // BPF_MAP_CREATE of an array: type, key, value, entries (bpf(2))
        let attributes: [u32; 20] = std::array::from_fn(|i| [2, 4, 4, 1].get(i).copied().unwrap_or(0));
        call(libc::SYS_bpf, &[0, address(&attributes), 72])
    })
    .root(),
    probe("perf-event-open", SyscallsFiltered, |_| {
        // a software clock of ourselves, user mode only: kind 1, size 64 (perf_event_open(2))
        let mut attributes = [0u64; 16];
        attributes[0] = 1 | (64 << 32);
        attributes[5] = 1 << 5 | 1 << 6;
        call(libc::SYS_perf_event_open, &[address(&attributes), 0, -1i64 as u64, -1i64 as u64, 0])
    }),
    probe("userfaultfd", SyscallsFiltered, |_| call(libc::SYS_userfaultfd, &[1])),
    probe("fanotify-init", SyscallsFiltered, |_| call(libc::SYS_fanotify_init, &[0x200, 0])),
    probe("kexec-load", SyscallsFiltered, |_| call(libc::SYS_kexec_load, &[0, 1 << 20, 0, 0]))
        .nobody("CONFIG_KEXEC is off"),
    probe("init-module", SyscallsFiltered, |_| call(libc::SYS_init_module, &[0, 0, 0])).nobody("CONFIG_MODULES is off"),
    probe("reboot", SyscallsFiltered, |_| {
        // wrong magic numbers: the kernel gets past the privilege and refuses the arguments (reboot(2))
        reaches(kernel::call(libc::SYS_reboot, &[1, 2, 3, 0]), &[Errno::EINVAL])
    })
    .root(),
    probe("swapon", SyscallsFiltered, |_| {
        reaches(kernel::call(libc::SYS_swapon, &[address(c"/nowhere"), 0]), &[Errno::ENOENT])
    })
    .root(),
    probe("swapoff", SyscallsFiltered, |_| {
        reaches(kernel::call(libc::SYS_swapoff, &[address(c"/nowhere")]), &[Errno::ENOENT])
    })
    .root(),
    probe("acct", SyscallsFiltered, |_| {
        reaches(kernel::call(libc::SYS_acct, &[address(c"/nowhere")]), &[Errno::ENOENT])
    })
    .root(),
    probe("quotactl", SyscallsFiltered, |_| {
        // Q_SYNC of a device that is not there
        let command = (0x80_0001u64 << 8) & 0xffff_ffff;
        let answer = kernel::call(libc::SYS_quotactl, &[command, address(c"/nowhere"), 0, 0]);
        reaches(answer, &[Errno::ENOENT, Errno::ENOTBLK, Errno::EINVAL])
    }),
    probe("personality-read-implies-exec", SyscallsFiltered, |_| call(libc::SYS_personality, &[0x040_0000])),
    probe("modify-ldt", SyscallsFiltered, |_| {
        let mut buffer = [0u8; 64];
        call(x86::MODIFY_LDT, &[0, address_mut(&mut buffer), 64])
    })
    .only_x86(),
    probe("kernel-log", SyscallsFiltered, |_| {
        let mut buffer = [0u8; 64];
        call(libc::SYS_syslog, &[3, address_mut(&mut buffer), 64])
    })
    .root(),
    probe("vhangup", SyscallsFiltered, |_| call(libc::SYS_vhangup, &[])).root(),
    probe("settimeofday", SyscallsFiltered, |_| {
        // no time and no zone: only the privilege is judged
        call(libc::SYS_settimeofday, &[0, 0])
    })
    .root(),
    probe("clock-adjtime", SyscallsFiltered, |_| {
        // an impossible tick: EINVAL comes after the privilege (adjtimex(2))
        let mut timex = [0u64; 26];
        timex[0] = 0x4000;
        reaches(kernel::call(libc::SYS_clock_adjtime, &[0, address_mut(&mut timex)]), &[Errno::EINVAL])
    })
    .root(),
    // elsewhere an agent may trace its own children, as debuggers do
    probe("readonly-ptrace-traceme", SyscallsFiltered, |_| call(libc::SYS_ptrace, &[0, 0, 0, 0])).class(Readonly),
    probe("move-pages-of-shim", SyscallsFiltered, |t| {
        call(libc::SYS_move_pages, &[t.shim.as_raw() as u64, 0, 0, 0, 0, 0])
    }),
    probe("migrate-pages-of-shim", SyscallsFiltered, |t| {
        let nodes = 1u64;
        call(libc::SYS_migrate_pages, &[t.shim.as_raw() as u64, 2, address(&nodes), address(&nodes)])
    }),
];

/// Shared with the probe that would read the token by it.
pub(super) fn io_uring_setup() -> Outcome {
    let mut parameters = [0u32; 30];
    call(libc::SYS_io_uring_setup, &[1, address_mut(&mut parameters)])
}
