//! Rules whose absence no probe on this machine can see, each with its reason: either they are one of two, or what they keep
//! out is not in this kernel. All of the filter's are in `shim/profiles/golden`, whose test sees each of them gone.

const GONE: &str = "the kernel has no such call any more, or never had: it answers ENOSYS, too";
const NOT_BUILT: &str = "this kernel is built without it";
const WRAPPED: &str =
    "says something beside the next rule only where pids have begun again from below (shim/tests/filter.rs)";

/// Beginnings of what is gone, and why nobody sees it.
pub(super) const KNOWN: &[(&str, &str)] = &[
    ("gate:x32", "this kernel is built without x32 and answers ENOSYS, too"),
    ("gate:unknown", "the lists know every call of this kernel"),
    ("networked _sysctl:", GONE),
    ("networked afs_syscall:", GONE),
    ("networked create_module:", GONE),
    ("networked epoll_ctl_old:", GONE),
    ("networked epoll_wait_old:", GONE),
    ("networked get_kernel_syms:", GONE),
    ("networked get_thread_area:", GONE),
    ("networked getpmsg:", GONE),
    ("networked lookup_dcookie:", GONE),
    ("networked nfsservctl:", GONE),
    ("networked putpmsg:", GONE),
    ("networked query_module:", GONE),
    ("networked security:", GONE),
    ("networked set_thread_area:", GONE),
    ("networked tuxcall:", GONE),
    ("networked uselib:", GONE),
    ("networked vserver:", GONE),
    ("networked delete_module:", NOT_BUILT),
    ("networked finit_module:", NOT_BUILT),
    ("networked init_module:", NOT_BUILT),
    ("networked ioperm:", NOT_BUILT),
    ("networked iopl:", NOT_BUILT),
    ("networked kexec_file_load:", NOT_BUILT),
    ("networked kexec_load:", NOT_BUILT),
    ("networked sched_setaffinity: refused if argument 0 Equal Shim", WRAPPED),
    ("networked sched_setaffinity: refused if argument 0 Equal Supervisor", WRAPPED),
    ("Landlock EXECUTE", "whatever may be read may be executed, and what may not be read cannot (READ_FILE is tried)"),
    (
        "Landlock REFER",
        "every domain refuses moves between directories that no rule allows, whether it says so or not (landlock(7))",
    ),
    (
        "ambient capabilities",
        "the kernel takes from the ambient set what leaves the permitted one (capabilities(7)), which is tried",
    ),
    (
        "inherited descriptors are closed",
        "the supervisor opens everything close-on-exec, and the program's are closed again, which is tried",
    ),
    ("no core file of the shim", "it inherits the limit of the supervisor, which is 0 already"),
];

/// Why nobody sees that this is gone.
pub(super) fn reason(what: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| what.starts_with(known)).map(|(_, reason)| *reason)
}
