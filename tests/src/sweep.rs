//! Every system call number, tried by the confined agent on the real kernel, and none of them done.
//!
//! The sixth argument of each call is a mark. A call that the shim's filter refuses is answered by it; one that it lets
//! through is caught by the stage's ([`crate::stage::Cut::Catch`]), which is milder, so the kernel asks it last
//! (seccomp(2)), and which says so. So even `exit` and `reboot` can be tried, with any arguments.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use protocol::policy::ExecutionClass;
use shim::syscalls::evaluator::{Call, evaluate};
use shim::syscalls::generator::{Program, Protected, Target, generate};
use shim::syscalls::profile::{Action, Architecture, Entry, Op, Value};

use crate::kernel::{self, MARK};
use crate::probes::{self, Outcome};
use crate::stage::weaken::CAUGHT;

/// Landlock's ABI on the kernel that CI has.
const ABI: u32 = 7;
const NUMBERS: std::ops::Range<u32> = 0..1024;
const X32: u32 = 0x4000_0000;
const HIGH: u64 = 1 << 32;
const ALLOWED: &str = "allow";

/// The kernel's own trampolines make these, so from Linux 6.14 on no filter is asked about them, and whoever else makes them
/// is ended by SIGILL.
const PAST_FILTERS: [&str; 2] = ["uretprobe", "uprobe"];

type Arguments = [u64; 5];

/// The lines of the golden file, as this process finds the kernel.
pub fn lines(class: ExecutionClass) -> Vec<String> {
    let protected = protected();
    let lists = Lists::of(class, protected);
    let found = |number: u32, arguments: Arguments| {
        let (real, listed) = (ask(number, arguments), lists.say(number, arguments));
        if real == listed { real } else { format!("{real} (the lists say {listed})") }
    };
    let mut lines = Vec::new();
    let mut unknown = Vec::new();
    for number in NUMBERS {
        if let Some(entry) = entry(number).filter(|entry| PAST_FILTERS.contains(&entry.name)) {
            lines.push(format!("{number} {}: not tried", entry.name));
            continue;
        }
        let plain = found(number, [0; 5]);
        match entry(number) {
            Some(entry) => {
                let others = variants(entry, class, &protected)
                    .into_iter()
                    .map(|(name, arguments)| (name, found(number, arguments)));
                let others: String = others
                    .filter(|(_, answer)| *answer != plain)
                    .map(|(name, answer)| format!(" {name}={answer}"))
                    .collect();
                lines.push(format!("{number} {}: {plain}{others}", entry.name));
            }
            None => unknown.push((number, plain)),
        }
    }
    lines.extend(ranges("unknown", unknown));
    lines.extend(ranges("x32", NUMBERS.map(|number| (number, found(X32 | number, [0; 5]))).collect()));
    lines.extend(ranges("i386", i386()));
    lines
}

/// Whether a call is let through that the lists refuse. What they allow is not tried.
pub fn let_through(class: ExecutionClass) -> Outcome {
    if ask(libc::SYS_getpid as u32, [0; 5]) != ALLOWED {
        return Outcome::Untried("nobody hears marked calls, so they would be done".into());
    }
    let protected = protected();
    let lists = Lists::of(class, protected);
    for number in NUMBERS.chain(NUMBERS.map(|number| X32 | number)) {
        let entry = entry(number);
        if entry.is_some_and(|entry| PAST_FILTERS.contains(&entry.name)) {
            continue;
        }
        let others = entry.into_iter().flat_map(|entry| variants(entry, class, &protected));
        for arguments in others.map(|(_, arguments)| arguments).chain([[0; 5]]) {
            if lists.say(number, arguments) != ALLOWED && ask(number, arguments) == ALLOWED {
                return Outcome::Escaped(format!("call {number:#x} with {arguments:x?} was let through"));
            }
        }
    }
    Outcome::Denied("all that the lists refuse".into())
}

/// What the shim's filter should be.
struct Lists(Program);

impl Lists {
    fn of(class: ExecutionClass, protected: Protected) -> Lists {
        Lists(generate(Architecture::NATIVE, &Target { class, landlock_abi: ABI, protected }))
    }

    fn say(&self, number: u32, [a, b, c, d, e]: Arguments) -> String {
        let arguments = [a, b, c, d, e, MARK.into()];
        let call = Call { architecture: Architecture::NATIVE.audit(), number, arguments };
        evaluate(&self.0, &call).map_or_else(|error| error.to_string(), |verdict| word(verdict.action))
    }
}

fn entry(number: u32) -> Option<&'static Entry> {
    Architecture::NATIVE.calls().iter().find(|entry| entry.number == number)
}

/// Arguments at which the rule of a call could change its mind: all ones, each value that it compares with, and the same with
/// a bit that the kernel drops where it reads 32.
fn variants(entry: &Entry, class: ExecutionClass, protected: &Protected) -> Vec<(String, Arguments)> {
    let mut all = vec![("ones".to_owned(), [u64::MAX; 5])];
    for test in entry.rule(class, ABI).iter().flat_map(|clause| clause.tests) {
        let Value::Number(number) = test.value else {
            let pid = if test.value == Value::Supervisor { protected.supervisor } else { protected.shim };
            all.extend(at(test.argument, &format!("{:?}", test.value), pid as u64));
            continue;
        };
        let values = match test.op {
            Op::AnyBit => (0..32).map(|bit| 1 << bit).filter(|bit| number & bit != 0).collect(),
            _ => vec![number],
        };
        all.extend(values.into_iter().flat_map(|value| at(test.argument, &format!("{value:#x}"), value)));
    }
    // What makes a socket is three arguments together.
    if entry.name == "socket" {
        all.extend(sockets());
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|(name, _)| seen.insert(name.clone()));
    all
}

fn at(argument: u8, name: &str, value: u64) -> [(String, Arguments); 2] {
    let with = |value| std::array::from_fn(|place| if place == usize::from(argument) { value } else { 0 });
    [(format!("{argument}:{name}"), with(value)), (format!("{argument}:2^32+{name}"), with(HIGH | value))]
}

fn sockets() -> impl Iterator<Item = (String, Arguments)> {
    (0..=46u64).flat_map(|family| {
        [(1, 0), (1, 6), (1, 262), (2, 0), (2, 17), (2, 136), (3, 0), (3, 1), (5, 0)].into_iter().flat_map(
            move |(kind, protocol)| {
                let plain = (format!("{family}/{kind}/{protocol}"), [family, kind, protocol, 0, 0]);
                let high =
                    (format!("2^32+{family}/{kind}/{protocol}"), [HIGH | family, HIGH | kind, HIGH | protocol, 0, 0]);
                [plain, high]
            },
        )
    })
}

/// Whom this process has above it.
fn protected() -> Protected {
    let target = probes::Target::look();
    let (supervisor, shim) = (target.supervisor.as_raw(), target.shim.as_raw());
    Protected::new(supervisor, supervisor, shim, nix::unistd::getpid().as_raw())
}

fn ask(number: u32, [a, b, c, d, e]: Arguments) -> String {
    let answer = kernel::call(number.into(), &[a, b, c, d, e, MARK.into()]);
    // The mark stays in its register, and the C library's own calls of fewer arguments would have it.
    let _ = kernel::call(libc::SYS_getpid, &[]);
    match answer {
        Ok(CAUGHT) => ALLOWED.to_owned(),
        Ok(answer) => format!("done, and answered {answer:#x}"),
        Err(error) => format!("{error:?}"),
    }
}

fn word(action: Action) -> String {
    match action {
        Action::Allow => ALLOWED.to_owned(),
        Action::Kill => "kill".to_owned(),
        Action::Errno(errno) => format!("{:?}", Errno::from_raw(errno.into())),
    }
}

/// Through the 32-bit gate, each number in a child of its own. Where the first one comes back, the gate is open, and the
/// others are not tried: they would be done.
fn i386() -> Vec<(u32, String)> {
    const GETPID: u32 = 20;
    let harmless = in_a_child(GETPID);
    if harmless != "kill" {
        return vec![(GETPID, harmless)];
    }
    NUMBERS.map(|number| (number, in_a_child(number))).collect()
}

fn in_a_child(number: u32) -> String {
    match kernel::fork() {
        Ok(None) => kernel::exit_now(i32::from(kernel::i386_entry(number).is_none())),
        Ok(Some(child)) => match waitpid(child, None) {
            Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => "kill".to_owned(),
            Ok(WaitStatus::Exited(_, 1)) => "no such gate".to_owned(),
            other => format!("{other:?}"),
        },
        Err(error) => format!("fork: {error}"),
    }
}

/// One line for as long as the answer stays the same.
fn ranges(what: &str, answers: Vec<(u32, String)>) -> Vec<String> {
    let mut lines: Vec<(u32, u32, String)> = Vec::new();
    for (number, answer) in answers {
        match lines.last_mut() {
            Some((_, last, same)) if *same == answer && *last + 1 == number => *last = number,
            _ => lines.push((number, number, answer)),
        }
    }
    lines.into_iter().map(|(first, last, answer)| format!("{what} {first}..={last}: {answer}")).collect()
}
