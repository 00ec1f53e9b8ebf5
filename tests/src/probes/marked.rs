//! What no escape can show, because behind the rule this kernel has nothing: that the filter refuses the call all the same.

use protocol::guarantee::Guarantee::SyscallsFiltered;

use super::{Probe, probe};
use crate::sweep;

/// Not one of [`super::all`]: only a stage that catches marked calls ([`crate::stage::Cut::Catch`]) shows it.
pub static MARKED: Probe = probe("marked-call", SyscallsFiltered, |_| sweep::let_through(MARKED.class))
    .nobody("there is nothing to get out to");
