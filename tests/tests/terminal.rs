//! Where standard input is a terminal, the agent gets it.

use std::fs::File;
use std::io::Write;

use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use tests::output::Output;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::Supervisor;

fn terminal() -> (File, std::path::PathBuf) {
    let master: PtyMaster = posix_openpt(nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY).expect("/dev/ptmx");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a fresh pty");
    let name = ptsname_r(&master).expect("a fresh pty");
    (File::from(std::os::fd::OwnedFd::from(master)), name.into())
}

#[test]
fn the_agent_has_the_terminal_and_its_foreground() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let (mut master, name) = terminal();
    let screen = Output::read(master.try_clone().expect("a descriptor"), false);
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; \
                  ps -o tpgid= -o pgid= -p $$ | { read t p; test $t = $p && echo foreground; }; \
                  read line; echo \"read $line\"; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut supervisor = Supervisor::new().terminal(name).shell(script).start();
    screen.wait_text("terminal");
    screen.wait_text("foreground");
    master.write_all(b"hello\n").expect("the terminal");
    screen.wait_text("read hello");
    screen.wait_text("ready");
    // control-C at the keyboard: the kernel sends INT to the foreground group, which is the agent's
    master.write_all(&[3]).expect("the terminal");
    screen.wait_text("interrupted");
    assert_eq!(supervisor.wait_code(), 3);
}
