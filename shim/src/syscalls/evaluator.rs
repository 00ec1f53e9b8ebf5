//! What a filter answers to one call, without a kernel: an interpreter for the part of classic BPF that the generator
//! writes. Anything else is an error, so a wrong program cannot look like a right one.

use seccompiler::sock_filter as Instruction;

use super::profile::Action;

/// One call, as `struct seccomp_data` has it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// Number.
    pub number: u32,
    /// Arguments.
    pub arguments: [u64; 6],
}

/// The answer, and how many instructions it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub action: Action,
    /// Instructions executed.
    pub steps: usize,
}

/// A program that the kernel would refuse or that no generator of ours wrote.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvaluateError {
    /// It ran past its end.
    #[error("the program has no instruction {0}")]
    End(usize),
    /// An instruction that this interpreter does not know.
    #[error("instruction {at} has the unknown code {code:#x}")]
    Code {
        /// Where.
        at: usize,
        /// What.
        code: u16,
    },
    /// A load outside `seccomp_data`.
    #[error("instruction {at} loads offset {offset}")]
    Load {
        /// Where.
        at: usize,
        /// From where.
        offset: u32,
    },
    /// A return value that means nothing here.
    #[error("the program returns {0:#x}")]
    Answer(u32),
}

/// Run `program` on `call`.
pub fn evaluate(program: &[Instruction], call: &Call) -> Result<Verdict, EvaluateError> {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    for steps in 1.. {
        let Instruction { code, jt, jf, k } = program.get(at).ok_or(EvaluateError::End(at))?.clone();
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        let mut skip = 0;
        match u32::from(code) {
            LOAD => accumulator = word(call, k).ok_or(EvaluateError::Load { at, offset: k })?,
            AND => accumulator &= k,
            JUMP => skip = k as usize,
            EQUAL => skip = branch(accumulator == k),
            AT_LEAST => skip = branch(accumulator >= k),
            GREATER => skip = branch(accumulator > k),
            ANY_BIT => skip = branch(accumulator & k != 0),
            RETURN => return Ok(Verdict { action: action(k)?, steps }),
            _ => return Err(EvaluateError::Code { at, code }),
        }
        at += 1 + skip;
    }
    Err(EvaluateError::End(at))
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments; little-endian.
fn word(call: &Call, offset: u32) -> Option<u32> {
    match offset {
        0 => Some(call.number),
        4 => Some(call.architecture),
        16..64 if offset.is_multiple_of(4) => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            Some(if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 })
        }
        _ => None,
    }
}

fn action(value: u32) -> Result<Action, EvaluateError> {
    match value & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ALLOW => Ok(Action::Allow),
        libc::SECCOMP_RET_ERRNO => Ok(Action::Errno(value as u16)),
        libc::SECCOMP_RET_KILL_PROCESS => Ok(Action::Kill),
        _ => Err(EvaluateError::Answer(value)),
    }
}
