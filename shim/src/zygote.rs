//! The zygote: a shim that forks itself into the shims of dev-tasks.
//!
//! - A shim that is forked is the supervisor's own child, as if the supervisor had started it, hides and gets its policy
//!   as any other does, and with it its standard streams: until then it may wait for long. The zygote has no policy, no
//!   tree and no descriptor of one, and starts no program. It holds places that most programs may read, as handles that
//!   open nothing (`O_PATH`); who tells them knows when they are no longer what their paths mean.
//! - It serves nobody but the other end of the socket that it inherited, and ends with it.
//!
//! What it saves is the start-up of a static program, most of which is the C library asking what processor this is: each
//! of these questions leaves a virtual machine (decisions 0015, 0019).

use std::ffi::{CStr, OsString};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use protocol::control::{Decoder, Failure, Step};
use protocol::zygote::{HOLD, ORDER, STREAMS, answer};

use crate::descriptors;
use crate::failure::because;
use crate::filesystem::Held;
use crate::kernel::{self, Fork};

/// What `ps` shows.
const NAME: &CStr = c"zygote";
/// The same of a shim that waits for its policy.
const NAME_OF_A_READY_SHIM: &CStr = c"ready";
/// As if it had been started.
const NAME_OF_A_SHIM: &CStr = c"shim";

/// Fork for each order: answers in every new shim with its control socket and what is held for it, in the zygote with
/// `None` at the end.
pub fn serve(orders: OwnedFd) -> Result<Option<(OwnedFd, Held)>, Failure> {
    descriptors::close_all_but(orders.as_raw_fd())?;
    SigSet::all().thread_block().map_err(because(Step::Session, "blocking signals"))?;
    // Nobody's terminal and nobody's group: what is meant for the supervisor's must not end the zygote.
    let _ = setsid();
    let _ = prctl::set_name(NAME);
    let mut held = Held::default();
    loop {
        let control = match next(&orders).map_err(because(Step::Descriptors, "reading an order"))? {
            Order::Fork(control) => control,
            Order::Hold(paths) => {
                held = Held::open(&paths)?;
                continue;
            }
            Order::End => return Ok(None),
        };
        let forked = match kernel::fork_sibling() {
            Ok(Fork::Child) => {
                drop(orders);
                let _ = prctl::set_name(NAME_OF_A_READY_SHIM);
                show()?;
                return Ok(Some((control, held)));
            }
            Ok(Fork::Parent(pid)) => Ok(pid),
            Err(errno) => Err(errno as i32),
        };
        // A supervisor that has gone shows as the end of its orders.
        let _ = send(orders.as_raw_fd(), &answer(forked), MsgFlags::MSG_NOSIGNAL);
    }
}

/// As a program that has just been started, so that the shim can open its own oom score ([`crate::oom`]) before it hides:
/// with nothing yet to be read in it, and for a shorter time than the start of a program takes.
fn show() -> Result<(), Failure> {
    prctl::set_dumpable(true).map_err(because(Step::Session, "PR_SET_DUMPABLE"))
}

enum Order {
    /// A shim with this control socket.
    Fork(OwnedFd),
    /// Hold these and no others.
    Hold(Vec<OsString>),
    /// No more will come.
    End,
}

/// Blocks. What no supervisor of this build says is EPROTO.
fn next(orders: &OwnedFd) -> Result<Order, Errno> {
    let mut byte = [0; 1];
    match (receive(orders, &mut byte)?, byte) {
        ((0, _), _) => Ok(Order::End),
        ((_, came), ORDER) => {
            <[OwnedFd; 1]>::try_from(came).map(|[control]| Order::Fork(control)).map_err(|_| Errno::EPROTO)
        }
        ((_, came), HOLD) if came.is_empty() => paths(orders).map(Order::Hold),
        _ => Err(Errno::EPROTO),
    }
}

/// To the end of the frame and no further: beside what follows may be a descriptor.
fn paths(orders: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut decoder = Decoder::default();
    loop {
        let missing = decoder.missing().map_err(|_| Errno::EPROTO)?;
        if missing == 0 {
            return decoder.next().ok().flatten().ok_or(Errno::EPROTO);
        }
        let mut bytes = vec![0; missing];
        match receive(orders, &mut bytes)? {
            (count, came) if count > 0 && came.is_empty() => decoder.push(&bytes[..count]),
            _ => return Err(Errno::EPROTO),
        }
    }
}

/// Bytes, and the descriptors beside them; no bytes at the end. Blocks.
pub fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut bytes = [IoSliceMut::new(bytes)];
    let mut space = cmsg_space!([RawFd; STREAMS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut came = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            came.extend(numbers.into_iter().map(kernel::own).collect::<Result<Vec<_>, _>>()?);
        }
    }
    Ok((message.bytes, came))
}

/// What came with the policy becomes standard input, output and error. A shim that was started has its own.
pub fn take_over(streams: Vec<OwnedFd>) -> Result<(), Failure> {
    if streams.is_empty() {
        return Ok(());
    }
    let streams = <[OwnedFd; STREAMS]>::try_from(streams).map_err(|_| Errno::EPROTO);
    let place = |[stdin, stdout, stderr]: [OwnedFd; STREAMS]| {
        dup2_stdin(stdin)?;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)
    };
    streams.and_then(place).map_err(because(Step::Descriptors, "placing the standard streams"))?;
    let _ = prctl::set_name(NAME_OF_A_SHIM);
    Ok(())
}
