//! `/proc/self/status` and `/proc/self/uid_map` (`proc_pid_status(5)`, `user_namespaces(7)`).

use serde::Serialize;

/// What status tells of privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(super) ids: Ids,
    pub(super) capabilities: Capabilities,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
}

/// Effective ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// Names of the capabilities in each set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// In force.
    pub effective: Vec<String>,
    /// May be put in force.
    pub permitted: Vec<String>,
    /// May pass through `execve` of a file that has them.
    pub inheritable: Vec<String>,
    /// Can ever be gained.
    pub bounding: Vec<String>,
    /// Pass through any `execve`.
    pub ambient: Vec<String>,
}

/// The filter that is there before ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seccomp {
    /// `disabled`, `strict` or `filter`; `unknown` where the kernel does not say.
    pub mode: String,
    /// How many filters; kernels before 5.9 do not say.
    pub filters: Option<u64>,
}

pub(crate) fn parse(text: &str) -> Status {
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim())
    };
    let numbers = |name: &str| field(name).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    // Real, effective, saved, file system.
    let effective = |name: &str| -> u32 { Vec::from_iter::<Vec<u32>>(numbers(name)).get(1).copied().unwrap_or(0) };
    Status {
        ids: Ids { uid: effective("Uid"), gid: effective("Gid"), groups: numbers("Groups") },
        capabilities: Capabilities {
            effective: names(field("CapEff")),
            permitted: names(field("CapPrm")),
            inheritable: names(field("CapInh")),
            bounding: names(field("CapBnd")),
            ambient: names(field("CapAmb")),
        },
        no_new_privileges: field("NoNewPrivs") == "1",
        seccomp: Seccomp {
            mode: match field("Seccomp") {
                "0" => "disabled",
                "1" => "strict",
                "2" => "filter",
                _ => "unknown",
            }
            .to_owned(),
            filters: field("Seccomp_filters").parse().ok(),
        },
    }
}

/// Hexadecimal mask to names; a bit that is newer than this program keeps its number.
fn names(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let known = caps::all();
    let name = |bit: u8| {
        let known = known.iter().find(|capability| capability.index() == bit);
        known.map_or_else(|| format!("CAP_{bit}"), ToString::to_string)
    };
    (0..64).filter(|bit| mask & (1 << bit) != 0).map(name).collect()
}

pub(crate) fn parse_uid_map(text: &str) -> Vec<[u64; 3]> {
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().ok()
    };
    text.lines().filter_map(line).collect()
}

/// Only the first namespace maps every id to itself.
pub(super) fn is_user_namespace(map: &[[u64; 3]]) -> bool {
    !map.is_empty() && map != [[0, 0, u64::from(u32::MAX)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "Name:\tsuper: visor\nPid:\t1\nUid:\t10001\t10001\t10001\t10001\nGid:\t10001\t10002\t0\t0\n\
        Groups:\t10001 20000 \nNSpid:\t812\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000020\n\
        CapEff:\t8000000000000003\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
        Seccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn a_pod_s_status_is_read() {
        let status = parse(POD);
        assert_eq!(status.ids, Ids { uid: 10001, gid: 10002, groups: vec![10001, 20000] });
        assert!(status.no_new_privileges);
        assert_eq!(status.seccomp, Seccomp { mode: "filter".into(), filters: Some(1) });
        let capabilities = status.capabilities;
        assert_eq!(capabilities.permitted, ["CAP_KILL"]);
        assert_eq!(capabilities.effective, ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_63"]);
        assert_eq!(capabilities.bounding.len(), 14);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
    }

    #[test]
    fn an_older_kernel_s_status_says_less() {
        let status = parse("Uid:\t0\t0\t0\t0\nCapEff:\t1ffffffffff\n");
        assert_eq!(status.seccomp, Seccomp { mode: "unknown".into(), filters: None });
        assert_eq!(status.capabilities.effective.len(), 41);
        assert!(!status.no_new_privileges);
        assert_eq!(parse("nonsense"), parse(""));
    }

    #[test]
    fn only_a_map_of_everything_to_itself_is_the_first_namespace() {
        let map = |text| is_user_namespace(&parse_uid_map(text));
        assert!(!map("         0          0 4294967295\n"));
        assert!(map("         0     524288      65536\n"));
        assert!(map("0 0 1\n1 1 4294967294\n"));
        assert!(!map(""), "unknown");
    }
}
