//! What each execution class may do, and the limits of one task.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use tests::binaries;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::tasks::Api;
use tests::wait::wait_until;

use super::api;

/// A task of this class that runs a script; whether it succeeded, and what it said.
fn attempt(api: &Api, class: &str, script: &str, more: Value) -> (bool, String) {
    let mut create = json!({"script": script, "execution_class": class});
    create.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let task = api.run(create);
    let id = task["task_id"].as_str().expect("an id");
    let said = [api.output(id, "stdout"), api.output(id, "stderr")].concat();
    (task["state"] == "succeeded", format!("{task}\n{}", String::from_utf8_lossy(&said)))
}

const WRITES: &[&str] = &[
    "echo x > mine",
    "echo x >> seeded",
    "chmod 0600 seeded",
    "touch -d @0 seeded",
    "rm seeded",
    "mv seeded moved",
    "ln seeded linked",
    "ln -s seeded pointed",
    "mkdir folder",
];

fn every_class_keeps_to_its_files(builder: Builder) {
    let supervisor = builder.token().start();
    let api = Api::of(&supervisor);
    let seed = || {
        let path = supervisor.paths().workspace.join("seeded");
        std::fs::write(&path, "seed").expect("our own directory");
        let owner = std::fs::metadata(&supervisor.paths().workspace).expect("our own directory").uid();
        std::os::unix::fs::chown(&path, Some(owner), None).expect("root, or our own uid");
    };
    for write in WRITES {
        seed();
        for (class, allowed) in [("readonly", false), ("local", true)] {
            let (done, said) = attempt(&api, class, write, json!({}));
            assert_eq!(done, allowed, "{class}: {write}: {said}");
        }
    }
    for class in ["local", "readonly", "networked"] {
        for (script, allowed) in [
            ("echo x > $TMPDIR/a && echo x > $TASK_ARTIFACTS/a && cat $TMPDIR/a", true),
            ("echo x > /etc/chaperone-test", false),
            ("echo x > /tmp/chaperone-test", false),
            ("mkdir $TASK_ARTIFACTS/../other", false),
            ("ls /usr", true),
        ] {
            let (done, said) = attempt(&api, class, script, json!({}));
            assert_eq!(done, allowed, "{class}: {script}: {said}");
        }
    }
    let elsewhere = json!({"env": {"HOME": "/etc"}});
    assert!(!attempt(&api, "local", "echo x > /etc/chaperone-test", elsewhere).0, "a client's HOME opens nothing");
}

#[test]
fn each_class_keeps_to_its_files() {
    every_class_keeps_to_its_files(Supervisor::new());
}

#[test]
fn each_class_keeps_to_its_files_without_any_capability() {
    if available(Pids::Host, Profile::Restricted) {
        every_class_keeps_to_its_files(Supervisor::new().profile(Profile::Restricted));
    }
}

#[test]
fn each_class_keeps_to_its_files_with_a_uid_of_its_own() {
    if available(Pids::Host, Profile::Baseline) {
        let builder = Supervisor::new().profile(Profile::Baseline);
        // The state directory is the supervisor's alone, so another uid's directories lie elsewhere.
        let directory = builder.path("tasks");
        every_class_keeps_to_its_files(builder.set("task-dir", directory));
    }
}

#[test]
fn only_networked_tasks_have_the_network_and_a_port_list_bounds_it() {
    let (_supervisor, api) = api();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let run = |class: &str, ports: Value| {
        let task = api.run(json!({"argv": ["bash", "-c", connect], "execution_class": class, "connect_ports": ports}));
        task["state"] == "succeeded"
    };
    assert!(run("networked", json!([])), "any port");
    assert!(run("networked", json!([port])), "the listed port");
    assert!(!run("networked", json!([port ^ 1])), "another port");
    assert!(!run("local", json!([])));
    assert!(!run("readonly", json!([])));
    // Not one inet socket, not only no connection.
    let probe = binaries::helper("agent");
    for class in ["local", "readonly"] {
        let task =
            api.run(json!({"argv": [probe.to_str().expect("utf-8"), "listen", "0", "200"], "execution_class": class}));
        assert_eq!(task["state"], "failed", "{class}");
    }
}

#[test]
fn limits_are_set_for_the_task() {
    let (_supervisor, api) = api();
    for (limits, script, expected) in [
        (json!({"open_files": 33}), "ulimit -n", "33\n"),
        (json!({"cpu_seconds": 7}), "ulimit -t", "7\n"),
        (json!({"memory_bytes": 100 * 1024 * 1024}), "ulimit -v", "102400\n"),
        (json!({"processes": 4000}), "ulimit -u 2>/dev/null || ulimit -p", "4000\n"),
    ] {
        let (done, said) = attempt(&api, "local", script, json!({"limits": limits}));
        assert!(done && said.ends_with(expected), "{limits}: {said}");
    }
    let (done, said) = attempt(&api, "local", "ulimit -n 99999", json!({"limits": {"open_files": 33}}));
    assert!(!done, "it cannot be raised: {said}");
    let task = api.run(json!({"script": "while :; do :; done", "limits": {"cpu_seconds": 1}}));
    assert!(task["signal"] == 24 || task["signal"] == 9, "XCPU or KILL: {task}");
    assert!(task["usage"]["user_us"].as_u64() > Some(500_000), "{task}");
}

#[test]
fn what_comes_beside_a_hidden_path_is_open_to_the_next_task_and_the_hidden_path_stays_closed() {
    let (supervisor, api) = api();
    // The state directory and the token are in this folder, so its entries are allowed one by one, and remembered once
    // the folder has not changed for a while.
    let folder = supervisor.path("");
    let changed = std::fs::metadata(&folder).and_then(|meta| meta.modified()).expect("our own directory");
    wait_until("the folder to settle", || changed.elapsed().is_ok_and(|age| age.as_secs() > 4));
    let look = |name: &str| attempt(&api, "local", &format!("cat {}", folder.join(name).display()), json!({})).0;
    for round in 0..3 {
        assert!(!look("token"));
        let name = format!("late-{round}");
        std::fs::write(folder.join(&name), "").expect("our own directory");
        assert!(look(&name), "{name}");
    }
}
