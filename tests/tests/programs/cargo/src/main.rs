//! A crate without dependencies.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || n)).collect();
    let sum: i32 = threads.into_iter().map(|t| t.join().expect("it only counts")).sum();
    let child = Command::new("sh").args(["-c", "exit 6"]).status().expect("a shell");
    println!("OK {} {sum} {:?}", env!("BUILT_BY"), child.code());
    ExitCode::from(46)
}

#[test]
fn a_test_runs() {
    assert_eq!(env!("BUILT_BY"), "script");
}
