//! The zygote: a shim that forks itself into the shims of dev-tasks.
//!
//! - A shim that is forked is the supervisor's own child, as if the supervisor had started it, hides and gets its policy
//!   as any other does. The zygote has no policy, no tree and no descriptor of one, and starts no program.
//! - It serves nobody but the other end of the socket that it inherited, and ends with it.
//!
//! What it saves is the start-up of a static program, most of which is the C library asking what processor this is: each
//! of these questions leaves a virtual machine (decision 0015).

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use protocol::control::{Failure, Step};
use protocol::zygote::{DESCRIPTORS, ORDER, answer};

use crate::descriptors;
use crate::failure::because;
use crate::kernel::{self, Fork};

/// What `ps` shows.
const NAME: &CStr = c"zygote";
/// As if it had been started.
const NAME_OF_A_SHIM: &CStr = c"shim";

/// Fork for each order: answers in every new shim with its control socket, in the zygote with `None` at the end.
pub fn serve(orders: OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    descriptors::close_all_but(orders.as_raw_fd())?;
    SigSet::all().thread_block().map_err(because(Step::Session, "blocking signals"))?;
    // Nobody's terminal and nobody's group: what is meant for the supervisor's must not end the zygote.
    let _ = setsid();
    let _ = prctl::set_name(NAME);
    loop {
        let [stdin, stdout, stderr, control] = match next(&orders) {
            Ok(Some(order)) => order,
            Ok(None) => return Ok(None),
            Err(errno) => return Err(because(Step::Descriptors, "reading an order")(errno)),
        };
        let forked = match kernel::fork_sibling() {
            Ok(Fork::Child) => {
                drop(orders);
                let placed = dup2_stdin(stdin).and_then(|()| dup2_stdout(stdout)).and_then(|()| dup2_stderr(stderr));
                placed.map_err(because(Step::Descriptors, "placing the standard streams"))?;
                let _ = prctl::set_name(NAME_OF_A_SHIM);
                show()?;
                return Ok(Some(control));
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

/// The descriptors of the next order, `None` when no more will come. Blocks.
fn next(orders: &OwnedFd) -> Result<Option<[OwnedFd; DESCRIPTORS]>, Errno> {
    let mut byte = [0; ORDER.len()];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(orders.as_raw_fd(), &mut bytes, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut came = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            came.extend(numbers.into_iter().map(kernel::own).collect::<Result<Vec<_>, _>>()?);
        }
    }
    // Another number is no order of this build's supervisor.
    came.try_into().map(Some).map_err(|_| Errno::EPROTO)
}
