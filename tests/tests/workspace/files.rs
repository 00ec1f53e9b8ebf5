//! The file API and artifacts: what is asked for, never what is behind a link.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::processes;
use tests::wait::wait_until;

use super::{api, run};

fn paths(listing: &Value) -> Vec<&str> {
    listing["entries"].as_array().expect("a listing").iter().filter_map(|e| e["path"].as_str()).collect()
}

#[test]
fn a_file_is_written_read_looked_at_listed_and_removed() {
    let (supervisor, api) = api();
    assert_eq!(api.call("PUT", "/files/a/b/c%20d.txt", &[], b"x").status(), 404, "no parents unless asked for");
    let written = api.call("PUT", "/files/a/b/c%20d.txt?parents=true&mode=755", &[], b"0123456789");
    assert_eq!(written.status(), 200, "{}", written.json());
    assert_eq!(fs::read(supervisor.paths().workspace.join("a/b/c d.txt")).expect("written"), b"0123456789");
    let stat = api.get("/files/a/b/c%20d.txt?stat").json();
    assert_eq!((&stat["type"], &stat["size"], &stat["mode"]), (&json!("file"), &json!(10), &json!("0755")), "{stat}");
    assert_eq!(api.get("/files/a/b/c%20d.txt").body, b"0123456789");
    assert_eq!(paths(&api.get("/files?list").json()), ["a"]);
    assert_eq!(paths(&api.get("/files/?list&recursive").json()), ["a", "a/b", "a/b/c d.txt"]);
    assert_eq!(paths(&api.get("/files/a?list").json()), ["a/b"]);
    assert_eq!(api.call("DELETE", "/files/a", &[], b"").status(), 409, "not empty");
    assert_eq!(api.call("DELETE", "/files/a/b/c%20d.txt", &[], b"").status(), 204);
    assert_eq!(api.call("DELETE", "/files/a/b", &[], b"").status(), 204);
    assert_eq!(api.get("/files/a/b?stat").status(), 404);
}

#[test]
fn ranges_are_answered_as_http_says() {
    let (_supervisor, api) = api();
    api.call("PUT", "/files/f", &[], b"0123456789");
    for (range, status, body, says) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=8-", 206, "89", "bytes 8-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=0-99", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=1-2,4-5", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let answer = api.call("GET", "/files/f", &[("Range", range)], b"");
        assert_eq!((answer.status(), answer.header("content-range")), (status, says), "{range}");
        assert_eq!(String::from_utf8_lossy(&answer.body), body, "{range}");
    }
    let beyond = api.call("GET", "/files/f", &[("Range", "bytes=10-")], b"");
    assert_eq!((beyond.status(), beyond.header("content-range")), (416, "bytes */10"));
}

#[test]
fn names_may_be_any_bytes() {
    let (_supervisor, api) = api();
    let name = "/files/%FF%22%5C%0A";
    assert_eq!(api.call("PUT", name, &[], b"odd").status(), 200);
    assert_eq!(api.get(name).body, b"odd");
    let listing = api.get("/files?list").json();
    assert_eq!(listing["entries"][0]["path_b64"], super::base64(b"\xff\"\\\n"), "{listing}");
}

#[test]
fn pages_have_everything_once() {
    let (supervisor, api) = api();
    let mut all: Vec<String> = Vec::new();
    for directory in ["a", "a.b", "a/c", "b"] {
        fs::create_dir_all(supervisor.paths().workspace.join(directory)).expect("ours");
        all.push(directory.into());
        for name in ["x", "y"] {
            fs::write(supervisor.paths().workspace.join(directory).join(name), "").expect("ours");
            all.push(format!("{directory}/{name}"));
        }
    }
    for limit in 1..6 {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/files?list&recursive&limit={limit}{after}")).json();
            seen.extend(paths(&page).iter().map(|p| p.to_string()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let mut sorted = seen.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), seen.len(), "twice: {seen:?}");
        all.sort();
        assert_eq!(sorted, all, "limit {limit}");
    }
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let (_supervisor, api) = api();
    for (method, path, status) in [
        ("GET", "/files/..%2Fx", 400),
        ("GET", "/files/a%00b", 400),
        ("GET", "/files/a%2", 400),
        ("GET", "/files/%2Fetc/passwd", 400),
        ("GET", "/files/none", 404),
        ("GET", "/files", 400),
        ("GET", "/files?list&limit=0", 400),
        ("GET", "/files?what=1", 400),
        ("PUT", "/files/x?mode=4755", 400),
        ("PUT", "/files/x?mode=abc", 400),
        ("DELETE", "/files/none", 404),
        ("POST", "/files/x", 405),
        ("GET", "/dev-tasks/none/artifacts", 404),
        ("GET", "/dev-tasks/none/diff", 404),
        ("GET", "/dev-tasks/none/workspace", 404),
        ("POST", "/dev-tasks/none/patch/approve", 400),
    ] {
        let answer = api.call(method, path, &[], b"");
        assert_eq!(answer.status(), status, "{method} {path}: {}", answer.json());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
    }
    let closed = api.with_token(None);
    for path in ["/files/x", "/files?list", "/dev-tasks/x/artifacts", "/dev-tasks/x/diff", "/dev-tasks/x/workspace"] {
        assert_eq!(closed.get(path).status(), 401, "{path}");
    }
    assert_eq!(closed.call("PUT", "/workspace-archives/x", &[], b"x").status(), 401);
}

#[test]
fn links_that_an_agent_planted_lead_nowhere() {
    let (supervisor, api) = api();
    let outside = supervisor.path("outside");
    fs::create_dir(&outside).expect("ours");
    fs::write(outside.join("secret"), "secret").expect("ours");
    let script = format!(
        "ln -s {0} dir; ln -s {0}/secret file; ln -s /proc/self/root proc; mkfifo fifo; mkdir in; ln -s ../../outside in/up",
        outside.display()
    );
    api.shell(&script);
    for path in ["dir/secret", "file", "proc/etc/passwd", "in/up/secret", "fifo"] {
        let answer = api.get(&format!("/files/{path}"));
        assert!(matches!(answer.status(), 403 | 404 | 500), "{path}: {}", answer.status());
        assert!(!String::from_utf8_lossy(&answer.body).contains("root:"), "{path}");
    }
    for path in ["dir/new", "proc/tmp/new", "in/up/new"] {
        assert_eq!(api.call("PUT", &format!("/files/{path}?parents"), &[], b"x").status(), 403, "{path}");
    }
    assert_eq!(api.call("DELETE", "/files/dir/secret", &[], b"").status(), 403);
    assert_eq!(fs::read_dir(&outside).expect("ours").count(), 1);
    // The link itself is a name like any other.
    assert_eq!(api.call("PUT", "/files/file", &[], b"mine").status(), 200);
    assert_eq!(api.call("DELETE", "/files/dir", &[], b"").status(), 204);
    assert_eq!(fs::read(outside.join("secret")).expect("untouched"), b"secret");
    assert_eq!(api.get("/files/file").body, b"mine");
}

#[test]
fn a_directory_that_is_swapped_for_a_link_meanwhile_never_leads_out() {
    let (supervisor, api) = api();
    let outside = supervisor.path("outside");
    fs::create_dir(&outside).expect("ours");
    fs::write(outside.join("file"), "outside").expect("ours");
    std::os::unix::fs::chown(&outside, Some(10001), None).expect("ours");
    let script = format!(
        "mkdir d; echo -n inside > d/file; ln -s {} link; echo up; while :; do mv -T d aside; mv -T link d; mv -T d link; mv -T aside d; done",
        outside.display()
    );
    let id = api.start(json!({"script": script}));
    // Until then the file may be there without its bytes.
    api.wait_output(&id, "up");
    let until = Instant::now() + Duration::from_secs(3);
    let (mut inside, mut refused) = (0, 0);
    while Instant::now() < until {
        let answer = api.get("/files/d/file");
        match answer.status() {
            200 => {
                assert_eq!(answer.body, b"inside");
                inside += 1;
            }
            _ => refused += 1,
        }
        api.call("PUT", "/files/d/planted", &[], b"x");
    }
    api.post(&format!("/dev-tasks/{id}/cancel?wait=60s"), "");
    assert!(!outside.join("planted").exists());
    assert_eq!(fs::read_dir(&outside).expect("ours").count(), 1);
    assert!(inside + refused > 0);
}

#[test]
fn a_write_that_is_broken_off_changes_nothing() {
    use std::io::Write;
    let (supervisor, api) = api();
    api.call("PUT", "/files/f", &[], b"old");
    let mut stream = std::net::TcpStream::connect(api.address).expect("it listens");
    let head =
        "PUT /files/f HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer CANARY-5f2b8c\r\nContent-Length: 1000\r\n\r\nnew";
    stream.write_all(head.as_bytes()).expect("taken");
    let workers = || processes::trees(supervisor.pid()).len();
    // Only once it has left the shim's program, whose name it begins with, behind.
    let confined = |pid: &nix::unistd::Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        ["Name:\tsupervisor", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"]
            .iter()
            .all(|line| status.contains(line))
    };
    wait_until("a confined worker", || processes::descendants(supervisor.pid()).iter().any(confined));
    drop(stream);
    wait_until("the worker's end", || workers() == 0);
    assert_eq!(api.get("/files/f").body, b"old");
    assert_eq!(paths(&api.get("/files?list").json()), ["f"], "nothing half-written is left");
}

#[test]
fn a_reader_that_goes_away_or_stops_keeps_no_worker_and_no_memory() {
    let (supervisor, api) = api();
    api.shell("head -c 200000000 /dev/zero > large");
    let (head, body) = api.open("GET", "/files/large", &[], b"").expect("an answer");
    assert_eq!(head.headers["content-length"], "200000000");
    let rss = || run("/".as_ref(), "ps", &["-o", "rss=", "-p", &supervisor.pid().to_string()]);
    let kib: u64 = String::from_utf8_lossy(&rss()).trim().parse().expect("a number");
    assert!(kib < 100_000, "{kib} KiB while a reader of 200 MB stands still");
    assert_eq!(api.get("/readyz").status(), 200);
    drop(body);
    wait_until("the worker's end", || processes::trees(supervisor.pid()).is_empty());
}

#[test]
fn artifacts_are_listed_fetched_and_packed() {
    let (supervisor, api) = api();
    let script = "cd $TASK_ARTIFACTS; mkdir d; echo one > d/one; echo two > two; ln -s /etc/passwd out; mkfifo p";
    let task = api.run(json!({"task_id": "t", "script": script}));
    assert_eq!(task["state"], "succeeded", "{task}");
    let listing = api.get("/dev-tasks/t/artifacts").json();
    assert_eq!(paths(&listing), ["d", "d/one", "out", "p", "two"]);
    assert_eq!(api.get("/dev-tasks/t/artifacts/d/one").body, b"one\n");
    assert_eq!(api.call("GET", "/dev-tasks/t/artifacts/two", &[("Range", "bytes=1-")], b"").body, b"wo\n");
    for path in ["out", "p", "none", "d"] {
        assert_ne!(api.get(&format!("/dev-tasks/t/artifacts/{path}")).status(), 200, "{path}");
    }
    let tar = api.get("/dev-tasks/t/artifacts?format=tar");
    assert_eq!((tar.status(), tar.header("content-type")), (200, "application/x-tar"));
    fs::write(supervisor.path("a.tar"), &tar.body).expect("ours");
    let names = run(&supervisor.path(""), "tar", &["-tf", "a.tar"]);
    assert_eq!(String::from_utf8_lossy(&names), "d\nd/one\nout\ntwo\n");
    assert_eq!(api.get("/dev-tasks/t/artifacts?format=zip").status(), 400);
    assert_eq!(api.get("/dev-tasks/t/diff").status(), 409, "it was not seeded");
}

#[test]
fn many_at_once_are_all_answered_or_told_to_come_again() {
    let (_supervisor, api) = api();
    api.call("PUT", "/files/f", &[], b"content");
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let api = api.clone();
            thread::spawn(move || api.get("/files/f"))
        })
        .collect();
    for client in clients {
        let answer = client.join().expect("a client");
        match answer.status() {
            200 => assert_eq!(answer.body, b"content"),
            status => assert_eq!((status, answer.header("retry-after")), (429, "1")),
        }
    }
}
