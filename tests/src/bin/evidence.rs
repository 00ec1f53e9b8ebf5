//! `evidence`: docs/evidence.md from the runs that are kept in docs/evidence.

use std::path::Path;
use std::process::ExitCode;

use tests::evidence::{page, runs};

fn main() -> ExitCode {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    match std::fs::write(docs.join("evidence.md"), page(&runs(&docs.join("evidence")))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evidence: docs/evidence.md cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
