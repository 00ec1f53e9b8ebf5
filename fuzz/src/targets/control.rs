//! What supervisor and shim tell each other: frames of postcard, cut anywhere; and what the shim makes of a policy before it starts
//! anything.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use protocol::control::{Command, Decoder, Exit, Report, Scope, encode};
use protocol::guarantee::{Guarantee, State};
use protocol::policy::{
    Access, Enforcement, ExecutionClass, FileRule, Identity, Limit, Policy, Program, Resource, Session,
};
use protocol::zygote::read_answer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shim::execute::Execution;
use shim::filesystem::KNOWN_ABI;
use shim::guarantees::{Facts, refuse, standings};

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "control", longest: 4096, run, seeds };

fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let piece = usize::from(how / 3) + 1;
    match how % 3 {
        0 => messages::<Policy>(data, piece).iter().for_each(|policy| obeyed(policy, *how)),
        1 => messages::<Command>(data, piece).iter().for_each(|command| match command {
            Command::Start(policy) => obeyed(policy, *how),
            Command::Signal(_) | Command::Stop { .. } => {}
        }),
        _ => {
            messages::<Report>(data, piece);
            // To a zygote, and its answers.
            messages::<Vec<OsString>>(data, piece);
            for answer in data.as_chunks::<4>().0 {
                assert!(read_answer(*answer).map_or_else(|errno| errno >= 0, |pid| pid > 0));
            }
        }
    }
}

/// The messages in these bytes, up to what is none.
fn messages<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8], piece: usize) -> Vec<T> {
    let messages = read(data.chunks(piece));
    assert_eq!(messages, read(std::iter::once(data)), "they are others where they are cut");
    messages.iter().for_each(written);
    messages
}

fn read<'d, T: DeserializeOwned>(pieces: impl Iterator<Item = &'d [u8]>) -> Vec<T> {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
        assert!(decoder.missing().is_ok_and(|missing| missing > 0), "it waits for nothing");
    }
    messages
}

/// What was read is written so that it is read as the same, to its last byte.
fn written<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let mut frame = encode(message).expect("it came in a frame");
    let again: Vec<T> = read(std::iter::once(&frame[..]));
    assert!(matches!(&again[..], [again] if again == message), "it is read as another message");
    let longer = frame.len() as u32 - 3;
    frame[..4].copy_from_slice(&longer.to_le_bytes());
    frame.push(0);
    assert!(read::<T>(std::iter::once(&frame[..])).is_empty(), "a byte that nobody has read");
}

/// What holds before the shim starts anything, on three nodes: that has nothing, that has something, that has everything.
fn obeyed(policy: &Policy, how: u8) {
    if Execution::new(&policy.program).is_ok() {
        let Program { path, argv, env, .. } = &policy.program;
        assert!(Path::new(path).is_absolute() && !argv.is_empty());
        let mut words = argv.iter().chain(env).chain([path]);
        assert!(!words.any(|word| word.as_bytes().contains(&0)), "execve(2) takes no NUL");
    }
    let facts = |landlock_abi: u32, seccomp, capabilities, bounding_empty| {
        let facts = Facts { landlock_abi, seccomp, capabilities, bounding_empty, uid: 1000 };
        let standings = standings(&facts, policy);
        let guarantees: Vec<Guarantee> = standings.iter().map(|standing| standing.guarantee).collect();
        assert_eq!(guarantees, Guarantee::ALL, "each is told once");
        let states: Vec<State> = standings.iter().map(|standing| standing.state).collect();
        let missing = |guarantee: &Guarantee| {
            let at = guarantees.iter().position(|known| known == guarantee).expect("all of them");
            states[at] == State::Missing
        };
        let required = policy.enforcement == Enforcement::Required && policy.required.iter().any(missing);
        assert_eq!(refuse(policy, &standings).is_err(), required, "it starts without what is required");
        states
    };
    let nothing = facts(0, false, 0, false);
    let something =
        facts(u32::from(how) % (KNOWN_ABI + 1), how.is_multiple_of(2), u64::from(how), how.is_multiple_of(5));
    let everything = facts(KNOWN_ABI, true, u64::MAX, true);
    for ((nothing, something), everything) in nothing.iter().zip(&something).zip(&everything) {
        assert_ne!(*everything, State::Missing, "a node that has everything holds everything");
        assert!(*nothing != State::Holds || *something == State::Holds, "a node that has more holds less");
        assert_eq!(*nothing == State::NotAsked, *everything == State::NotAsked, "a policy asks, not a node");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let frames = |kind: u8, frames: &[Vec<u8>]| [&[kind + 3 * 20][..], &frames.concat()[..]].concat();
    let frame = |command: Command| encode(&command).expect("a small frame");
    let policies = ExecutionClass::ALL.map(policy);
    let reports = [Report::Exited(Exit::Signal(9)), Report::Orphans(3)].map(|report| encode(&report).expect("a frame"));
    let stop = |scope| Command::Stop { signal: 15, scope, grace: Duration::from_millis(2500) };
    let commands = [
        frame(Command::Start(Box::new(policy(ExecutionClass::Networked)))),
        frame(Command::Signal(1)),
        frame(stop(Scope::Main)),
        frame(stop(Scope::Tree)),
    ];
    let paths = encode(&["/usr", "/etc/ssl"].map(OsString::from).to_vec()).expect("a frame");
    let whole = policies.iter().map(|policy| frames(0, &[encode(policy).expect("a frame")]));
    let few = [
        frames(1, &commands),
        frames(2, &reports),
        frames(2, &[paths]),
        vec![0, 4, 0, 0, 0, 1, 2, 3, 4],
        vec![1, 1, 0, 0, 0, 0],
        vec![2, 0, 0, 0, 0x80],
    ];
    whole.chain(few).collect()
}

/// One that says something in each of its fields.
fn policy(class: ExecutionClass) -> Policy {
    let rule = |path: &str, access| FileRule { path: path.into(), access };
    let workspace = if class == ExecutionClass::Readonly { Access::Read } else { Access::Write };
    Policy {
        program: Program {
            path: "/usr/bin/env".into(),
            argv: ["env", "sh", "-c", "exit 3"].map(OsString::from).to_vec(),
            env: ["PATH=/usr/bin:/bin", "HOME=/home/agent"].map(OsString::from).to_vec(),
            cwd: Some("/workspace".into()),
            umask: 0o077,
        },
        session: Session::OwnTerminal,
        identity: Some(Identity { uid: 10_001, gid: 10_001, groups: vec![10_002, 10_003] }),
        limits: vec![
            Limit { resource: Resource::Nofile, soft: 1024, hard: 4096 },
            Limit { resource: Resource::Core, soft: 0, hard: u64::MAX },
        ],
        oom_score_adj: Some(500),
        nice: Some(-5),
        files: vec![rule("/usr", Access::Read), rule("/dev/null", Access::Device), rule("/workspace", workspace)],
        held: class == ExecutionClass::Local,
        class,
        connect_ports: (class == ExecutionClass::Networked).then(|| vec![443, 8080]),
        supervisor_pid: 1,
        enforcement: Enforcement::Required,
        required: Guarantee::ALL.to_vec(),
        lifeline_grace: Duration::from_secs(25),
        leftover_grace: Duration::from_millis(500),
    }
}
