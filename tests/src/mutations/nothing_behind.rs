//! Rules of the filter behind which this kernel has nothing, so that nobody gets out where they are gone. That they are
//! gone shows only the call itself: where it is marked it is let through ([`crate::sweep`]).

use shim::syscalls::profile::Architecture;

use crate::stage::Cut;
use crate::stage::weaken::Gate;

/// No kernel has these any more, or ever had: it answers ENOSYS, too.
const GONE: [&str; 17] = [
    "_sysctl",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "getpmsg",
    "lookup_dcookie",
    "nfsservctl",
    "putpmsg",
    "query_module",
    "security",
    "set_thread_area",
    "tuxcall",
    "uselib",
    "vserver",
];

/// The kernel that CI has is built without these.
const NOT_BUILT: [&str; 7] =
    ["delete_module", "finit_module", "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load"];

/// Whether that is so of what this leaves out. That kernel is built without x32, too, and the lists know every call of it.
pub(super) fn is_behind(cut: &Cut) -> bool {
    match cut {
        Cut::Gate(Gate::X32 | Gate::Unknown) => true,
        Cut::Call(number) => Architecture::NATIVE
            .calls()
            .iter()
            .any(|entry| entry.number == *number && (GONE.contains(&entry.name) || NOT_BUILT.contains(&entry.name))),
        _ => false,
    }
}
