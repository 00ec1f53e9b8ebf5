//! From the start of the process to its first answer, and to the agent's first instruction.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Line, median, now_ns};
use crate::binaries;

/// Repetitions; the middle one counts.
const TIMES: usize = 101;

/// Start, interleaved with bare spawns of `true`, so that a busy machine slows all three alike.
pub fn measure() -> Vec<Line> {
    let (mut bare, mut live, mut agent, mut loading) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TIMES {
        // one each: what lies beside a hidden directory costs a rule each
        let scratch = binaries::scratch();
        let directory = scratch.path().join("volumes");
        std::fs::create_dir_all(directory.join("workspace")).expect("our own directory");
        bare.push(spawn_true());
        live.push(first_answer(&directory));
        agent.push(first_instruction(&directory));
        loading.push(exec_to_main());
    }
    let (bare, live, agent, loading) = (median(bare), median(live), median(agent), median(loading));
    println!("a bare spawn of `true` in the same run: {bare:.3} ms; start to the agent's main function {agent:.3} ms,");
    println!("of which the loader takes {loading:.3} ms, as it does without a supervisor");
    vec![
        Line::new("start to the first 200 on /livez, median", 3.0, live, "ms"),
        Line::new("the same in bare spawns of `true`", 5.0, live / bare, "spawns"),
        Line::new("start to the agent's exec, median", 5.0, agent - loading, "ms"),
    ]
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn spawn_true() -> f64 {
    let start = Instant::now();
    Command::new("/bin/true").env_clear().status().expect("/bin/true is there");
    milliseconds(start)
}

fn supervisor(directory: &std::path::Path, listen: SocketAddr, agent: &[&std::ffi::OsStr], out: Stdio) -> Child {
    let mut command = Command::new(binaries::supervisor());
    command.args(["run", "--listen", &listen.to_string(), "--grace", "1s"]);
    command.arg("--state-dir").arg(directory.join("state"));
    command.arg("--workspace").arg(directory.join("workspace"));
    command.arg("--").args(agent).env_clear().env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().expect("the supervisor starts")
}

fn first_answer(directory: &std::path::Path) -> f64 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("loopback");
    let start = Instant::now();
    let child = supervisor(directory, free, &["/bin/sleep".as_ref(), "100".as_ref()], Stdio::null());
    let mut answer = [0u8; 12];
    while !ask(free, &mut answer) {
        assert!(start.elapsed() < Duration::from_secs(10), "no answer; run `supervisor run` to see why");
        std::thread::yield_now();
    }
    let took = milliseconds(start);
    end(child);
    took
}

fn ask(address: SocketAddr, answer: &mut [u8; 12]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).is_ok() && stream.read_exact(answer).is_ok() && answer.ends_with(b"200")
}

fn first_instruction(directory: &std::path::Path) -> f64 {
    let program = binaries::helper("agent");
    let start = now_ns();
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let mut child = supervisor(directory, listen, &[program.as_os_str(), "stamp".as_ref()], Stdio::piped());
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe was asked for");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("the agent's time");
    let reached: u64 = line.trim().parse().expect("the agent printed a number");
    end(child);
    (reached - start) as f64 / 1e6
}

/// What the same program takes between exec and main: `spawn` returns when exec has succeeded.
fn exec_to_main() -> f64 {
    let mut command = Command::new(binaries::helper("agent"));
    let child = command.arg("stamp").env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let reached = now_ns();
    let mut child = child.expect("the agent starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe was asked for");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("its time");
    let _ = child.kill();
    let _ = child.wait();
    line.trim().parse::<u64>().map_or(f64::NAN, |main| main.saturating_sub(reached) as f64 / 1e6)
}

/// Its agent ends at once on TERM, and so does it.
fn end(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
}
