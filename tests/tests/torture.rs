//! Small forms of what `just torture` does, where no other test does it.

use tests::bench::Line;
use tests::torture;

/// All are printed, and those that are counts are as they should be: what a time may be is for a machine that does nothing else, and what a machine
/// lacks is printed as skipped here.
fn kept(lines: &[Line]) -> bool {
    lines.iter().for_each(Line::print);
    lines.iter().filter(|line| !["ms", "kinds"].contains(&&*line.unit)).all(Line::kept)
}

#[test]
fn power_cuts_under_load_lose_and_double_nothing_that_waited_for_the_disk() {
    assert!(kept(&torture::power::measure(12)));
}

#[test]
fn calls_that_a_disk_refuses_cost_no_record_and_no_exit() {
    assert!(kept(&torture::disk::measure(6)));
}

#[test]
fn calls_that_a_kernel_refuses_cost_no_record_no_task_and_no_exit() {
    assert!(kept(&torture::calls::measure(5)));
}

#[test]
fn whatever_is_killed_beneath_a_supervisor_it_stays_and_each_task_has_one_end() {
    assert!(kept(&torture::trees::measure(60)));
}

#[test]
fn faults_of_network_disk_and_scheduler_pass_and_lose_nothing() {
    assert!(kept(&torture::faults::measure(torture::faults::ALL, false)));
}

#[test]
fn secrets_are_replaced_while_records_flow_and_nobody_falls_back() {
    assert!(kept(&torture::rotation::measure(4)));
}

#[test]
fn gateways_are_replaced_one_after_the_other_and_nobody_is_away_for_long() {
    assert!(kept(&torture::rolling::measure(2)));
}

#[test]
fn of_two_supervisors_that_are_one_sandbox_only_the_newer_is_stored_and_answers() {
    assert!(kept(&torture::twins::measure(4)));
}
