//! The page, from the runs.

use std::fmt::Write;

use super::Run;
use crate::bench::Line;

const HEAD: &str = "# Evidence\n\n\
    What was promised, what was run, and what was seen. This page is made by `just evidence-page` from the files in `docs/evidence`, which \
    runs write (`just evidence torture kills` runs `just torture kills` and keeps what it shows); nothing here is written by hand, and a test \
    holds the page against the files. A goal that was missed says so. *Load* is how many processes wanted a core in the minute before a \
    run began: beside others, times are longer than they would be.\n";

/// All of it.
pub fn page(runs: &[Run]) -> String {
    let mut page = HEAD.to_owned();
    let numbers = runs.iter().flat_map(|run| &run.numbers);
    let (all, missed) = (numbers.clone().count(), numbers.filter(|number| !number.kept()).count());
    let _ = write!(page, "\n{} runs, {all} goals: {} kept, {missed} missed.\n", runs.len(), all - missed);
    contents(&mut page, runs);
    for run in runs {
        let _ = write!(page, "\n## `just {}`\n\n", run.command);
        let _ = write!(
            page,
            "{}, commit `{}`, {} s, load {:.1}, on {}.\n\n| promise | goal | measured | |\n|---|---|---|---|\n",
            run.date, run.revision, run.seconds, run.load, run.machine
        );
        run.numbers.iter().for_each(|number| row(&mut page, number));
    }
    page
}

/// Each run with how it ended.
fn contents(page: &mut String, runs: &[Run]) {
    page.push_str("\n| run | date | commit | goals | missed |\n|---|---|---|---|---|\n");
    for run in runs {
        let missed = run.numbers.iter().filter(|number| !number.kept()).count();
        let (day, _) = run.date.split_once('T').unwrap_or((&run.date, ""));
        let (command, revision, goals) = (&run.command, &run.revision, run.numbers.len());
        let place = anchor(command);
        let _ = writeln!(page, "| [`{command}`](#{place}) | {day} | `{revision}` | {goals} | {missed} |");
    }
}

/// Of a run's heading, as readers of Markdown make them: small letters, digits and dashes, and a dash for each space.
fn anchor(command: &str) -> String {
    let letters = format!("just {command}").to_lowercase().replace(' ', "-");
    letters.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

fn row(page: &mut String, number: &Line) {
    let bound = if number.at_least { "≥" } else { "≤" };
    let verdict = if number.kept() { "kept" } else { "**missed**" };
    let what = number.what.replace('|', "\\|");
    let (goal, measured) = (plain(number.goal), plain(number.measured));
    let _ = writeln!(page, "| {what} | {bound} {goal} {unit} | {measured} {unit} | {verdict} |", unit = number.unit);
}

/// Whole numbers with a comma after each three digits, others with three digits.
fn plain(value: f64) -> String {
    if value.fract() != 0.0 || !value.is_finite() {
        return format!("{value:.3}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_its_heading() {
        assert_eq!(anchor("fleet --links 10000 --kill"), "just-fleet---links-10000---kill");
    }

    #[test]
    fn numbers_are_written_so_that_people_can_read_them() {
        let cases = [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (10_000_000.0, "10,000,000"),
            (0.5, "0.500"),
            (-1234.0, "-1,234"),
        ];
        cases.iter().for_each(|(value, text)| assert_eq!(plain(*value), *text));
    }
}
