//! `probe NAME`: try one escape. See `tests::probes`.

use std::io::Write;
use std::process::ExitCode;

use protocol::policy::ExecutionClass;
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
        "sweep" => return sweep(&operand),
        "setuid-child" => return probes::setuid_child(),
        "capable-child" => return probes::capable_child(),
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

/// See `tests::sweep`.
fn sweep(class: &str) -> ExitCode {
    let all = [ExecutionClass::Networked, ExecutionClass::Local, ExecutionClass::Readonly];
    let Some(class) = all.into_iter().find(|known| known.name() == class) else { return ExitCode::from(64) };
    println!(
        "# number name: answer to zeros, then where another argument:value changes it; 2^32 is a bit that the kernel drops"
    );
    tests::sweep::lines(class).iter().for_each(|line| println!("{line}"));
    println!("# end");
    ExitCode::SUCCESS
}

fn tell(outcome: &Outcome) -> ExitCode {
    println!("{outcome}");
    // the line is the verdict even where the exit code is lost with the shim
    let _ = std::io::stdout().flush();
    ExitCode::from(outcome.code())
}
