use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::pack::pack;
use crate::workspace::unpack::unpack;

/// What a path can be in a test.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, bool),
    Link(String),
}

type Tree = BTreeMap<String, Node>;

fn put(at: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = at.join(path);
        let parent = path.parent().expect("beneath");
        if std::fs::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        match node {
            Node::File(content, executable) => {
                std::fs::write(&path, content).expect("made");
                let mode = if *executable { 0o755 } else { 0o644 };
                std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("ours");
            }
            Node::Link(target) => symlink(target, &path).expect("made"),
        }
    }
}

fn seed(at: &Path) -> File {
    let mut file = tempfile::tempfile().expect("scratch");
    pack(&Root::open(at).expect("opens"), true, &mut file).expect("packs");
    file.rewind().expect("ours");
    file
}

fn patch(old: &Path, new: &Path) -> Vec<u8> {
    let mut patch = Vec::new();
    diff(&Root::open(new).expect("opens"), seed(old), &mut patch).expect("a patch");
    patch
}

/// `git apply` in a directory that is no repository.
fn apply(patch: &[u8], at: &Path, more: &[&str]) -> Result<(), String> {
    let mut git = Command::new("git");
    git.args(["apply", "--whitespace=nowarn"]).args(more).arg("-").current_dir(at);
    git.env("GIT_CEILING_DIRECTORIES", at.parent().expect("beneath")).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut git = git.spawn().expect("git");
    git.stdin.take().expect("a pipe").write_all(patch).expect("git reads it all");
    let output = git.wait_with_output().expect("git ends");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Paths, kinds, contents and `x`, without empty directories.
fn list(at: &Path) -> Vec<(String, &'static str, Vec<u8>)> {
    let root = Root::open(at).expect("opens");
    let mut all = Vec::new();
    walk(&root, None, &mut |path, stat| {
        if !is(stat, libc::S_IFDIR) {
            let mut left = MAX_CONTENTS;
            let side = side(&root, path, stat, &mut left)?;
            all.push((path.display(), side.mode.octal(), side.content));
        }
        Ok(Go::Into)
    })
    .expect("walks");
    all
}

fn scratch() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let scratch = tempfile::tempdir().expect("scratch");
    let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
    std::fs::create_dir(&old).expect("made");
    std::fs::create_dir(&new).expect("made");
    (scratch, old, new)
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let lines = proptest::collection::vec(
        prop_oneof![Just("a"), Just("b"), Just(""), Just("-- x"), Just("\\ x"), Just("\u{e4}\r")],
        0..12,
    );
    let text = (lines, any::<bool>()).prop_map(|(lines, end)| {
        let mut text = lines.join("\n").into_bytes();
        if end {
            text.push(b'\n');
        }
        text
    });
    prop_oneof![4 => text, 1 => proptest::collection::vec(any::<u8>(), 0..200), 1 => Just(vec![0; 3000])]
}

fn tree() -> impl Strategy<Value = Tree> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c d"), Just("\u{e4}"), Just("q\"\\"), Just("t\tn\n"), Just(" ")];
    let path = proptest::collection::vec(name, 1..3).prop_map(|names| names.join("/"));
    let node = prop_oneof![
        5 => (content(), any::<bool>()).prop_map(|(content, executable)| Node::File(content, executable)),
        // Never to themselves: git itself gives up where such a link becomes a directory.
        1 => "[x-z]{1,3}".prop_map(Node::Link),
    ];
    proptest::collection::btree_map(path, node, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn git_applies_the_patch_and_gets_the_workspace_and_takes_it_back(before in tree(), after in tree()) {
        let (_scratch, old, new) = scratch();
        put(&old, &before);
        put(&new, &after);
        let (was, is) = (list(&old), list(&new));
        let patch = patch(&old, &new);
        prop_assert_eq!(patch.is_empty(), was == is);
        if !patch.is_empty() {
            let shown = String::from_utf8_lossy(&patch).into_owned();
            prop_assert_eq!(apply(&patch, &old, &[]), Ok(()), "{}", shown);
            prop_assert_eq!(list(&old), is, "{}", shown);
            prop_assert_eq!(apply(&patch, &old, &["--reverse"]), Ok(()), "{}", shown);
            prop_assert_eq!(list(&old), was, "{}", shown);
        }
    }
}

#[test]
fn a_patch_reads_as_gits_own() {
    let (_scratch, old, new) = scratch();
    let file = |text: &str, x| Node::File(text.as_bytes().to_vec(), x);
    put(
        &old,
        &[
            ("same", file("s\n", false)),
            ("gone", file("g\n", false)),
            ("tool", file("t\n", false)),
            ("word", file("one\ntwo", false)),
        ]
        .map(|(k, v)| (k.into(), v))
        .into(),
    );
    put(
        &new,
        &[
            ("same", file("s\n", false)),
            ("made", file("m\n", false)),
            ("tool", file("t\n", true)),
            ("word", file("one\n2\n", false)),
            (".git/config", file("x", false)),
            ("sub/.git/x", file("x", false)),
        ]
        .map(|(k, v)| (k.into(), v))
        .into(),
    );
    let ours = String::from_utf8(patch(&old, &new)).expect("text");
    let theirs = Command::new("git")
        .args([
            "-c",
            "core.quotePath=true",
            "diff",
            "--no-index",
            "--no-renames",
            "--full-index",
            "--no-prefix",
            "old",
            "new",
        ])
        .current_dir(old.parent().expect("beneath"))
        .output()
        .expect("git");
    let theirs = String::from_utf8(theirs.stdout).expect("text");
    let theirs: String = theirs.split_inclusive("diff --git ").filter(|part| !part.contains(".git/")).collect();
    let theirs = theirs.replace(" old/", " a/").replace(" new/", " b/");
    let ours_of = |text: &str| {
        text.lines().filter(|l| !l.starts_with("diff --git") && !l.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!ours.contains(".git/"), "{ours}");
    assert_eq!(ours_of(&ours), ours_of(&theirs), "{ours}\n{theirs}");
}

#[test]
fn changes_without_bound_are_refused_and_not_kept_in_memory() {
    let (_scratch, old, new) = scratch();
    let file = File::create(new.join("sparse")).expect("made");
    file.set_len(MAX_CONTENTS + 1).expect("ours");
    let failure = diff(&Root::open(&new).expect("opens"), seed(&old), &mut io::sink()).expect_err("too large");
    assert_eq!(failure.kind, Kind::TooLarge);
    assert!(failure.message.contains("sparse"), "{failure}");
}

#[test]
fn a_seed_that_was_unpacked_differs_in_nothing() {
    let (_scratch, old, new) = scratch();
    let tree: Tree =
        [("a/b", Node::File(b"x".to_vec(), true)), ("l", Node::Link("a/b".into()))].map(|(k, v)| (k.into(), v)).into();
    put(&old, &tree);
    unpack(&Root::open(&new).expect("opens"), seed(&old), MAX_SEED).expect("unpacks");
    assert_eq!(patch(&old, &new), b"");
}
