//! The answer of `supervisor preflight`: facts, guarantees as a real launch found them, the mistakes that `run` would
//! refuse, and whether that is enough.

use std::path::PathBuf;

use protocol::guarantee::{Guarantee, Standing, State};
use protocol::policy::Enforcement;
use serde::Serialize;

use super::trial::{self, Trial};
use super::{Facts, Inputs, facts, render};
use crate::config::{Reader, Sources, parse};
use crate::exit::{self, Fault};
use crate::{app, launch, termination};

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
    /// What `run` would refuse, each in its words.
    pub mistakes: Vec<String>,
    /// What this node gives.
    pub facts: Facts,
}

/// Look, launch, compare. A mistake does not end it: the facts may be what explains it.
pub fn check(sources: &Sources) -> Result<Report, Fault> {
    let mut reader = Reader::new(sources);
    let state_dir = reader.value("state_dir", parse::any_path);
    let token_file = reader.optional("api_token_file", parse::any_path);
    let termination_log = reader.optional("termination_log", parse::any_path);
    let settings_file = reader.optional("config", parse::any_path);
    let ours = [Some(&state_dir), token_file.as_ref(), termination_log.as_ref(), settings_file.as_ref()];
    let hidden: Vec<PathBuf> = ours.into_iter().flatten().cloned().collect();
    // What cannot be read stands at its default, so that something can be launched; `mistakes` has it by name.
    let launch = launch::Config::read(&mut reader, &hidden);
    let mistakes = app::Config::read(sources, Vec::new()).err().unwrap_or_default();
    let mut inputs = Inputs {
        proc: "/proc".into(),
        binary: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
        state_dir,
        workspace: launch.workspace.clone(),
        tmp: std::env::temp_dir(),
        token_file,
        termination_log: termination_log.unwrap_or_else(|| termination::DEFAULT_PATH.into()),
        landlock_abi: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Fault::new(exit::INTERNAL, &e))?;
    let trial = runtime.block_on(trial::run(&launch));
    let trial = trial.map_err(|reason| Fault { code: exit::CONFINEMENT, reason })?;
    inputs.landlock_abi = Some(trial.landlock_abi);
    let mistakes = mistakes.iter().map(ToString::to_string).collect();
    Ok(Report::new(trial, mistakes, launch, facts(&inputs)))
}

impl Report {
    fn new(trial: Trial, mistakes: Vec<String>, launch: launch::Config, facts: Facts) -> Report {
        let mut report = Report {
            ok: false,
            enforcement: launch.enforcement,
            required: launch.guarantees,
            guarantees: trial.guarantees,
            failure: trial.failure.map(|f| f.message),
            mistakes,
            facts,
        };
        report.ok = report.code() == 0;
        report
    }

    /// 0; that the confinement cannot be had; or, where it can, that the settings are wrong.
    pub fn code(&self) -> u8 {
        match (self.is_confined(), self.mistakes.is_empty()) {
            (false, _) => exit::CONFINEMENT,
            (true, false) => exit::CONFIGURATION,
            (true, true) => 0,
        }
    }

    fn is_confined(&self) -> bool {
        let is_missing = |g: &Guarantee| self.guarantees.iter().any(|s| s.guarantee == *g && s.state == State::Missing);
        let enough = self.enforcement == Enforcement::BestEffort || !self.required.iter().any(is_missing);
        enough && self.failure.is_none()
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
        for mistake in &self.mistakes {
            out.push_str(&format!("\nrun would refuse: {mistake}"));
        }
        out.push_str(if self.mistakes.is_empty() { "\n" } else { "\n\n" });
        out.push_str(match (self.is_confined(), self.ok) {
            (false, _) => "not ok: a required guarantee does not hold on this node\n",
            (true, false) => "not ok: the settings are refused\n",
            (true, true) => "ok\n",
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(states: &[State], mistakes: &[&str]) -> Report {
        let sources = Sources::gather(BTreeMap::new(), Vec::new());
        let launch = launch::Config::read(&mut Reader::new(&sources), &[]);
        let standing = |(g, state): (&Guarantee, &State)| Standing { guarantee: *g, state: *state, by: String::new() };
        let guarantees = launch.guarantees.iter().zip(states).map(standing).collect();
        let facts = facts(&Inputs {
            proc: "/no/such".into(),
            binary: "/no/such".into(),
            state_dir: "/no/such".into(),
            workspace: "/no/such".into(),
            tmp: "/no/such".into(),
            token_file: None,
            termination_log: "/no/such".into(),
            landlock_abi: None,
        });
        let mistakes = mistakes.iter().map(ToString::to_string).collect();
        Report::new(Trial { guarantees, ..Trial::default() }, mistakes, launch, facts)
    }

    #[test]
    fn a_mistake_is_told_beside_the_facts_and_a_missing_guarantee_outweighs_it() {
        let fine = report(&[State::Holds], &[]);
        assert!((fine.ok, fine.code()) == (true, 0) && fine.table().ends_with("\n\nok\n"), "{}", fine.table());
        let wrong = report(&[State::Holds], &["API_TOKEN_FILE is empty"]);
        assert_eq!((wrong.ok, wrong.code()), (false, exit::CONFIGURATION));
        assert!(wrong.table().contains("run would refuse: API_TOKEN_FILE is empty\n"), "{}", wrong.table());
        let json: serde_json::Value = serde_json::from_str(&wrong.json()).expect("json");
        assert_eq!(json["mistakes"][0], "API_TOKEN_FILE is empty");
        assert!(json["facts"].is_object());
        let both = report(&[State::Missing], &["API_TOKEN_FILE is empty"]);
        assert_eq!((both.ok, both.code()), (false, exit::CONFINEMENT));
    }
}
