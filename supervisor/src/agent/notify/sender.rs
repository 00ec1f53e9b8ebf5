//! Whose child a sender is.

use std::path::Path;

use crate::init::stat;

/// Whether `pid` is `of` or descends from it now. A shim is its tree's subreaper, so orphans of the tree still lead to
/// it. A sender that has already ended is nobody's child: `false`.
pub fn is_descendant(pid: i32, of: i32) -> bool {
    descends(Path::new("/proc"), pid, of)
}

fn descends(proc: &Path, pid: i32, of: i32) -> bool {
    // A parent may end between two looks; its children then have another, so the walk starts anew.
    (0..3).any(|_| matches!(walk(proc, pid, of), Some(true)))
}

/// `None` where the chain broke off.
fn walk(proc: &Path, pid: i32, of: i32) -> Option<bool> {
    let mut at = pid;
    // Deeper than any tree under the limit on processes; it only guards against a circle.
    for _ in 0..4096 {
        match at {
            found if found == of && found > 0 => return Some(true),
            ..=0 => return Some(false),
            _ => at = stat::read(proc, at)?.parent,
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_descends_from_us_and_we_do_not_from_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat runs");
        let (us, them) = (std::process::id() as i32, child.id() as i32);
        assert!(is_descendant(them, us));
        assert!(is_descendant(us, us));
        assert!(!is_descendant(us, them));
        drop(child.stdin.take());
        child.wait().expect("ends");
        assert!(!is_descendant(them, us), "gone");
    }

    #[test]
    fn a_name_cannot_pose_as_a_parent_and_a_circle_ends() {
        let proc = tempfile::tempdir().expect("scratch");
        let stat = |pid: i32, text: &str| {
            std::fs::create_dir(proc.path().join(pid.to_string())).expect("made");
            std::fs::write(proc.path().join(pid.to_string()).join("stat"), text).expect("written");
        };
        stat(20, "20 (x) S 5 1) S 10 20 20 0");
        stat(10, "10 (a b) S 1 10");
        stat(1, "1 (init) S 0 1");
        stat(30, "30 (x) S 31 1");
        stat(31, "31 (x) S 30 1");
        assert!(descends(proc.path(), 20, 10) && descends(proc.path(), 20, 1));
        assert!(!descends(proc.path(), 20, 5));
        assert!(!descends(proc.path(), 30, 1));
        assert!(!descends(proc.path(), 0, 0), "a sender outside our pid namespace has pid 0");
    }
}
