//! `just fuzz [--runs N] [--jobs N] [TARGET...]`: so many executions of each target, and what they reached is kept.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use fuzz::{TARGETS, Target, corpus, find};
use tests::bench::Line;
use tests::evidence;

/// Of each target.
const RUNS: u64 = 10_000_000;
/// Of each target the kept inputs have the bytes of so many of its longest ones, or so many bytes where those are short.
const KEPT: (usize, usize) = (6, 16 * 1024);
/// The engine's own code for an end by hand, INT or TERM: no finding, and too few executions.
const INTERRUPTED: i32 = 72;

struct Plan {
    runs: u64,
    jobs: usize,
    targets: VecDeque<&'static Target>,
}

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(problem) => {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("fuzz: {problem}; [--runs N] [--jobs N] [TARGET...], of {}", names.join(", "));
            return ExitCode::from(64);
        }
    };
    // `just fuzz` builds it first.
    let engine = PathBuf::from(std::env::var_os("FUZZ_ENGINE").expect("`just fuzz` says where the engine is"));
    let place = PathBuf::from(std::env::var_os("FUZZ_PLACE").expect("`just fuzz` says where to work"));
    let begun = evidence::begin();
    let (runs, left, lines) = (plan.runs, Mutex::new(plan.targets), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                while let Some(target) = next(&left) {
                    let found = try_target(target, runs, &engine, &place.join(target.name));
                    found.iter().for_each(Line::print);
                    lines.lock().expect("no thread panics with it").extend(found);
                }
            });
        }
    });
    if begun.end(&lines.into_inner().expect("no thread panics with it")) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn next(left: &Mutex<VecDeque<&'static Target>>) -> Option<&'static Target> {
    left.lock().expect("no thread panics with it").pop_front()
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan { runs: RUNS, jobs: 1, targets: VecDeque::new() };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        match argument.as_str() {
            "--runs" => plan.runs = number().ok_or("--runs needs a number")?,
            "--jobs" => plan.jobs = number().ok_or("--jobs needs a number")? as usize,
            name => plan.targets.push_back(find(name).ok_or_else(|| format!("there is no target {name}"))?),
        }
    }
    if plan.targets.is_empty() {
        plan.targets.extend(TARGETS);
    }
    Ok(plan)
}

/// Try it, and keep the smallest set of inputs that reaches what all of them reach.
fn try_target(target: &Target, runs: u64, engine: &Path, place: &Path) -> Vec<Line> {
    let (inputs, merged) = (place.join("inputs"), place.join("merged"));
    corpus::unpack(target, &inputs).expect("our own directory");
    let _ = std::fs::remove_dir_all(&merged);
    std::fs::create_dir_all(&merged).expect("our own directory");
    let command = |arguments: &[String]| {
        let mut command = Command::new(engine);
        // What takes long is the target's to find; this is for what stands still.
        let limits = ["-timeout=60", "-rss_limit_mb=512", "-print_final_stats=1", "-verbosity=0"];
        command.env("FUZZ_TARGET", target.name).args(limits).arg(format!("-max_len={}", target.longest));
        command.arg(format!("-artifact_prefix={}/", place.display())).args(arguments);
        command.stdin(Stdio::null()).output().expect("the engine runs")
    };
    let output = command(&[format!("-runs={runs}"), inputs.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let executed =
        said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok());
    let holds = output.status.success() || output.status.code() == Some(INTERRUPTED);
    if holds {
        command(&["-merge=1".into(), merged.display().to_string(), inputs.display().to_string()]);
        corpus::pack(target, &merged, KEPT.1.max(KEPT.0 * target.longest)).expect("our own directory");
    } else {
        eprintln!("{said}\n{} broke its promise: FUZZ_TARGET={} {} FILE", target.name, target.name, engine.display());
    }
    let what = |what: &str| format!("fuzz target `{}`: {what}", target.name);
    vec![
        Line::at_least(what("executions"), runs as f64, executed.unwrap_or(0.0), "executions"),
        Line::new(
            what("crashes, broken promises, and inputs that took a second"),
            0.0,
            f64::from(u8::from(!holds)),
            "inputs",
        ),
    ]
}
