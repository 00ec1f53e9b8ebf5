//! What a test needs of this machine beside a Debian's essential packages. A bare one has neither git nor Python; a test
//! that needs them says so and is skipped there. `.ci/run` installs them all.
//! Whatever a machine lacks, the line that says so begins with `skipped:`.

use std::process::{Command, Stdio};

/// Whether all of these commands are there; prints which is not.
pub fn commands(names: &[&str]) -> bool {
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {missing:?} not on this machine's PATH");
    }
    missing.is_empty()
}

fn is_there(name: &str) -> bool {
    Command::new(name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_missing_command_is_enough_to_skip() {
        assert!(super::commands(&["sh", "tar"]));
        assert!(!super::commands(&["sh", "no-such-command-anywhere"]));
    }
}
