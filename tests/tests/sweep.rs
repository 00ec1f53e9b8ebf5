//! What every system call number is answered, by the real filter on the real kernel: `tests/sweep` has it for review, and
//! the lists of the shim must say the same.

use protocol::policy::ExecutionClass::{self, Local, Networked, Readonly};
use shim::syscalls::profile::Architecture;
use tests::scene;
use tests::stage::{Cut, Profile, container_available};
use tests::supervisor::Supervisor;

/// What a confined agent of this class finds.
fn sweep(class: ExecutionClass) -> String {
    let builder = Supervisor::new().profile(Profile::Restricted).container().cut(&[Cut::Catch]);
    let mut supervisor = builder.set("agent-class", class.name()).agent([scene::PROBE, "sweep", class.name()]).start();
    supervisor.wait_exit();
    supervisor.stdout.to_end();
    let text = supervisor.stdout.text();
    assert!(text.ends_with("# end\n"), "it did not come to its end:\n{text}{}", supervisor.stderr.text());
    text
}

/// Bless a change on purpose with `BLESS=1 cargo test -p tests --test sweep`.
#[test]
fn every_number_is_answered_on_this_kernel_as_the_lists_say_and_changes_only_on_purpose() {
    if !container_available() {
        return;
    }
    for class in [Networked, Local, Readonly] {
        let (text, architecture) = (sweep(class), Architecture::NATIVE.name());
        let differences: Vec<&str> = text.lines().filter(|line| line.contains("the lists say")).collect();
        println!("goal=0 measured={} differences between lists and kernel, class {}", differences.len(), class.name());
        assert!(differences.is_empty(), "{}: {}", class.name(), differences.join("\n"));
        assert!(!text.contains("done, and answered"), "a call was done that should have been caught: {text}");
        let path = format!("{}/sweep/{architecture}-{}.txt", env!("CARGO_MANIFEST_DIR"), class.name());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &text).expect("the golden file is writable");
        }
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(known == text, "{path} differs from what the kernel answers; is that meant?");
    }
}
