use std::io::{IoSlice, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};

use super::*;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(test)
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("exists").permissions().mode() & 0o777
}

fn bind() -> (tempfile::TempDir, Notify) {
    let dir = tempfile::tempdir().expect("scratch");
    let notify = Notify::bind(&[dir.path().to_owned()]).expect("bound");
    (dir, notify)
}

#[test]
fn the_first_usable_directory_holds_the_socket_until_it_is_dropped() {
    run(async {
        let dir = tempfile::tempdir().expect("scratch");
        let long = dir.path().join("x".repeat(120)); // longer than an address can be: unix(7)
        std::fs::create_dir(&long).expect("made");
        let good = dir.path().join("good");
        std::fs::create_dir(&good).expect("made");
        let notify = Notify::bind(&[dir.path().join("missing"), long.clone(), good.clone()]).expect("bound");
        let socket = notify.path().to_owned();
        assert!(socket.starts_with(&good));
        assert!(socket.metadata().expect("exists").file_type().is_socket());
        assert_eq!((mode(&socket), mode(socket.parent().expect("a directory"))), (0o666, 0o711));
        drop(notify);
        for dir in [&good, &long] {
            assert_eq!(std::fs::read_dir(dir).expect("lists").count(), 0, "nothing is left in {dir:?}");
        }
    });
}

#[test]
fn all_directories_that_were_tried_are_named() {
    run(async {
        let dirs = [PathBuf::from("/proc/a"), PathBuf::from("/proc/b")];
        let error = Notify::bind(&dirs).expect_err("nothing can be made there");
        assert!(error.to_string().contains("/proc/a, /proc/b"), "{error}");
    });
}

#[test]
fn the_agent_is_heard_and_strangers_are_not() {
    run(async {
        let (_dir, mut notify) = bind();
        let sender = StdDatagram::unbound().expect("socket");
        sender.send_to(b"STOPPING=1", notify.path()).expect("sent");
        sender.send_to(b"READY=1\nSTATUS=up", notify.path()).expect("sent");
        let mut seen = Vec::new();
        let said = notify.next(|pid, uid| {
            seen.push((pid, uid));
            seen.len() > 1
        });
        assert_eq!(said.await.expect("received"), [Message::Ready, Message::Status("up".into())]);
        let us = (std::process::id() as i32, nix::unistd::getuid().as_raw());
        assert_eq!(seen, [us, us]);
    });
}

#[test]
fn descriptors_are_closed_unseen_and_their_datagram_is_ignored() {
    run(async {
        let (_dir, mut notify) = bind();
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let sender = StdDatagram::unbound().expect("socket");
        let address = UnixAddr::new(notify.path()).expect("short");
        let passed = [writer.as_raw_fd()];
        sendmsg(
            sender.as_raw_fd(),
            &[IoSlice::new(b"FDSTORE=1\nREADY=1")],
            &[ControlMessage::ScmRights(&passed)],
            MsgFlags::empty(),
            Some(&address),
        )
        .expect("sent");
        drop(writer);
        sender.send_to(b"WATCHDOG=1", notify.path()).expect("sent");
        assert_eq!(notify.next(|_, _| true).await.expect("received"), [Message::Watchdog]);
        // The pipe ends, so nobody holds its other end any more: were it open here, this would wait for ever.
        assert_eq!(reader.read(&mut [0]).expect("reads"), 0);
    });
}

#[test]
fn a_datagram_beyond_4_kib_is_ignored() {
    run(async {
        let (_dir, mut notify) = bind();
        let sender = StdDatagram::unbound().expect("socket");
        let mut long = b"READY=1\n".to_vec();
        long.resize(MAX_DATAGRAM + 1, b'x');
        sender.send_to(&long, notify.path()).expect("sent");
        long.truncate(MAX_DATAGRAM);
        sender.send_to(&long, notify.path()).expect("sent");
        assert_eq!(notify.next(|_, _| true).await.expect("received"), [Message::Ready]);
    });
}

#[test]
fn a_directory_put_in_the_place_of_ours_is_left_alone() {
    run(async {
        let (dir, notify) = bind();
        let ours = notify.path().parent().expect("a directory").to_owned();
        let victim = dir.path().join("victim");
        std::fs::create_dir(&victim).expect("made");
        std::fs::write(victim.join(SOCKET), "kept").expect("made");
        std::fs::rename(&ours, dir.path().join("moved")).expect("moved");
        std::os::unix::fs::symlink(&victim, &ours).expect("link");
        drop(notify);
        assert_eq!(std::fs::read(victim.join(SOCKET)).expect("still there"), b"kept");
    });
}
