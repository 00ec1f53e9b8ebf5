//! The answer of `supervisor preflight`: facts, guarantees as a real launch found them, and whether that is enough.

use protocol::guarantee::{Guarantee, Standing, State};
use protocol::policy::Enforcement;
use serde::Serialize;

use super::trial::{self, Trial};
use super::{Facts, Inputs, facts, render};
use crate::config::{Reader, Sources, parse};
use crate::exit::{self, Fault};
use crate::{launch, termination};

/// Everything, for people or programs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether an agent could be started with these settings.
    pub ok: bool,
    /// `required` or `best-effort`.
    pub enforcement: Enforcement,
    /// The guarantees that must hold.
    pub required: Vec<Guarantee>,
    /// How each stands here.
    pub guarantees: Vec<Standing>,
    /// The step at which a real launch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What this node gives.
    pub facts: Facts,
}

/// Look, launch, compare.
pub fn check(sources: &Sources) -> Result<Report, Fault> {
    let mut reader = Reader::new(sources);
    let launch = launch::Config::read(&mut reader, &[]);
    let mut inputs = Inputs {
        proc: "/proc".into(),
        binary: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
        state_dir: reader.value("state_dir", parse::any_path),
        workspace: launch.workspace.clone(),
        tmp: std::env::temp_dir(),
        token_file: reader.optional("api_token_file", parse::any_path),
        termination_log: reader
            .optional("termination_log", parse::any_path)
            .unwrap_or_else(|| termination::DEFAULT_PATH.into()),
        landlock_abi: None,
    };
    let mistakes = reader.finish();
    if !mistakes.is_empty() {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        return Err(Fault { code: exit::CONFIGURATION, reason: lines.join("\n") });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let trial = runtime.block_on(trial::run(&launch));
    let trial = trial.map_err(|reason| Fault { code: exit::CONFINEMENT, reason })?;
    inputs.landlock_abi = Some(trial.landlock_abi);
    Ok(Report::new(trial, launch, facts(&inputs)))
}

impl Report {
    fn new(trial: Trial, launch: launch::Config, facts: Facts) -> Report {
        let missing = |g: &Guarantee| trial.guarantees.iter().any(|s| s.guarantee == *g && s.state == State::Missing);
        let enough = launch.enforcement == Enforcement::BestEffort || !launch.guarantees.iter().any(missing);
        Report {
            ok: enough && trial.failure.is_none(),
            enforcement: launch.enforcement,
            required: launch.guarantees,
            guarantees: trial.guarantees,
            failure: trial.failure.map(|f| f.message),
            facts,
        }
    }

    /// 0, or that the confinement cannot be had.
    pub fn code(&self) -> u8 {
        if self.ok { 0 } else { exit::CONFINEMENT }
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = render(&self.facts);
        out.push('\n');
        for standing in &self.guarantees {
            let required = if self.required.contains(&standing.guarantee) { "required" } else { "" };
            let state = match standing.state {
                State::Holds => "holds",
                State::Fallback => "fallback",
                State::Missing => "MISSING",
                State::NotAsked => "not asked",
            };
            let line = format!("{:<26}{required:<10}{state:<11}{}", standing.guarantee.name(), standing.by);
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if let Some(failure) = &self.failure {
            out.push_str(&format!("\na launch failed: {failure}\n"));
        }
        out.push_str(if self.ok { "\nok\n" } else { "\nnot ok: a required guarantee does not hold on this node\n" });
        out
    }
}
