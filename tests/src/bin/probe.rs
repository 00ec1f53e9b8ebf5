//! `probe NAME`: try one escape. See `tests::probes`.

use std::io::Write;
use std::process::ExitCode;

use tests::probes::{self, Outcome, Target, outsider, stand_in};
use tests::scene::OUTSIDER;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let operand = arguments.next().unwrap_or_default();
    let served = match name.as_str() {
        OUTSIDER => outsider::run().map_err(Into::into),
        "stand-in" => stand_in::supervisor(&operand),
        "stand-in-shim" => stand_in::shim(&operand),
        "list" => {
            probes::all().for_each(|p| println!("{} ({})", p.name, p.guards.name()));
            Ok(())
        }
        "setuid-child" => return probes::setuid_child(),
        "open-terminal" => return tell(&probes::terminal::open_another(&operand)),
        _ => return attempt(&name),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("probe {name}: {problem}");
            ExitCode::from(125)
        }
    }
}

fn attempt(name: &str) -> ExitCode {
    let Some(probe) = probes::find(name) else {
        eprintln!("probe: there is no probe {name:?}; `probe list` shows all");
        return ExitCode::from(64);
    };
    tell(&(probe.run)(&Target::look()))
}

fn tell(outcome: &Outcome) -> ExitCode {
    println!("{outcome}");
    // the line is the verdict even where the exit code is lost with the shim
    let _ = std::io::stdout().flush();
    ExitCode::from(outcome.code())
}
