//! A filter with one rule less, made of the program that the shim gives to the kernel.
//!
//! The program is a tree over numbers whose leaves are rules: clauses one after the other, each a few tests and an
//! answer, the last one without tests. The answer of one number is written anew in front of the program.

use shim::filesystem::KNOWN_ABI;
use shim::syscalls::generator::Program;
use shim::syscalls::profile::{Action, Architecture, Entry};

use super::{Cut, Gate};

type Instruction = <Program as IntoIterator>::Item;

const ARCHITECTURE: u32 = 4;
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The program as the kernel reads it: code, two distances, an operand.
pub fn read(bytes: &[u8]) -> Program {
    let read = |chunk: &[u8]| Instruction {
        code: u16::from_le_bytes([chunk[0], chunk[1]]),
        jt: chunk[2],
        jf: chunk[3],
        k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    };
    bytes.chunks_exact(8).map(read).collect()
}

/// The reverse of [`read`].
pub fn bytes(program: &[Instruction]) -> Vec<u8> {
    let write = |i: &Instruction| {
        let (code, operand) = (i.code.to_le_bytes(), i.k.to_le_bytes());
        [code[0], code[1], i.jt, i.jf, operand[0], operand[1], operand[2], operand[3]]
    };
    program.iter().flat_map(write).collect()
}

/// The program without what `cut` says; `None` where it has no such rule.
pub fn without(program: &[Instruction], cut: &Cut) -> Option<Program> {
    match *cut {
        Cut::Call(number) => Some(in_front(program, number, vec![allow()])),
        Cut::Clause(number, clause) => {
            let mut clauses = clauses(program, number)?;
            (clause as usize + 1 < clauses.len()).then(|| clauses.remove(clause as usize))?;
            Some(in_front(program, number, clauses.concat()))
        }
        Cut::Test(number, clause, test) => {
            let mut clauses = clauses(program, number)?;
            let place = clauses.get_mut(clause as usize)?;
            *place = untested(place, test as usize)?;
            Some(in_front(program, number, clauses.concat()))
        }
        Cut::Bit(number, clause, bit) => {
            let mut clauses = clauses(program, number)?;
            let test = clauses.get_mut(clause as usize)?.iter_mut().find(|i| i.code == ANY_BIT && i.k & bit != 0)?;
            test.k &= !bit;
            Some(in_front(program, number, clauses.concat()))
        }
        Cut::Gate(Gate::Architecture) => {
            let mut program = program.to_vec();
            *program.get_mut(2).filter(|i| i.code == RETURN)? = instruction(JUMP, 0, 0, 0);
            Some(program)
        }
        Cut::Gate(Gate::X32) => Some(above(program, 0x4000_0000)),
        Cut::Gate(Gate::Unknown) => Some(above(program, Architecture::NATIVE.calls().last()?.number + 1)),
        _ => None,
    }
}

/// Numbers whose answer is not always yes, in any class and under any Landlock ABI.
pub fn judged() -> Vec<u32> {
    use protocol::policy::ExecutionClass::{Local, Networked, Readonly};
    let judged = |entry: &&Entry| {
        let allowed = |class, abi| {
            let first = entry.rule(class, abi).first();
            first.is_some_and(|clause| clause.tests.is_empty() && clause.action == Action::Allow)
        };
        !(0..=KNOWN_ABI).all(|abi| [Networked, Local, Readonly].into_iter().all(|class| allowed(class, abi)))
    };
    Architecture::NATIVE.calls().iter().filter(judged).map(|entry| entry.number).collect()
}

/// The clauses of a number's rule, each up to its answer.
fn clauses(program: &[Instruction], number: u32) -> Option<Vec<Program>> {
    let mut clauses = Vec::new();
    let mut rest = program.get(leaf(program, number)?..)?;
    loop {
        let end = rest.iter().position(|i| i.code == RETURN)? + 1;
        let (clause, more) = rest.split_at(end);
        clauses.push(clause.to_vec());
        if end == 1 {
            return Some(clauses);
        }
        rest = more;
    }
}

/// Where the rule of a number begins.
fn leaf(program: &[Instruction], number: u32) -> Option<usize> {
    let (mut at, mut loaded) = (0, 0);
    loop {
        let i = program.get(at)?;
        let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        at += 1 + match i.code {
            LOAD if i.k == ARCHITECTURE => {
                loaded = Architecture::NATIVE.audit();
                0
            }
            LOAD if i.k == NUMBER => {
                loaded = number;
                0
            }
            EQUAL => branch(loaded == i.k),
            AT_LEAST => branch(loaded >= i.k),
            JUMP => i.k as usize,
            _ => return Some(at),
        };
    }
}

/// A clause without one of its tests, each of which begins with the loading of an argument. Jumps to the end of the
/// clause from before the test are as much shorter; those of a test for 64 bits are in it whole.
fn untested(clause: &[Instruction], test: usize) -> Option<Program> {
    let mut starts: Vec<usize> = Vec::new();
    for (at, i) in clause.iter().enumerate() {
        // The second half of a wide argument belongs to the test of the first.
        if i.code == LOAD && i.k >= FIRST_ARGUMENT && i.k.is_multiple_of(8) {
            starts.push(at);
        }
    }
    starts.push(clause.len() - 1);
    let (from, to) = (*starts.get(test)?, *starts.get(test + 1)?);
    let end = clause.len();
    let shorter = |at: usize, distance: u8| {
        if at < from && at + 1 + usize::from(distance) == end { distance - (to - from) as u8 } else { distance }
    };
    let kept = clause.iter().enumerate().filter(|(at, _)| !(from..to).contains(at));
    Some(kept.map(|(at, i)| instruction(i.code, shorter(at, i.jt), shorter(at, i.jf), i.k)).collect())
}

/// `rule` answers for `number`, the program for everything else.
fn in_front(program: &[Instruction], number: u32, rule: Program) -> Program {
    let length = rule.len() as u8;
    let mut whole = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(EQUAL, 0, length + 2, Architecture::NATIVE.audit()),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(EQUAL, 0, length, number),
    ];
    whole.extend(rule);
    whole.extend_from_slice(program);
    whole
}

/// Numbers from here on are let through.
fn above(program: &[Instruction], number: u32) -> Program {
    let mut whole = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(EQUAL, 0, 3, Architecture::NATIVE.audit()),
        instruction(LOAD, 0, 0, NUMBER),
        instruction(AT_LEAST, 0, 1, number),
        allow(),
    ];
    whole.extend_from_slice(program);
    whole
}

fn allow() -> Instruction {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}
