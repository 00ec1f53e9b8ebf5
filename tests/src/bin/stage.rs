//! `stage OPTIONS -- ARGV`: run ARGV as a Pod would run it. See `tests::stage`.

use std::process::ExitCode;

use tests::stage::{Stage, inner, outer};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let inside = arguments.next_if(|a| a == "inner").is_some();
    let result = Stage::parse(arguments).and_then(|stage| if inside { inner(&stage) } else { outer(&stage) });
    match result {
        Ok(code) => ExitCode::from(code as u8),
        Err(problem) => {
            eprintln!("stage: {problem}");
            ExitCode::from(125)
        }
    }
}
