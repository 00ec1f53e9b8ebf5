use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Scratch {
    dir: tempfile::TempDir,
    plan: Plan,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().expect("scratch");
        let (source, target) = (dir.path().join("defaults"), dir.path().join("config"));
        std::fs::create_dir(&source).expect("made");
        let plan = Plan { source, target, version: "1".into() };
        let scratch = Scratch { dir, plan };
        scratch.default("HEARTBEAT.md", "default");
        scratch.default("skills/git/SKILL.md", "use git");
        scratch
    }

    fn default(&self, name: &str, text: &str) {
        put(&self.plan.source.join(name), text);
    }

    fn target(&self, name: &str) -> PathBuf {
        self.plan.target.join(name)
    }

    fn run(&self) -> Summary {
        run(&self.plan).expect("copies")
    }

    /// Every name in the target, sorted.
    fn names(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).expect("lists") {
                let path = entry.expect("entry").path();
                names.push(path.strip_prefix(root).expect("beneath").display().to_string());
                if path.symlink_metadata().expect("there").is_dir() {
                    walk(&path, root, names);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.plan.target, &self.plan.target, &mut names);
        names.sort();
        names
    }
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    std::fs::write(path, text).expect("written");
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("there")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o7777
}

#[test]
fn a_first_run_copies_everything_and_marks_the_version() {
    let scratch = Scratch::new();
    let summary = scratch.run();
    assert_eq!((summary.copied, summary.kept), (2, 0));
    assert_eq!(scratch.names(), [".version", "HEARTBEAT.md", "skills", "skills/git", "skills/git/SKILL.md"]);
    assert_eq!(text(&scratch.target("skills/git/SKILL.md")), "use git");
    let marker = text(&scratch.target(".version"));
    assert!(marker.starts_with("1\nsha256:") && marker.lines().count() == 2, "{marker}");
}

/// 000-29, 000-31.
#[test]
fn an_edit_survives_every_further_run() {
    let scratch = Scratch::new();
    scratch.run();
    put(&scratch.target("HEARTBEAT.md"), "custom");
    let before = scratch.target(".version").metadata().expect("there").ino();
    let summary = scratch.run();
    assert_eq!((summary.copied, summary.kept), (0, 2));
    assert_eq!(text(&scratch.target("HEARTBEAT.md")), "custom");
    assert_eq!(scratch.target(".version").metadata().expect("there").ino(), before, "nothing to write");
}

/// 000-32.
#[test]
fn a_new_version_brings_its_new_files_and_replaces_nothing() {
    let mut scratch = Scratch::new();
    scratch.run();
    put(&scratch.target("HEARTBEAT.md"), "custom");
    scratch.default("HEARTBEAT.md", "newer default");
    scratch.default("skills/git/NEW.md", "new");
    scratch.plan.version = "2".into();
    let summary = scratch.run();
    assert_eq!((summary.copied, summary.kept), (1, 2));
    assert_eq!(text(&scratch.target("HEARTBEAT.md")), "custom");
    assert_eq!(text(&scratch.target("skills/git/NEW.md")), "new");
    assert!(text(&scratch.target(".version")).starts_with("2\n"));
}

#[test]
fn without_a_version_the_digest_of_the_source_is_one() {
    let mut scratch = Scratch::new();
    scratch.plan.version.clear();
    let first = scratch.run().version;
    assert_eq!(text(&scratch.target(".version")), format!("{first}\n"));
    assert_eq!(scratch.run().version, first);
    scratch.default("HEARTBEAT.md", "newer");
    let summary = scratch.run();
    assert!(summary.version.starts_with("sha256:") && summary.version != first);
    assert_eq!(summary.copied, 0);
}

#[test]
fn modes_are_kept_but_for_setuid_and_new_directories_follow_the_umask() {
    let scratch = Scratch::new();
    for (name, mode) in [("run.sh", 0o755), ("root", 0o4755), ("secret", 0o600)] {
        scratch.default(name, "x");
        std::fs::set_permissions(scratch.plan.source.join(name), PermissionsExt::from_mode(mode)).expect("ours");
    }
    scratch.run();
    let modes = ["run.sh", "root", "secret"].map(|name| mode(&scratch.target(name)));
    assert_eq!(modes, [0o755, 0o755, 0o600]);
    let control = scratch.dir.path().join("control");
    std::fs::create_dir(&control).expect("made with the umask");
    assert_eq!(mode(&scratch.target("skills")), mode(&control));
}

#[test]
fn links_planted_in_the_volume_are_never_followed() {
    let scratch = Scratch::new();
    let outside = scratch.dir.path().join("outside");
    std::fs::create_dir_all(outside.join("git")).expect("made");
    std::fs::create_dir(&scratch.plan.target).expect("made");
    symlink(&outside, scratch.target("skills")).expect("link");
    symlink(outside.join("file"), scratch.target("HEARTBEAT.md")).expect("link");
    put(&outside.join("version"), "9\n");
    symlink(outside.join("version"), scratch.target(".version")).expect("link");

    let summary = scratch.run();
    assert_eq!((summary.copied, summary.kept), (0, 1));
    assert_eq!(summary.blocked, [scratch.target("skills")]);
    assert!(!outside.join("file").exists());
    assert_eq!(std::fs::read_dir(outside.join("git")).expect("lists").count(), 0);
    assert_eq!(text(&outside.join("version")), "9\n");
    assert!(scratch.target(".version").symlink_metadata().expect("there").is_file(), "the link itself is replaced");
}

#[test]
fn a_link_as_the_target_itself_is_refused() {
    let scratch = Scratch::new();
    let outside = scratch.dir.path().join("outside");
    std::fs::create_dir(&outside).expect("made");
    symlink(&outside, &scratch.plan.target).expect("link");
    assert!(matches!(run(&scratch.plan), Err(BootstrapError::Target { .. })));
    assert_eq!(std::fs::read_dir(&outside).expect("lists").count(), 0);
}

#[test]
fn a_link_in_a_parent_of_the_target_is_refused_and_nothing_is_made_behind_it() {
    let mut scratch = Scratch::new();
    let (volume, outside) = (scratch.dir.path().join("v"), scratch.dir.path().join("outside"));
    for dir in [&volume, &outside, &outside.join("there")] {
        std::fs::create_dir(dir).expect("made");
    }
    symlink(&outside, volume.join("a")).expect("link");
    for target in ["a/b", "a/b/c", "a/there"] {
        scratch.plan.target = volume.join(target);
        assert!(matches!(run(&scratch.plan), Err(BootstrapError::Target { .. })), "{target}");
    }
    assert_eq!(std::fs::read_dir(&outside).expect("lists").count(), 1);
    assert_eq!(std::fs::read_dir(outside.join("there")).expect("lists").count(), 0);
    scratch.plan.target = volume.join("plain/b");
    assert_eq!(scratch.run().copied, 2);
}

#[test]
fn a_link_planted_on_a_mounted_volume_is_refused() {
    let mut scratch = Scratch::new();
    let outside = tempfile::tempdir().expect("scratch");
    crate::mounts::tests::on_small_disk(256 * 1024, |disk| {
        symlink(outside.path(), disk.join("a")).expect("link");
        scratch.plan.target = disk.join("a/config");
        assert!(matches!(run(&scratch.plan), Err(BootstrapError::Target { .. })));
        assert_eq!(std::fs::read_dir(outside.path()).expect("lists").count(), 0);
        scratch.plan.target = disk.join("b/config");
        assert_eq!(scratch.run().copied, 2);
    });
}

/// `..data` and the links into it are how the kubelet mounts a ConfigMap.
#[test]
fn a_mounted_config_map_is_copied_as_plain_files() {
    let scratch = Scratch::new();
    let source = &scratch.plan.source;
    put(&source.join("..2026_11_21/MAP.md"), "from a map");
    put(&source.join("..2026_11_21/sub/IN.md"), "inside");
    symlink("..2026_11_21", source.join("..data")).expect("link");
    symlink("..data/MAP.md", source.join("MAP.md")).expect("link");
    symlink("..data/sub", source.join("sub")).expect("link");
    assert_eq!(scratch.run().copied, 4);
    assert!(scratch.target("MAP.md").symlink_metadata().expect("there").is_file());
    assert_eq!(text(&scratch.target("sub/IN.md")), "inside");
    assert!(!scratch.names().iter().any(|name| name.starts_with("..")));
}

#[test]
fn defaults_that_lead_outside_or_in_a_circle_or_are_no_files_are_refused_before_anything_is_written() {
    for (target, expected) in [("/etc/hostname", "outside"), ("..", "outside"), (".", "deep"), ("fifo", "file nor")] {
        let scratch = Scratch::new();
        let fifo = scratch.plan.source.join("fifo");
        if target == "fifo" {
            nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).expect("made");
        }
        symlink(target, scratch.plan.source.join("skills/link")).expect("link");
        if target == ".." {
            std::fs::remove_file(scratch.plan.source.join("skills/link")).expect("ours");
            symlink("../..", scratch.plan.source.join("skills/link")).expect("link");
        }
        let error = run(&scratch.plan).expect_err("refused").to_string();
        assert!(error.contains(expected), "{target}: {error}");
        assert!(!scratch.plan.target.exists());
    }
}

#[test]
fn a_missing_source_and_overlapping_trees_are_named() {
    let mut scratch = Scratch::new();
    let source = scratch.plan.source.clone();
    scratch.plan.source = source.join("no-such");
    let error = run(&scratch.plan).expect_err("missing");
    assert!(matches!(&error, BootstrapError::Source { path, .. } if *path == scratch.plan.source), "{error}");
    scratch.plan.source = source.clone();
    scratch.plan.target = source.join("skills");
    assert!(matches!(run(&scratch.plan), Err(BootstrapError::Overlap { .. })));
    scratch.plan.version = "a\nb".into();
    assert!(matches!(run(&scratch.plan), Err(BootstrapError::Version)));
}

#[test]
fn what_a_crashed_run_left_is_removed_and_a_running_one_is_left_alone() {
    let scratch = Scratch::new();
    put(&scratch.target(".chaperone-new-1-0"), "half");
    put(&scratch.target("skills/.chaperone-new-7-3"), "half");
    put(&scratch.target(".chaperone-new-1-1"), "being written");
    let writer = std::fs::File::open(scratch.target(".chaperone-new-1-1")).expect("there");
    writer.try_lock().expect("free");
    scratch.run();
    let left: Vec<_> = scratch.names().into_iter().filter(|name| name.contains("new-")).collect();
    assert_eq!(left, [".chaperone-new-1-1"]);
}

#[test]
fn many_runs_at_once_copy_each_file_once() {
    let scratch = Scratch::new();
    for number in 0..50 {
        scratch.default(&format!("many/{number}"), "x");
    }
    let copied: u64 = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| scratch.run().copied)).collect();
        runs.into_iter().map(|run| run.join().expect("copies")).sum()
    });
    assert_eq!(copied, 52);
    assert!(!scratch.names().iter().any(|name| name.contains("new-")));
}

#[test]
fn a_full_disk_leaves_nothing_half_done_and_the_next_run_goes_on() {
    let mut scratch = Scratch::new();
    scratch.default("a-small", "small");
    scratch.default("big", &"x".repeat(1 << 20));
    crate::mounts::tests::on_small_disk(256 * 1024, |disk| {
        scratch.plan.target = disk.join("config");
        let error = run(&scratch.plan).expect_err("does not fit");
        assert!(matches!(&error, BootstrapError::Write { path, .. } if *path == scratch.target("big")), "{error}");
        assert_eq!(crate::exit::unless_temporary(crate::exit::CONFIGURATION, &error), crate::exit::TEMPORARY);
        assert_eq!(scratch.names(), ["HEARTBEAT.md", "a-small"], "no marker, no part of a file");
        scratch.default("big", "fits now");
        assert_eq!(scratch.run().copied, 2);
    });
}

#[test]
fn a_read_only_target_is_named() {
    let mut scratch = Scratch::new();
    scratch.plan.target = PathBuf::from("/proc/no-such/config");
    assert!(matches!(run(&scratch.plan), Err(BootstrapError::Target { .. })));
}
