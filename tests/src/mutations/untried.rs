//! Rules of the filter for older kernels that no probe can tell apart yet; docs/security.md says why.

use shim::syscalls::profile::{Architecture, Entry};

use crate::stage::Cut;

/// The call, and the places of its clauses; all that is refused is the first. Where the supervisor leads group 1, as on every stage,
/// -1 is everybody and that group, and each of the two clauses hides the other.
const UNTRIED: [(&str, &[u32]); 3] = [("fcntl", &[0, 2, 4]), ("kill", &[3, 4]), ("setpgid", &[0, 1])];

/// Whether what this leaves out, of an older kernel's rules, is one of them.
pub(super) fn is_left(cut: &Cut) -> bool {
    let (number, place) = match *cut {
        Cut::Call(number) => (number, 0),
        Cut::Clause(number, place) => (number, place),
        _ => return false,
    };
    here().any(|(entry, places)| entry.number == number && places.contains(&place))
}

/// How many they are.
pub(super) fn number() -> usize {
    here().map(|(_, places)| places.len()).sum()
}

/// Those that this architecture has.
fn here() -> impl Iterator<Item = (&'static Entry, &'static [u32])> {
    UNTRIED.into_iter().filter_map(|(name, places)| {
        let entry = Architecture::NATIVE.calls().iter().find(|entry| entry.name == name)?;
        Some((entry, places))
    })
}
