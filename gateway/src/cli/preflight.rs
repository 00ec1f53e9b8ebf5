//! `gateway preflight`: whether the backend could work here, in one report.

use clap::{Arg, ArgAction, ArgMatches, Command};
use gateway::backend::kubernetes::Kubernetes;
use gateway::backend::kubernetes::preflight::Finding;
use gateway::exit::{self, Fault};

/// The command, without the settings.
pub(crate) fn command() -> Command {
    Command::new("preflight")
        .about(
            "Say whether sandboxes can be made here: rights, a dry run of the Pod, and one Pod that is run and removed",
        )
        .after_help(
            "Exit codes: 0 it can; 75 the cluster does not answer; 78 it cannot, and the report says what to change.",
        )
        .arg(Arg::new("no-pod").long("no-pod").action(ArgAction::SetTrue).help("do not run the Pod"))
}

/// Run it; the exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8, Fault> {
    let config = crate::kubernetes(matches, "look at")?;
    let pod = !matches.get_flag("no-pod");
    crate::many_threads(async move {
        let kubernetes = Kubernetes::new(config).await.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
        let mut findings = say(kubernetes.rights().await)?;
        findings.extend(say(kubernetes.dry_run().await)?);
        if pod && findings.iter().all(good) {
            findings.extend(say(kubernetes.tried().await.findings)?);
        }
        Ok(if findings.iter().all(good) {
            0
        } else if findings.iter().any(|finding| matches!(finding, Finding::Bad(_))) {
            exit::CONFIGURATION
        } else {
            exit::TEMPORARY
        })
    })
}

fn good(finding: &Finding) -> bool {
    matches!(finding, Finding::Good(_) | Finding::Warning(_))
}

fn say(findings: Vec<Finding>) -> Result<Vec<Finding>, Fault> {
    findings.iter().try_for_each(|finding| crate::say(&format!("{finding}\n")))?;
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use gateway::backend::kubernetes::preflight::RIGHTS;

    /// What is asked about is what the chart gives, and nothing else.
    #[test]
    fn the_charts_role_is_what_preflight_asks_about() {
        let text = include_str!("../../../charts/chaperone/templates/rbac.yaml");
        let making =
            text.split("{{- if has $namespace $makes }}").nth(1).and_then(|rest| rest.split("{{- else }}").next());
        let between = |line: &str, open: &str| {
            let rest = line.split_once(open)?.1;
            Some(rest.split_once(']')?.0.to_owned())
        };
        let lines =
            making.expect("the rules of who makes sandboxes").lines().filter(|line| line.contains("resources:"));
        let given: Vec<(String, String)> = lines
            .map(|line| (between(line, "resources: [").expect("a list"), between(line, "verbs: [").expect("a list")))
            .collect();
        let asked = |(resource, part, verbs): &(&str, Option<&str>, &[&str])| {
            (part.map_or((*resource).to_owned(), |part| format!("{resource}/{part}")), verbs.join(", "))
        };
        assert_eq!(given, RIGHTS.iter().map(asked).collect::<Vec<_>>());
    }
}
