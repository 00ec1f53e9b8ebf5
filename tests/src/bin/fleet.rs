//! `fleet [--links N] [--real N] [--gateways N] [--rate N] [--tasks N] [--hold SECONDS] [--tls] [--backlog KIB] [--add] [--kill] [--lose] [--drain]`: thousands of sandboxes at a real gateway, of what
//! `just dist` left; docs/fleet.md says what it shows. `fleet agents` is a part of it that it starts itself; `fleet record` prints what simulated sandboxes are to tell
//! of tasks (tests/src/fleet/recording.json).

use std::process::ExitCode;
use std::time::Duration;

use tests::bench::Line;
use tests::fleet::{self, Plan, agents, recording};
use tests::{binaries, evidence, interrupt};

const USAGE: &str = "fleet: --links N, --real N of them, --gateways N, --rate N and --tasks N (in a second), --hold SECONDS, --backlog KIB, --kill, --lose of several gateways, --drain; or --add without the last three; or --tls without these and with one gateway";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, share] = arguments.as_slice()
        && word == "agents"
    {
        return agents::run(share);
    }
    binaries::prefer_dist();
    if arguments == ["record"] {
        let text = serde_json::to_string_pretty(&recording::record()).expect("plain data");
        println!("{text}");
        return ExitCode::SUCCESS;
    }
    let Some(plan) = plan(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let program = std::env::current_exe().expect("/proc is mounted");
    let begun = evidence::begin();
    let lines = match interrupt::run(|| fleet::run(&plan, &program)) {
        Ok(lines) => lines,
        Err(code) => return code,
    };
    lines.iter().for_each(Line::print);
    let shown = evidence::shown("fleet", &lines);
    if begun.end(&lines) && shown { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let mut plan = Plan::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
        match argument.as_str() {
            "--links" => plan.links = number()?,
            "--real" => plan.real = number()?,
            "--gateways" => plan.gateways = number()?,
            "--rate" => plan.rate = number()?,
            "--tasks" => plan.tasks = number()? as f64,
            "--hold" => plan.hold = Duration::from_secs(number()? as u64),
            "--tls" => plan.tls = true,
            "--backlog" => plan.backlog = Some(number()?),
            "--add" => plan.add = true,
            "--kill" => plan.kill = true,
            "--lose" => plan.lose = true,
            "--drain" => plan.drain = true,
            _ => return None,
        }
    }
    let replaced = plan.kill || plan.lose || plan.drain;
    let changed = replaced || plan.add || plan.backlog.is_some();
    let tls = plan.tls && (changed || plan.gateways > 1);
    let wrong = plan.real >= plan.links || plan.add && replaced || plan.lose && plan.gateways < 2 || tls;
    (!wrong).then_some(plan)
}
