//! The chart as it is published.

use std::path::Path;

use serde_json::Value;
use tests::chart::{self, helm};
use tests::registry::Registry;

#[track_caller]
fn run(arguments: &[&str], values: Option<&Value>) -> String {
    let (done, said) = helm(arguments, values);
    assert!(done, "helm {arguments:?}: {said}");
    said
}

fn package(into: &Path) -> String {
    let directory = chart::directory().display().to_string();
    run(&["package", &directory, "--destination", &into.display().to_string()], None);
    let file = std::fs::read_dir(into).expect("our own directory").flatten().next().expect("a package");
    file.path().display().to_string()
}

/// Alerts and dashboards are files beside the templates: a package that has left them out would render nothing of them.
#[test]
fn the_package_renders_what_the_folder_renders() {
    if !chart::has_helm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a scratch directory");
    let file = package(directory.path());
    for (name, values) in chart::sets() {
        let packaged = run(&["template", "release", &file, "--namespace", "openhive"], Some(&values));
        assert_eq!(packaged, chart::template(&values).expect("it renders"), "{name}");
    }
}

/// 001-2.
#[test]
fn the_chart_goes_to_a_registry_as_an_oci_artefact_and_is_installed_from_there() {
    if !chart::has_helm() {
        return;
    }
    let Some(registry) = Registry::start() else { return };
    let directory = tempfile::tempdir().expect("a scratch directory");
    let file = package(directory.path());
    let place = format!("oci://{}/charts", registry.address);
    run(&["push", &file, &place, "--plain-http"], None);
    let values = chart::read("ci/plain.yaml");
    let version = chart::read("Chart.yaml")["version"].as_str().expect("a version").to_owned();
    let chart = format!("{place}/chaperone");
    let from = ["template", "release", &chart, "--version", &version, "--plain-http", "--namespace", "openhive"];
    assert_eq!(run(&from, Some(&values)), chart::template(&values).expect("it renders"));
}
