//! What seeds have found, each as the few steps that it needs.

use super::net::{Way, Whim};
use super::plan::{Plan, Step};
use super::{Done, fewest, run};

fn holds(ends: u64, steps: Vec<(u64, Step)>) -> Done {
    let plan = Plan { seed: 1, sandboxes: 1, ends, steps };
    run(&plan, false).unwrap_or_else(|error| panic!("{plan}{error}"))
}

/// A box on the way lost a frame, and the supervisor took the next command for the first.
#[test]
fn a_command_that_was_lost_on_the_way_is_sent_again_before_the_next_one() {
    let meddle = Step::Meddle { who: 0, way: Way::Down, whim: Whim::Lose };
    holds(5_000, vec![(2_500, meddle), (2_501, Step::Command { who: 0, count: 5 })]);
}

/// A later command came first, and the earlier one was taken for one that is behind us.
#[test]
fn commands_that_overtake_each_other_are_applied_in_their_order() {
    let meddle = Step::Meddle { who: 0, way: Way::Down, whim: Whim::Overtake };
    holds(5_000, vec![(2_500, meddle), (2_501, Step::Command { who: 0, count: 5 })]);
}

/// A box on the way lost the last record before a silence, or the word that it had come: nothing that came later showed it.
#[test]
fn a_record_or_its_acknowledgement_that_was_lost_on_the_way_is_noticed_at_the_next_beat() {
    for way in [Way::Up, Way::Down] {
        // Whatever the first messages behind it are: of some seconds, one each.
        let meddle = |at| (at, Step::Meddle { who: 0, way, whim: Whim::Lose });
        let done = holds(5_000, (1..12).map(|number| meddle(number * 400)).collect());
        assert!(done.missed > 0, "{done:?}");
    }
}

/// A box on the way lost what became of some commands, and what became of later ones was acknowledged: the gateway was never told of the
/// first.
#[test]
fn what_became_of_a_command_is_told_again_where_it_was_lost_on_the_way() {
    let meddle = |at| (at, Step::Meddle { who: 0, way: Way::Up, whim: Whim::Lose });
    let command = |at| (at, Step::Command { who: 0, count: 3 });
    holds(5_000, vec![command(2_000), meddle(2_000), command(2_050), meddle(2_100), command(2_100), command(2_300)]);
}

/// The disk was full when power came back, and the gap of the crash was written when there was room again: nobody looked for it.
#[test]
fn a_gap_that_could_not_be_written_is_told_when_it_was() {
    let (fill, lose) = (Step::Fill { who: 0, ms: 20_000 }, Step::LosePower { who: 0, ms: 6 });
    holds(18_110, vec![(9_515, fill), (17_585, lose)]);
}

/// Of two messages one was lost and one came twice, so that their count was right.
#[test]
fn a_record_that_was_lost_is_noticed_where_another_one_came_twice() {
    for way in [Way::Up, Way::Down] {
        let meddle = |at, whim| (at, Step::Meddle { who: 0, way, whim });
        for [first, second] in [[Whim::Double, Whim::Lose], [Whim::Lose, Whim::Double]] {
            let done = holds(5_000, vec![meddle(3_000, first), meddle(4_000, second)]);
            assert!(done.missed > 0, "{done:?}");
        }
    }
}

/// Whether it was done or not, whoever asked the database was told that it was not.
#[test]
fn a_database_that_fails_or_does_not_say_what_it_has_done_loses_and_doubles_nothing() {
    for does in [true, false] {
        let fail = |at| (at, Step::Fail { ms: 1_500, does });
        let done = holds(20_000, vec![fail(3_000), (3_500, Step::Command { who: 0, count: 3 }), fail(9_000)]);
        assert!(done.delivered > 0, "{done:?}");
    }
}

#[test]
fn of_a_run_the_steps_are_left_that_it_fails_with_and_no_other() {
    // For once it is a failure that a command is applied, and the disk was full before.
    let commands = |plan: &Plan| run(plan, false).is_ok_and(|done| done.commands > plan.sandboxes);
    let fails = |plan: &Plan| {
        let full = plan.steps.iter().any(|(_, step)| matches!(step, Step::Fill { .. }));
        full && commands(plan)
    };
    let plan = (1..).map(Plan::of).find(|plan| plan.len() > 12 && fails(plan)).expect("a seed");
    let left = plan.only(&fewest(&plan, fails));
    assert!(fails(&left), "{left}");
    let kinds = |wanted: fn(&Step) -> bool| left.steps.iter().filter(|(_, step)| wanted(step)).count();
    let (full, given) =
        (kinds(|step| matches!(step, Step::Fill { .. })), kinds(|step| matches!(step, Step::Command { .. })));
    assert_eq!((full, given, left.len()), (1, 1, 2), "of {} steps are left:\n{left}", plan.len());
}
