use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use crate::workspace::root::Root;
use crate::workspace::unpack::unpack;

const MOST: u64 = 1024 * 1024;

/// A header with exactly these bytes as name, whatever a library would say of them.
fn header(name: &[u8], kind: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header.as_mut_bytes()[156] = kind;
    header.set_size(size);
    header.set_mode(0o6755);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, header: &Header, content: &[u8]) -> Tar {
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(self, name: &str, kind: u8, content: &[u8]) -> Tar {
        self.raw(&header(name.as_bytes(), kind, content.len() as u64), content)
    }

    fn file(self, name: &str, content: &[u8]) -> Tar {
        self.entry(name, b'0', content)
    }

    fn link(self, name: &str, kind: u8, target: &str) -> Tar {
        let mut header = header(name.as_bytes(), kind, 0);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.raw(&header, b"")
    }

    fn gz(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        gzip(&self.0)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).expect("memory");
    out.finish().expect("memory")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|n| n - n.to_string().len() == rest).expect("one fits");
        bytes.extend(format!("{length} {key}={value}\n").bytes());
    }
    bytes
}

fn check(archive: &[u8]) -> Result<Vec<String>, Failure> {
    let mut paths = Vec::new();
    read(archive, MOST, &mut |path, _| {
        paths.push(path.display());
        Ok(())
    })?;
    Ok(paths)
}

/// What the trial says is what unpacking says, and a refusal leaves nothing, inside or outside.
fn refused(archive: &[u8], kind: Kind, words: &str) {
    let scratch = tempfile::tempdir().expect("scratch");
    std::fs::create_dir(scratch.path().join("root")).expect("made");
    let root = Root::open(&scratch.path().join("root")).expect("opens");
    for failure in [check(archive).expect_err("refused"), unpack(&root, archive, MOST).expect_err("refused")] {
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(words), "{failure} has no {words}");
    }
    assert_eq!(std::fs::read_dir(scratch.path().join("root")).expect("there").count(), 0, "left behind");
    assert_eq!(std::fs::read_dir(scratch.path()).expect("there").count(), 1, "outside");
}

#[test]
fn hostile_entries_are_refused_by_name_and_leave_nothing() {
    let first = || Tar::default().file("fine/file", b"text");
    for (tar, words) in [
        (first().file("../evil", b"x"), "../evil"),
        (first().file("a/../../evil", b"x"), "a/../../evil"),
        (first().file("/etc/evil", b"x"), "/etc/evil"),
        (first().link("l", b'2', "/etc/passwd"), "\"l\" is a symbolic link"),
        (first().link("l", b'2', "../outside"), "\"l\" is a symbolic link"),
        (first().link("a/l", b'2', "../../outside"), "\"a/l\" is a symbolic link"),
        (first().link("l", b'2', ""), "\"l\" is a symbolic link"),
        (first().link("l", b'1', "fine/file"), "\"l\" is a hard link"),
        (first().link("l", b'1', "/etc/passwd"), "\"l\" is a hard link"),
        (first().entry("d", b'3', b""), "\"d\" is a device"),
        (first().entry("d", b'4', b""), "\"d\" is a device"),
        (first().entry("p", b'6', b""), "\"p\" is a FIFO"),
        (first().entry("s", b'S', b""), "\"s\" is a sparse"),
        (first().entry("z", b'Z', b""), "\"z\" is of an unknown"),
        (first().link("l", b'2', "fine").file("l/evil", b"x"), "\"l/evil\" lies beneath"),
        (first().file("fine/file/x", b"x"), "\"fine/file/x\" lies beneath"),
        (first().file("fine/file", b"again"), "\"fine/file\" is in the archive twice"),
        (first().link("fine", b'2', "x"), "\"fine\" is in the archive twice"),
        (first().file("./", b"x"), "names the workspace itself"),
        (first().entry("x", b'x', &pax(&[("path", "../evil")])).file("ok", b"x"), "../evil"),
        (first().entry("x", b'x', &pax(&[("size", "9")])).file("ok", b"x"), "two different sizes"),
        (first().entry("x", b'x', &pax(&[("GNU.sparse.major", "1")])).file("ok", b"x"), "sparse"),
        (first().entry("x", b'x', b"99 path=x\n").file("ok", b"x"), "PAX"),
        (first().entry("x", b'x', &pax(&[("path", "a")])), "belongs to nothing"),
        (first().entry("x", b'L', b"/abs\0").file("ok", b"x"), "/abs"),
        (first().entry("x", b'K', b"../../up\0").link("ok", b'2', "fine"), "leads out"),
    ] {
        refused(&tar.gz(), Kind::Invalid, words);
    }
}

#[test]
fn bounds_are_those_of_what_comes_out() {
    // A header that lies about its size, a bomb behind a small header, and one that is honest.
    refused(&Tar::default().raw(&header(b"huge", b'0', 1 << 40), b"").gz(), Kind::TooLarge, "huge");
    refused(&Tar::default().file("zeros", &vec![0; 2 * MOST as usize]).gz(), Kind::TooLarge, "zeros");
    let many = (0..40).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), &vec![0; 32 * 1024]));
    refused(&many.gz(), Kind::TooLarge, "unpacks to more");
    let padding = gzip(&vec![0; 64 * MOST as usize]);
    refused(&padding, Kind::TooLarge, "unpacks to more");
    let long = vec![b'a'; 65 * 1024];
    refused(&Tar::default().entry("x", b'L', &long).file("ok", b"").gz(), Kind::TooLarge, "64 KiB");
    let deep = format!("{}x", "d/".repeat(100));
    refused(&Tar::default().entry("x", b'L', deep.as_bytes()).file("ok", b"").gz(), Kind::Invalid, "deeper");
}

#[test]
fn too_many_entries_are_refused() {
    let mut tar = Tar::default();
    let directory = header(b"d/", b'5', 0);
    for _ in 0..=MAX_ENTRIES {
        tar.0.extend(directory.as_bytes());
    }
    let archive = tar.gz();
    let failure = read(&*archive, 1 << 30, &mut |_, _| Ok(())).expect_err("refused");
    assert_eq!(failure.kind, Kind::TooLarge);
}

#[test]
fn what_is_no_whole_archive_is_refused() {
    let whole = Tar::default().file("a", &[7; 5000]).file("b", &[9; 5000]).gz();
    refused(b"", Kind::Invalid, "no whole tar.gz");
    refused(b"not gzip at all", Kind::Invalid, "no whole tar.gz");
    refused(&gzip(&[b'x'; 700]), Kind::Invalid, "no whole tar.gz");
    for cut in [1, 8, whole.len() / 2] {
        refused(&whole[..whole.len() - cut], Kind::Invalid, "no whole tar.gz");
    }
    let mut flipped = whole.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    refused(&flipped, Kind::Invalid, "no whole tar.gz");
    refused(&gzip(&Tar::default().file("a", &[7; 5000]).0[..2000]), Kind::Invalid, "middle of an entry");
}

#[test]
fn an_archive_of_a_real_tar_comes_out_as_it_went_in() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let scratch = tempfile::tempdir().expect("scratch");
    let at = |name: &str| scratch.path().join(name);
    let long = "long/".repeat(30);
    std::fs::create_dir_all(at("in").join(&long)).expect("made");
    std::fs::write(at("in").join(&long).join("file"), "deep").expect("made");
    std::fs::write(at("in/tool"), "#!/bin/sh\n").expect("made");
    std::fs::set_permissions(at("in/tool"), PermissionsExt::from_mode(0o4755)).expect("ours");
    std::fs::create_dir(at("in/shut")).expect("made");
    std::fs::write(at("in/shut/inside"), "x").expect("made");
    std::fs::set_permissions(at("in/shut"), PermissionsExt::from_mode(0o555)).expect("ours");
    symlink("../tool", at("in/long/link")).expect("made");
    for format in ["gnu", "posix"] {
        let out = at(format);
        std::fs::create_dir(&out).expect("made");
        let made = std::process::Command::new("tar")
            .args(["--format", format, "-czf"])
            .args([at("a.tar.gz"), "-C".into(), at("in"), ".".into()])
            .status();
        assert!(made.expect("tar").success());
        let archive = std::fs::File::open(at("a.tar.gz")).expect("made");
        unpack(&Root::open(&out).expect("opens"), archive, MOST).expect("unpacks");
        let same = std::process::Command::new("diff").arg("-r").args([at("in"), out.clone()]).output().expect("diff");
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
        let tool = out.join("tool").metadata().expect("there");
        assert_eq!(tool.mode() & 0o7777, 0o755, "setuid is gone");
        assert_eq!(tool.mtime(), at("in/tool").metadata().expect("there").mtime());
        assert_eq!(std::fs::read_link(out.join("long/link")).expect("there"), std::path::Path::new("../tool"));
    }
}

proptest! {
    /// Whatever the names are: unpacking either refuses, or has put everything beneath its root.
    #[test]
    fn no_name_leads_outside(
        entries in proptest::collection::vec(
            (proptest::collection::vec(prop_oneof![Just(".."), Just("."), Just(""), Just("a"), Just("b")], 1..5), prop_oneof![Just(b'0'), Just(b'2'), Just(b'5')], "[ab./]{0,6}"), 1..6),
    ) {
        let scratch = tempfile::tempdir().expect("scratch");
        std::fs::create_dir_all(scratch.path().join("x/y/root")).expect("made");
        let root = Root::open(&scratch.path().join("x/y/root")).expect("opens");
        let tar = entries.iter().fold(Tar::default(), |tar, (names, kind, target)| match kind {
            b'2' => tar.link(&names.join("/"), b'2', target),
            b'0' => tar.file(&names.join("/"), b"content"),
            _ => tar.entry(&names.join("/"), b'5', b""),
        });
        let archive = tar.gz();
        let unpacked = unpack(&root, &*archive, MOST);
        prop_assert_eq!(unpacked.is_ok(), check(&archive).is_ok());
        if unpacked.is_err() {
            prop_assert_eq!(std::fs::read_dir(scratch.path().join("x/y/root")).expect("there").count(), 0);
        }
        for (directory, only) in [("", "x"), ("x", "y"), ("x/y", "root")] {
            let names: Vec<_> = std::fs::read_dir(scratch.path().join(directory)).expect("there").flatten().map(|e| e.file_name()).collect();
            prop_assert_eq!(names, [only]);
        }
    }

    /// Any bytes are an archive or none; nothing panics.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..2000), zip in any::<bool>()) {
        let archive = if zip { gzip(&noise) } else { noise };
        let _ = check(&archive);
    }
}
