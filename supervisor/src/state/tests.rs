use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("var/state");
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("exists").permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}

fn record(state: RunState) -> RunRecord {
    RunRecord {
        v: RunRecord::VERSION,
        state,
        pid: 7,
        started_at: 1,
        exit: None,
        signal: None,
        restarts: 2,
        boot_id: boot_id(Path::new("/proc")).expect("a file of the kernel's"),
    }
}

#[test]
fn a_missing_directory_is_made_private_and_left_empty_but_for_the_lock() {
    let (_dir, path) = scratch();
    let _state = StateDir::open(&path).expect("opens");
    assert_eq!(mode(&path), 0o700);
    let names: Vec<_> = std::fs::read_dir(&path).expect("lists").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, [LOCK]);
}

#[test]
fn a_second_supervisor_is_told_who_holds_the_directory_and_may_have_it_afterwards() {
    let (_dir, path) = scratch();
    let first = StateDir::open(&path).expect("opens");
    let error = StateDir::open(&path).expect_err("held");
    assert!(matches!(&error, StateError::InUse { owner, .. } if owner.starts_with(&std::process::id().to_string())));
    assert!(error.is_temporary());
    drop(first);
    StateDir::open(&path).expect("free again");
}

#[test]
fn a_symlink_is_refused_as_directory_and_as_file() {
    let (dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "outside").expect("written");
    symlink(&outside, path.join("planted")).expect("link");
    assert!(matches!(state.read("planted", 10), Err(StateError::NotAFile { .. })));
    state.write("planted", b"new", Durability::Crash).expect("replaces the link itself");
    assert_eq!(std::fs::read(&outside).expect("there"), b"outside");
    assert_eq!(state.read("planted", 10).expect("reads").as_deref(), Some(&b"new"[..]));

    drop(state);
    let link = dir.path().join("link");
    symlink(&path, &link).expect("link");
    assert!(matches!(StateDir::open(&link), Err(StateError::NotADirectory { .. })));
    assert!(matches!(StateDir::open(&outside), Err(StateError::NotADirectory { .. })));
}

#[test]
fn a_link_planted_as_the_temporary_file_is_not_written_through() {
    let (dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    let outside = dir.path().join("outside");
    symlink(&outside, path.join(".x.new")).expect("link");
    state.write("x", b"1", Durability::PowerLoss).expect("written");
    assert!(!outside.exists());
}

#[test]
fn changed_modes_are_put_back_and_counted() {
    let (_dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    state.write("x", b"1", Durability::Crash).expect("written");
    assert_eq!((mode(&path.join("x")), state.tampered()), (0o600, 0));
    chmod(&path.join("x"), 0o666);
    chmod(&path, 0o777);
    state.read("x", 10).expect("reads");
    assert_eq!((mode(&path), mode(&path.join("x")), state.tampered()), (0o700, 0o600, 2));
    chmod(&path, 0o000);
    state.write("x", b"2", Durability::Crash).expect("written");
    assert_eq!((mode(&path), state.tampered()), (0o700, 3));
}

#[test]
fn a_file_beyond_its_limit_is_refused_and_a_missing_one_is_none() {
    let (_dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    state.write("x", b"12345", Durability::Crash).expect("written");
    assert!(matches!(state.read("x", 4), Err(StateError::TooLong { limit: 4, .. })));
    assert_eq!(state.read("x", 5).expect("reads").as_deref(), Some(&b"12345"[..]));
    assert_eq!(state.read("y", 5).expect("reads"), None);
    state.remove("y").expect("nothing to do");
}

#[test]
fn a_fifo_in_a_file_s_place_does_not_stop_the_supervisor() {
    let (_dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    nix::unistd::mkfifo(&path.join("x"), Mode::S_IRWXU).expect("made");
    assert!(matches!(state.read("x", 10), Err(StateError::NotAFile { .. })));
}

#[test]
fn a_read_only_directory_is_the_operator_s_to_mend() {
    let error = StateDir::open(Path::new("/proc/self/state")).expect_err("nobody can write there");
    assert!(!error.is_temporary(), "{error}");
    let error = StateDir::open(Path::new("/proc/self")).expect_err("nobody can write there");
    assert!(!error.is_temporary(), "{error}");
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_the_old_file_whole() {
    crate::mounts::tests::on_small_disk(64 * 1024, |path| {
        let state = StateDir::open(path).expect("opens");
        state.write("x", b"old", Durability::PowerLoss).expect("written");
        let error = state.write("x", &[0; 1 << 20], Durability::PowerLoss).expect_err("does not fit");
        assert!(matches!(error, StateError::Full { .. }) && error.is_temporary(), "{error}");
        assert_eq!(state.read("x", 10).expect("reads").as_deref(), Some(&b"old"[..]));
        assert!(!path.join(".x.new").exists());
        std::fs::write(path.join("filler"), [0; 1 << 20]).expect_err("fills");
        drop(state);
        assert!(matches!(StateDir::open(path), Err(StateError::Full { .. })));
    });
}

#[test]
fn a_run_that_was_under_way_is_lost_and_one_that_ended_is_not() {
    let (_dir, path) = scratch();
    let state = StateDir::open(&path).expect("opens");
    assert_eq!(RunRecord::load(&state).expect("loads"), None);
    for (what, end) in [(RunState::Running, Some("lost")), (RunState::Stopping, Some("lost")), (RunState::Ended, None)]
    {
        record(what).save(&state).expect("saved");
        let loaded = RunRecord::load(&state).expect("loads").expect("saved before");
        assert_eq!(loaded, record(what));
        assert_eq!(loaded.silent_end(), end);
    }
    std::fs::write(path.join("run.json"), "{").expect("torn");
    assert_eq!(RunRecord::load(&state).expect("as if there were none"), None);
}
