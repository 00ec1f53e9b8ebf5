//! `supervisor preflight` says what there is, on stages whose every fact is known, and what does not hold.

use serde_json::{Value, json};
use tests::kernel;
use tests::scene::{CANARY, RESTRICTED_UID};
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};

fn preflight() -> Builder {
    Supervisor::new().command("preflight").unset("listen").unset("log-format").unset("grace").unset("termination-log")
}

/// Exit code and the report.
#[track_caller]
fn report(builder: Builder) -> (i32, Value) {
    let mut supervisor = builder.switch("json").start();
    let code = supervisor.wait_code();
    let out = supervisor.stdout.to_end();
    let report = serde_json::from_slice(&out);
    (code, report.unwrap_or_else(|e| panic!("{e}: {}{}", String::from_utf8_lossy(&out), supervisor.stderr.text())))
}

/// What the kernel tells of itself when it is asked without any Chaperone (landlock_create_ruleset(2), flag VERSION).
fn landlock_abi() -> i64 {
    kernel::call(libc::SYS_landlock_create_ruleset, &[0, 0, 1]).unwrap_or(0)
}

fn place<'a>(report: &'a Value, what: &str) -> &'a Value {
    let places = report["facts"]["places"].as_array().expect("a list");
    places.iter().find(|place| place["what"] == what).unwrap_or_else(|| panic!("{what} in {report}"))
}

#[test]
fn the_facts_of_a_restricted_pid_1_are_those_of_its_stage() {
    if !available(Pids::First, Profile::Restricted) {
        return;
    }
    let builder = preflight().first().profile(Profile::Restricted).tmpfs("tmpfs", 64).token();
    let tmp = builder.path("tmpfs");
    let (code, report) = report(builder.env("TMPDIR", &tmp));
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    let facts = &report["facts"];
    let uname = nix::sys::utsname::uname().expect("linux");
    assert_eq!(facts["kernel"].as_str(), uname.release().to_str());
    assert_eq!(facts["landlock_abi"].as_i64(), Some(landlock_abi()));
    assert_eq!((&facts["pid_one"], &facts["no_new_privileges"]), (&json!(true), &json!(true)));
    assert_eq!(facts["ids"], json!({"uid": RESTRICTED_UID, "gid": RESTRICTED_UID, "groups": []}));
    for set in ["effective", "permitted", "inheritable", "bounding", "ambient"] {
        assert_eq!(facts["capabilities"][set], json!([]), "{set}");
    }
    let token = &facts["token_file"];
    assert_eq!(token["ok"], true);
    assert!(token["why"].as_str().is_some_and(|why| why.contains(&format!("uid {RESTRICTED_UID}"))), "{token}");
    assert!(!report.to_string().contains(CANARY));
    let (tmp, supervisor) = (place(&report, "tmp"), place(&report, "supervisor"));
    assert_eq!((&tmp["delivery"], &tmp["fstype"]), (&json!("memory"), &json!("tmpfs")));
    assert_eq!(tmp["mount_point"].as_str(), tmp["path"].as_str());
    assert_eq!((&supervisor["exists"], &supervisor["noexec"]), (&json!(true), &json!(false)));
}

#[test]
fn the_facts_of_a_plain_process_are_what_its_parent_sees() {
    let (code, report) = report(preflight());
    assert_eq!(code, 0, "{report}");
    let facts = &report["facts"];
    assert_eq!(facts["pid_one"], false);
    let held = caps::read(None, caps::CapSet::Bounding).expect("linux");
    let told = facts["capabilities"]["bounding"].as_array().expect("a list");
    assert_eq!(told.len(), held.len());
    assert!(held.iter().all(|capability| told.contains(&json!(capability.to_string()))), "{told:?}");
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("linux");
    let numbers: Vec<u64> = map.split_ascii_whitespace().map(|word| word.parse().expect("a number")).collect();
    assert_eq!(facts["uid_map"], json!(numbers.chunks(3).collect::<Vec<_>>()));
    let ipv6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    assert_eq!(facts["ipv6_loopback"], ipv6);
    // Any call that nobody makes: what counts is the filter that this process lives under.
    let (_, filtered) = self::report(preflight().without(libc::SYS_kexec_load));
    assert_eq!(filtered["facts"]["seccomp"]["mode"], "filter");
    let count = |report: &Value| report["facts"]["seccomp"]["filters"].as_u64();
    assert_eq!(count(&filtered), count(&report).map(|filters| filters + 1));
}

#[test]
fn every_guarantee_is_told_with_the_mechanism_and_a_missing_one_fails_where_it_is_required() {
    let mut supervisor = preflight().set("enforcement", "required").start();
    assert_eq!(supervisor.wait_code(), 0, "{}", supervisor.stderr.text());
    let text = String::from_utf8_lossy(&supervisor.stdout.to_end()).into_owned();
    assert!(text.contains("token-unreadable") && text.ends_with("\nok\n"), "{text}");

    let without = || preflight().without(libc::SYS_landlock_create_ruleset);
    let missing = |report: &Value| {
        let all = report["guarantees"].as_array().expect("a list").iter();
        all.filter(|g| g["state"] == "missing").any(|g| g["guarantee"] == "files-confined")
    };
    let (code, told) = report(without().set("enforcement", "required"));
    assert_eq!((code, &told["ok"], missing(&told)), (71, &json!(false), true), "{told}");
    assert_eq!(told["facts"]["landlock_abi"], 0);
    let (code, told) = report(without().set("enforcement", "best-effort"));
    assert_eq!((code, missing(&told)), (0, true), "{told}");
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let builder = preflight();
    let (token, log) = (builder.path("no-token"), builder.path("no-log"));
    let (code, told) = report(builder.set("api-token-file", &token).set("termination-log", &log));
    assert_eq!(code, 78, "{told}");
    let facts = &told["facts"];
    for (fact, path) in [(&facts["token_file"], &token), (&facts["termination_log"], &log)] {
        assert_eq!((fact["path"].as_str(), &fact["ok"]), (path.to_str(), &json!(false)));
        assert!(fact["why"].as_str().is_some_and(|why| why.contains("No such file")), "{fact}");
    }
    assert!(told["mistakes"].to_string().contains("no-token"), "{told}");
}
