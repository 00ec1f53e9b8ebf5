//! Shims of tasks are forked by one zygote, and nothing but their cost depends on it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::processes;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::wait::{wait_for, wait_until};

use super::{api, supervisor};

#[track_caller]
fn zygote(supervisor: &Supervisor) -> Pid {
    wait_for("the zygote", || processes::zygote(supervisor.pid()))
}

fn succeeds(api: &Api) {
    let task = api.run(json!({"script": "echo out"}));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(api.output(task["task_id"].as_str().unwrap_or_default(), "stdout"), b"out\n");
}

#[test]
fn the_first_task_starts_the_zygote_and_all_shims_are_the_supervisors_own_children() {
    let (supervisor, api) = api();
    assert_eq!(processes::zygote(supervisor.pid()), None);
    let ids = [(); 2].map(|()| api.start(json!({"script": "sleep 1000"})));
    ids.iter().for_each(|id| drop(api.wait_state(id, "running")));
    let zygote = zygote(&supervisor);
    let children = processes::children(supervisor.pid());
    let named = |name: &str| children.iter().filter(|&&pid| processes::name(pid) == name).count();
    assert_eq!((named("shim"), named("zygote"), named("ready")), (2, 1, children.len() - 3));
    assert_eq!(processes::children(zygote), []);
    let entries = std::fs::read_dir(format!("/proc/{zygote}/fd")).expect("root may look").flatten();
    let is_open = |entry: &std::fs::DirEntry| {
        let info = std::fs::read_to_string(format!("/proc/{zygote}/fdinfo/{}", entry.file_name().display()));
        // A handle that opens nothing (O_PATH) has this digit; what most programs may read is held so.
        !info.unwrap_or_default().lines().any(|line| line.starts_with("flags:") && line.trim().ends_with("12000000"))
    };
    assert_eq!(entries.filter(is_open).count(), 4, "three standard streams and the socket of its orders");
}

#[test]
fn a_zygote_that_is_killed_costs_no_task() {
    let (supervisor, api) = api();
    let running = api.start(json!({"script": "read line; echo $line", "stdin_open": true}));
    api.wait_state(&running, "running");
    let first = zygote(&supervisor);
    kill(first, Signal::SIGKILL).expect("it is there");
    wait_until("its end", || !processes::alive(first));
    succeeds(&api);
    succeeds(&api);
    assert_ne!(zygote(&supervisor), first);
    api.call("POST", &format!("/dev-tasks/{running}/stdin"), &[], b"still here\n");
    assert_eq!(api.wait_end(&running)["state"], "succeeded");
    assert_eq!(api.output(&running, "stdout"), b"still here\n");
}

#[test]
fn a_zygote_that_does_not_answer_is_ended_and_costs_no_task() {
    let (supervisor, api) = api();
    succeeds(&api);
    let stopped = zygote(&supervisor);
    kill(stopped, Signal::SIGSTOP).expect("it is there");
    succeeds(&api);
    wait_until("its end", || !processes::alive(stopped));
    supervisor.wait_log("a shim could not be forked and is started");
    succeeds(&api);
    assert_ne!(zygote(&supervisor), stopped);
}

#[test]
fn a_ready_shim_that_is_killed_costs_no_task() {
    let (supervisor, api) = api();
    succeeds(&api);
    let ready = || -> Vec<Pid> {
        let children = processes::children(supervisor.pid());
        children.into_iter().filter(|&pid| processes::name(pid) == "ready").collect()
    };
    wait_until("two to be ready", || ready().len() == 2);
    let killed = ready();
    killed.iter().for_each(|&shim| kill(shim, Signal::SIGKILL).expect("it is there"));
    wait_until("their end", || processes::children(supervisor.pid()).iter().all(|child| !killed.contains(child)));
    succeeds(&api);
    succeeds(&api);
    wait_until("two to be ready again", || ready().len() == 2);
}

#[test]
fn what_appears_disappears_or_is_replaced_is_seen_by_the_next_task_also_when_it_was_held() {
    let (supervisor, api) = api();
    let path = supervisor.paths().state.with_file_name("beside");
    let read = || api.shell(&format!("cat {} 2>&1 || true", path.display()));
    std::fs::write(&path, "first").expect("a file");
    // Until what may be read has settled, and the shims that were forked before it had are used up.
    let held = || {
        succeeds(&api);
        let zygote = zygote(&supervisor);
        let entries = std::fs::read_dir(format!("/proc/{zygote}/fd")).expect("root may look").flatten();
        entries.filter_map(|entry| entry.path().read_link().ok()).any(|link| link == path)
    };
    wait_until("it to be held", held);
    (0..3).for_each(|_| succeeds(&api));
    assert_eq!(read(), "first");
    std::fs::write(path.with_file_name("new"), "second").expect("a file");
    std::fs::rename(path.with_file_name("new"), &path).expect("its name");
    assert_eq!(read(), "second");
    std::fs::remove_file(&path).expect("it is there");
    assert!(read().contains("No such file"));
}

#[test]
fn the_zygote_ends_with_its_supervisor() {
    let (mut supervisor, api) = api();
    succeeds(&api);
    let zygote = zygote(&supervisor);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    wait_until("its end", || !processes::alive(zygote));
}

#[test]
fn no_task_can_end_stop_or_read_the_zygote() {
    for profile in [Profile::Restricted, Profile::Baseline] {
        if !available(Pids::First, profile) {
            continue;
        }
        let supervisor = supervisor().first().profile(profile).start();
        let api = Api::of(&supervisor);
        succeeds(&api);
        let outside = zygote(&supervisor);
        let script = "z=; for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>&1)\" = zygote ] && z=${p#/proc/}; done; \
             echo \"zygote ${z:+found}\"; \
             for s in KILL STOP TERM; do kill -$s $z 2>/dev/null && echo $s; done; \
             for f in mem environ maps; do head -c 1 /proc/$z/$f >/dev/null 2>&1 && echo $f; done; \
             ls /proc/$z/fd/ >/dev/null 2>&1 && echo fd; true";
        let task = api.run(json!({"script": script}));
        assert_eq!(task["state"], "succeeded", "{task}");
        let id = task["task_id"].as_str().unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&api.output(id, "stdout")), "zygote found\n", "{profile:?}");
        assert!(processes::alive(outside));
        succeeds(&api);
        assert_eq!(zygote(&supervisor), outside);
    }
}
