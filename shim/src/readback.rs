//! What the kernel says the program's process is, compared with what it should be.
//!
//! A step's call may succeed and still not have done what was meant (a bounding set that was empty anyway, an id that
//! a user namespace maps to another). So the state is read from `/proc/self/status`, opened while paths could still
//! be opened.

use std::fs::File;
use std::os::unix::fs::FileExt;

use protocol::control::{Failure, Step};
use protocol::policy::Policy;

use crate::failure::failed;
use crate::identity::supplementary;
use crate::kernel;

/// This process's status file.
pub struct Status(File);

impl Status {
    /// Open it, before paths are closed.
    pub fn open() -> Result<Status, Failure> {
        File::open("/proc/self/status").map(Status).map_err(|error| {
            let message = format!("/proc/self/status: {error} (/proc must be mounted)");
            failed(Step::ReadBack, kernel::errno_of(&error), message)
        })
    }

    /// Compare it with the policy. `bounding_may_stay`: the set cannot be emptied here, which
    /// [`crate::guarantees`] has said.
    pub fn check(&self, policy: &Policy, bounding_may_stay: bool) -> Result<(), Failure> {
        let mut bytes = [0u8; 4096];
        let length = self
            .0
            .read_at(&mut bytes, 0)
            .map_err(|error| failed(Step::ReadBack, kernel::errno_of(&error), format!("/proc/self/status: {error}")))?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            expect(&text, set, "0000000000000000")?;
        }
        if !bounding_may_stay {
            expect(&text, "CapBnd", "0000000000000000")?;
        }
        expect(&text, "NoNewPrivs", "1")?;
        let Some(identity) = &policy.identity else { return Ok(()) };
        let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
        expect(&text, "Uid", &four(identity.uid))?;
        expect(&text, "Gid", &four(identity.gid))?;
        let mut wanted = identity.groups.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let found: Option<Vec<u32>> = supplementary().map(|groups| groups.iter().map(|g| g.as_raw()).collect());
        if found.as_ref() == Some(&wanted) { Ok(()) } else { Err(differs("Groups", &format!("{found:?}"))) }
    }
}

fn expect(status: &str, field: &str, wanted: &str) -> Result<(), Failure> {
    let found = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    match found {
        Some(found) if found == wanted => Ok(()),
        // A kernel without the field (ambient set, no_new_privs) is older than any that Landlock or seccomp need.
        found => Err(differs(field, found.unwrap_or("nothing"))),
    }
}

fn differs(field: &str, found: &str) -> Failure {
    let message = format!("the kernel says {field} is {found}, which is not what was set; the program was not started");
    failed(Step::ReadBack, 0, message)
}
