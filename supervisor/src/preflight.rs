//! What this node gives: the facts that decide which guarantees can hold, read from the kernel and changed by nothing.
//!
//! Reading never fails as a whole: what cannot be read is absent from the answer. No secret's content is read beyond
//! its first byte, and that byte is dropped.

mod files;
mod limits;
mod render;
mod report;
pub(crate) mod status;
mod trial;

pub use files::{Access, Place};
pub use limits::Limits;
pub use render::render;
pub use report::{Report, check};
pub use status::{Capabilities, Ids, Seccomp};

// Numbers, never names: in a static binary a string would bring the resolver along.
use std::net::{Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::mounts;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `/proc`.
    pub proc: PathBuf,
    /// The supervisor's own program.
    pub binary: PathBuf,
    /// State directory.
    pub state_dir: PathBuf,
    /// Workspace.
    pub workspace: PathBuf,
    /// Directory for temporary files.
    pub tmp: PathBuf,
    /// Token file, where one is set.
    pub token_file: Option<PathBuf>,
    /// Termination log.
    pub termination_log: PathBuf,
    /// What a real launch found: the highest Landlock ABI of this kernel, 0 for none, `None` where nothing was launched.
    pub landlock_abi: Option<u32>,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// Release of the kernel.
    pub kernel: String,
    /// Landlock ABI, 0 for none.
    pub landlock_abi: Option<u32>,
    /// The filter that this process already lives under.
    pub seccomp: Seccomp,
    /// `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// All five sets of this process.
    pub capabilities: Capabilities,
    /// Effective ids.
    pub ids: Ids,
    /// `inside outside count`, one for each line of `uid_map`.
    pub uid_map: Vec<[u64; 3]>,
    /// Root here is not root on the node.
    pub user_namespace: bool,
    /// This process is PID 1 of its namespace.
    pub pid_one: bool,
    /// Limits of the container.
    pub cgroup: Limits,
    /// The mounts that matter.
    pub places: Vec<Place>,
    /// Whether the token file can be read.
    pub token_file: Option<Access>,
    /// Whether the termination log can be written.
    pub termination_log: Access,
    /// An IPv6 socket can be bound to every address.
    pub ipv6: bool,
    /// `::1` can be used.
    pub ipv6_loopback: bool,
}

/// Looks everything up.
pub fn facts(inputs: &Inputs) -> Facts {
    let text = |path: &str| std::fs::read_to_string(inputs.proc.join(path)).unwrap_or_default();
    let status = status::parse(&text("self/status"));
    let uid_map = status::parse_uid_map(&text("self/uid_map"));
    let table = mounts::read(&inputs.proc).unwrap_or_default();
    Facts {
        kernel: text("sys/kernel/osrelease").trim_end().to_owned(),
        landlock_abi: inputs.landlock_abi,
        seccomp: status.seccomp,
        no_new_privileges: status.no_new_privileges,
        capabilities: status.capabilities,
        ids: status.ids,
        user_namespace: status::is_user_namespace(&uid_map),
        uid_map,
        pid_one: std::process::id() == 1,
        cgroup: Limits::of(&Cgroup::at(Path::new("/"), &table, &text("self/cgroup"))),
        places: [
            ("supervisor", &inputs.binary),
            ("state", &inputs.state_dir),
            ("workspace", &inputs.workspace),
            ("tmp", &inputs.tmp),
        ]
        .map(|(what, path)| files::place(what, path, &table))
        .to_vec(),
        token_file: inputs.token_file.as_deref().map(files::readable),
        termination_log: files::writable(&inputs.termination_log),
        ipv6: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok(),
        ipv6_loopback: UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Inputs {
        Inputs {
            proc: "/proc".into(),
            binary: std::env::current_exe().expect("linux"),
            state_dir: "/no/such/state".into(),
            workspace: std::env::temp_dir(),
            tmp: std::env::temp_dir(),
            token_file: Some("/no/such/token".into()),
            termination_log: "/no/such/log".into(),
            landlock_abi: Some(7),
        }
    }

    #[test]
    fn this_process_s_facts_are_what_the_kernel_says_elsewhere() {
        let facts = facts(&here());
        let uname = nix::sys::utsname::uname().expect("linux");
        assert_eq!(Some(facts.kernel.as_str()), uname.release().to_str());
        assert_eq!(facts.ids.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(facts.ids.gid, nix::unistd::getegid().as_raw());
        let effective = caps::read(None, caps::CapSet::Effective).expect("linux");
        assert_eq!(facts.capabilities.effective.len(), effective.len());
        assert!(effective.iter().all(|cap| facts.capabilities.effective.contains(&cap.to_string())));
        assert!(!facts.pid_one);
    }

    #[test]
    fn what_is_missing_is_told_and_stops_nothing() {
        let facts = facts(&Inputs { proc: "/no/such/proc".into(), ..here() });
        assert_eq!((facts.kernel.as_str(), facts.places[0].mount_point.as_deref()), ("", None));
        assert!(facts.token_file.is_some_and(|access| !access.ok));
    }

    #[test]
    fn the_table_and_the_json_hold_every_fact() {
        let facts = facts(&here());
        let table = render(&facts);
        let json = serde_json::to_value(&facts).expect("plain values");
        for key in ["kernel", "landlock_abi", "seccomp", "capabilities", "cgroup", "places", "termination_log"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(table.contains(&facts.kernel) && table.contains("/no/such/token") && table.contains("workspace"));
        assert!(table.lines().all(|line| !line.ends_with(' ')), "{table}");
    }
}
