//! The account of a sandbox that had one task.

use std::time::Instant;

use super::*;

const WELL: &str = "succeeded";

fn event(class: Class, seq: i64, kind: &str, body: Value) -> Value {
    json!({"class": class.name(), "epoch": "e", "seq": seq, "record": {"kind": kind, "body": body}})
}

fn gap(class: Class, seq: i64, reason: &str) -> Value {
    json!({"class": class.name(), "epoch": "e", "gap": {"from": seq, "to": seq, "reason": reason}})
}

fn task(state: &str) -> Value {
    json!({"task_id": "t", "state": state, "started_at": "then", "output": {"cut_bytes": 0}})
}

fn state(seq: i64, word: &str) -> Value {
    event(Class::Lifecycle, seq, &format!("task.{word}"), json!({"task_id": "t"}))
}

fn result(seq: i64, word: &str) -> Value {
    event(Class::Results, seq, "task.result", task(word))
}

fn line(seq: i64, number: i64) -> Value {
    event(Class::Logs, seq, "line", json!({"task_id": "t", "text": format!("t {number}")}))
}

/// Its client saw the task created, it has succeeded, and the gateway has what follows behind its start.
fn account(cost: Cost, rest: &[Value]) -> Account {
    let told = [("t".to_owned(), Told { at: Instant::now(), end: Some(WELL.into()) })].into();
    settled(cost, rest, &told, &BTreeSet::new())
}

fn settled(cost: Cost, rest: &[Value], told: &BTreeMap<String, Told>, refused: &BTreeSet<String>) -> Account {
    let events = [&[state(1, "starting"), state(2, "running")][..], rest].concat();
    let number = |event: &Value| event["seq"].as_i64().or(event["gap"]["to"].as_i64());
    let last = |class: Class| {
        let of_class = events.iter().filter(|event| event["class"] == class.name());
        (class, of_class.filter_map(number).max().unwrap_or(0))
    };
    let produced = Produced { epoch: "e".into(), last: Class::ALL.map(last).into() };
    let tasks = [("t".to_owned(), task(WELL))].into();
    let mut account = Account::of(cost);
    let excused = Excused::of(cost, &account.count(&events, &produced));
    account.deliver(told, &events);
    account.check((told, refused), &tasks, &events, excused);
    account
}

/// How often an end is not there once, and how often it is another.
fn ends(cost: Cost, rest: &[Value]) -> (usize, usize) {
    let account = account(cost, rest);
    (account.ends, account.altered)
}

#[test]
fn all_that_is_there_once_and_as_it_is_told_is_right() {
    let rest = [state(3, WELL), result(1, WELL), line(1, 1), line(2, 2), line(3, 3)];
    let account = account(Cost::Nothing, &rest);
    assert!(!account.is_wrong());
    assert!(account.gaps("", 0).kept() && account.delivered("", 100.0).kept());
}

#[test]
fn an_end_that_is_missing_doubled_or_another_one_is_noticed_whatever_the_gap_says() {
    for (rest, expected) in [
        (vec![gap(Class::Lifecycle, 3, "disk"), result(1, WELL)], (1, 0)),
        (vec![state(3, WELL), gap(Class::Results, 1, "damaged")], (1, 0)),
        (vec![state(3, WELL), state(4, WELL), result(1, WELL)], (1, 0)),
        (vec![state(3, WELL), result(1, WELL), result(2, WELL)], (1, 0)),
        (vec![state(3, "failed"), result(1, WELL)], (0, 1)),
        (vec![state(3, WELL), result(1, "failed")], (0, 1)),
    ] {
        assert_eq!(ends(Cost::Nothing, &rest), expected, "{rest:?}");
    }
}

#[test]
fn a_gap_that_the_faults_explain_excuses_what_is_missing_and_nothing_else() {
    let (no_state, no_result) = (gap(Class::Lifecycle, 3, "disk"), gap(Class::Results, 1, "disk"));
    for (rest, expected) in [
        (vec![no_state.clone(), result(1, WELL)], (0, 0)),
        (vec![state(3, WELL), no_result.clone()], (0, 0)),
        (vec![no_state.clone(), result(1, WELL), result(2, WELL)], (1, 0)),
        (vec![state(3, WELL), state(4, WELL), no_result.clone()], (1, 0)),
        (vec![no_state, result(1, "failed")], (0, 1)),
        (vec![state(3, "failed"), no_result], (0, 1)),
        (vec![gap(Class::Lifecycle, 3, "crash"), result(1, WELL)], (1, 0)),
    ] {
        assert_eq!(ends(Cost::Refused, &rest), expected, "{rest:?}");
    }
}

#[test]
fn a_line_brings_those_before_it_unless_lines_are_in_a_gap() {
    let missing = |rest: &[Value]| account(Cost::Nothing, rest).missing;
    assert_eq!(missing(&[line(1, 1), line(2, 3)]), 1);
    assert_eq!(missing(&[line(1, 2)]), 1);
    assert_eq!(missing(&[line(1, 1), gap(Class::Logs, 2, "budget"), line(3, 3)]), 0);
}

#[test]
fn gaps_are_wrong_unless_the_faults_explain_them_or_few_are_in_doubt() {
    let kept = |cost, class, reason, doubts| account(cost, &[gap(class, 3, reason)]).gaps("", doubts).kept();
    assert!(kept(Cost::Nothing, Class::Metrics, "crash", 1) && !kept(Cost::Nothing, Class::Metrics, "crash", 0));
    assert!(!kept(Cost::Nothing, Class::Metrics, "evicted", 1) && kept(Cost::Room, Class::Metrics, "evicted", 0));
    assert!(kept(Cost::Refused, Class::Logs, "damaged", 0) && !kept(Cost::Room, Class::Logs, "damaged", 0));
    let unsynced = |always| Cost::Unsynced { always };
    assert!(kept(unsynced(true), Class::Logs, "damaged", 0) && !kept(unsynced(true), Class::Results, "damaged", 0));
    assert!(kept(unsynced(false), Class::Results, "damaged", 0));
}

#[test]
fn a_task_that_was_refused_and_is_there_is_noticed() {
    let rest = [state(3, WELL), result(1, WELL)];
    let account = settled(Cost::Nothing, &rest, &BTreeMap::new(), &["t".to_owned()].into());
    assert_eq!((account.refused, account.came_back), (1, 1));
}
