//! The facts as a table for people.

use super::{Access, Facts, Place};

/// Two columns, then the mounts.
pub fn render(facts: &Facts) -> String {
    let caps = &facts.capabilities;
    let group = &facts.cgroup;
    let mut rows = vec![
        ("kernel", facts.kernel.clone()),
        (
            "landlock",
            facts
                .landlock_abi
                .map_or("not tried".into(), |abi| if abi == 0 { "none".into() } else { format!("ABI {abi}") }),
        ),
        (
            "seccomp",
            facts
                .seccomp
                .filters
                .map_or(facts.seccomp.mode.clone(), |count| format!("{}, {count} in force", facts.seccomp.mode)),
        ),
        ("no_new_privs", yes(facts.no_new_privileges)),
        ("capabilities, effective", list(&caps.effective)),
        ("capabilities, permitted", list(&caps.permitted)),
        ("capabilities, inheritable", list(&caps.inheritable)),
        ("capabilities, bounding", list(&caps.bounding)),
        ("capabilities, ambient", list(&caps.ambient)),
        ("uid, gid, groups", format!("{}, {}, {:?}", facts.ids.uid, facts.ids.gid, facts.ids.groups)),
        ("user namespace", yes(facts.user_namespace)),
        ("pid 1", yes(facts.pid_one)),
        ("cgroup", group.version.map_or("none mounted".into(), |version| format!("version {version}"))),
        ("memory", format!("{} of {}", bytes(group.memory_current, "unknown"), bytes(group.memory_max, "no limit"))),
        ("processes", group.pids_max.map_or("no limit".into(), |max| max.to_string())),
        ("cpus", group.cpus.map_or("no limit".into(), |cpus| format!("{cpus:.2}"))),
        ("ipv6", format!("sockets {}, loopback {}", yes(facts.ipv6), yes(facts.ipv6_loopback))),
        ("token file", facts.token_file.as_ref().map_or("not set".into(), |token| access(token, "readable"))),
        ("termination log", access(&facts.termination_log, "writable")),
    ];
    if let Some(all) = group.oom_kills_all {
        rows.push(("out of memory", if all { "ends the whole container" } else { "ends one process" }.into()));
    }
    rows.extend(facts.places.iter().map(|place| (place.what.as_str(), describe(place))));
    rows.iter().map(|(name, value)| format!("{name:<26} {value}").trim_end().to_owned() + "\n").collect()
}

fn describe(place: &Place) -> String {
    let flags = [
        (!place.exists, "missing"),
        (place.read_only, "read-only"),
        (place.noexec, "noexec"),
        (place.nosuid, "nosuid"),
        (place.nodev, "nodev"),
    ];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| format!(", {name}")).collect();
    let mount = place.mount_point.as_ref().map_or("no mount known".into(), |at| format!("on {}", at.display()));
    format!("{} {mount} ({} {}{flags})", place.path.display(), place.delivery, place.fstype)
}

fn access(access: &Access, what: &str) -> String {
    let why = if access.why.is_empty() { String::new() } else { format!(" ({})", access.why) };
    format!("{} {}{what}{why}", access.path.display(), if access.ok { "" } else { "not " })
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn bytes(count: Option<u64>, otherwise: &str) -> String {
    count.map_or_else(|| otherwise.to_owned(), |count| format!("{:.1} MiB", count as f64 / f64::from(1 << 20)))
}
