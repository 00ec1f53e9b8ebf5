//! A profile to a BPF program: a balanced tree over ranges of numbers.
//!
//! The kernel runs a new filter once per system call number to find the calls that it always allows, so a chain of
//! comparisons costs 0.8 ms at every launch; a tree costs its depth. Neighbouring numbers with one rule are one
//! range. Argument tests stand at the leaves, where the number is no longer needed.
//!
//! BPF's conditional jumps reach 255 instructions; longer ones go over an unconditional jump, which has 32 bits.

use protocol::policy::ExecutionClass;
use seccompiler::sock_filter as Instruction;

use super::profile::{Action, Architecture, Clause, Op, Test, UNKNOWN, Value};

/// A BPF program, ready to be installed.
pub type Program = Vec<Instruction>;

/// What a filter is made for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Network and workspace class.
    pub class: ExecutionClass,
    /// Landlock's ABI, 0 for none: below some numbers the filter closes what Landlock does not see.
    pub landlock_abi: u32,
    /// Ids that rules speak of.
    pub protected: Protected,
}

/// The ids of those who must not be reached.
#[derive(Clone, Copy, Debug)]
pub struct Protected {
    /// The supervisor's pid.
    pub supervisor: i32,
    /// The supervisor's process group; 0 where it is not known, because it is another PID namespace's. No process in
    /// here can name that one, so it protects nothing then: 0 in a call means the caller's own.
    pub supervisor_group: i32,
    /// The shim's pid.
    pub shim: i32,
    /// Ids up to this one are older than the program: no thread of its own has one, threads that the supervisor
    /// started earlier do. Ids are given out upwards (pid_namespaces(7)), so it is the shim's pid unless they have
    /// just begun again from below.
    pub floor: i32,
}

impl Protected {
    /// For a program with pid `program` under the shim `shim`.
    pub fn new(supervisor: i32, supervisor_group: i32, shim: i32, program: i32) -> Protected {
        Protected { supervisor, supervisor_group, shim, floor: shim.min(program - 1) }
    }

    fn number(&self, value: Value) -> u64 {
        let pid = match value {
            Value::Number(number) => return number,
            Value::Supervisor => self.supervisor,
            Value::Shim => self.shim,
            Value::Floor => self.floor,
            Value::SupervisorGroup | Value::MinusSupervisorGroup if self.supervisor_group == 0 => NOBODY,
            Value::SupervisorGroup => self.supervisor_group,
            Value::MinusSupervisorGroup => -self.supervisor_group,
            Value::MinusShim => -self.shim,
        };
        u64::from(pid as u32)
    }
}

/// What is neither a process nor a group, with a minus or without: kill(2) and setpgid(2) refuse it.
const NOBODY: i32 = i32::MIN;

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const LONGEST: usize = 4096;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The filter for one architecture. Any other architecture's calls end the process: nothing that this filter was
/// made for enters the kernel that way, and numbers mean something else there.
pub fn generate(architecture: Architecture, target: &Target) -> Program {
    let mut ranges: Vec<(u32, &[Clause])> = vec![(0, &UNKNOWN)];
    let mut next = 0;
    for call in architecture.calls() {
        if call.number > next {
            begin(&mut ranges, next, &UNKNOWN);
        }
        begin(&mut ranges, call.number, call.rule(target.class, target.landlock_abi));
        next = call.number + 1;
    }
    // Everything above, x32's numbers (from 0x4000_0000) included.
    begin(&mut ranges, next, &UNKNOWN);

    let mut program =
        vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, architecture.audit(), 1, 0), answer(Action::Kill), load(NUMBER)];
    program.extend(tree(&ranges, &target.protected));
    program
}

/// From `number` on, `rule` holds; the same rule as before, or a range that would be empty, is no new range.
fn begin<'a>(ranges: &mut Vec<(u32, &'a [Clause])>, number: u32, rule: &'a [Clause]) {
    if ranges.last().is_some_and(|(start, _)| *start == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, before)| *before != rule) {
        ranges.push((number, rule));
    }
}

fn tree(ranges: &[(u32, &[Clause])], protected: &Protected) -> Program {
    if let [(_, rule)] = ranges {
        return leaf(rule, protected);
    }
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let pivot = above[0].0;
    let below = tree(below, protected);
    let mut program = Vec::new();
    match u8::try_from(below.len()) {
        Ok(distance) => program.push(jump(libc::BPF_JGE, pivot, distance, 0)),
        Err(_) => {
            program.push(jump(libc::BPF_JGE, pivot, 0, 1));
            program.push(instruction(libc::BPF_JMP | libc::BPF_JA, below.len() as u32));
        }
    }
    program.extend(below);
    program.extend(tree(above, protected));
    program
}

fn leaf(rule: &[Clause], protected: &Protected) -> Program {
    let mut program = Vec::new();
    for clause in rule {
        let start = program.len();
        for test in clause.tests {
            program.extend(argument(test, protected.number(test.value)));
        }
        program.push(answer(clause.action));
        let end = program.len();
        for (place, instruction) in program.iter_mut().enumerate().skip(start) {
            settle(instruction, end - place - 1);
        }
    }
    program
}

/// A jump to the next clause, whose distance is not known while its test is written. No clause is that long.
const NEXT_CLAUSE: u8 = u8::MAX;

fn settle(instruction: &mut Instruction, distance: usize) {
    for offset in [&mut instruction.jt, &mut instruction.jf] {
        if *offset == NEXT_CLAUSE {
            *offset = distance as u8;
        }
    }
}

fn argument(test: &Test, value: u64) -> Program {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // seccomp(2): `args` begins at byte 16, each 8 bytes; both architectures are little-endian.
    let low_word = load(16 + 8 * u32::from(test.argument));
    let high_word = load(20 + 8 * u32::from(test.argument));
    match (test.op, test.wide) {
        (Op::Equal, false) => vec![low_word, jump(libc::BPF_JEQ, low, 0, NEXT_CLAUSE)],
        (Op::Differs, false) => vec![low_word, jump(libc::BPF_JEQ, low, NEXT_CLAUSE, 0)],
        (Op::AnyBit, false) => vec![low_word, jump(libc::BPF_JSET, low, 0, NEXT_CLAUSE)],
        (Op::AtMost, _) => vec![low_word, jump(libc::BPF_JGT, low, NEXT_CLAUSE, 0)],
        (Op::Masked(mask), _) => vec![
            low_word,
            instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask as u32),
            jump(libc::BPF_JEQ, low, 0, NEXT_CLAUSE),
        ],
        (Op::Equal, true) => vec![
            low_word,
            jump(libc::BPF_JEQ, low, 0, NEXT_CLAUSE),
            high_word,
            jump(libc::BPF_JEQ, high, 0, NEXT_CLAUSE),
        ],
        (Op::Differs, true) => {
            vec![low_word, jump(libc::BPF_JEQ, low, 0, 2), high_word, jump(libc::BPF_JEQ, high, NEXT_CLAUSE, 0)]
        }
        (Op::AnyBit, true) => {
            vec![low_word, jump(libc::BPF_JSET, low, 2, 0), high_word, jump(libc::BPF_JSET, high, 0, NEXT_CLAUSE)]
        }
    }
}

fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn jump(comparison: u32, value: u32, when_true: u8, when_false: u8) -> Instruction {
    let code = (libc::BPF_JMP | comparison | libc::BPF_K) as u16;
    Instruction { code, jt: when_true, jf: when_false, k: value }
}

fn answer(action: Action) -> Instruction {
    let value = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    instruction(libc::BPF_RET | libc::BPF_K, value)
}

fn instruction(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}
