//! The agent's life from start to end, and what the container's end tells.

use tests::stage::{Pids, Profile, available};
use tests::supervisor::{End, Supervisor};

#[test]
fn the_exit_code_of_the_agent_is_the_exit_code_of_the_container() {
    let mut supervisor = Supervisor::new().shell("exit 7").start();
    assert_eq!(supervisor.wait_exit(), End::Code(7));
    assert_eq!(supervisor.termination()["exit"], 7);
}

#[test]
fn the_same_as_pid_1() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let mut supervisor = Supervisor::new().first().shell("echo $$; exit 9").start();
    assert_eq!(supervisor.wait_exit(), End::Code(9));
    eprintln!("{}", supervisor.stdout.text());
}
