//! The chart, as Helm renders it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where the chart is.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/chaperone")
}

/// Whether Helm is on PATH; where it is not, that is printed.
pub fn has_helm() -> bool {
    let found = Command::new("helm").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: there is no helm on PATH");
    }
    found
}

/// Whether Helm is content, and what it says.
pub fn helm(arguments: &[&str], values: Option<&Value>) -> (bool, String) {
    let mut command = Command::new("helm");
    command.args(arguments).stdin(Stdio::null());
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    if let Some(values) = values {
        std::fs::write(file.path(), values.to_string()).expect("our own file");
        command.arg("--values").arg(file.path());
    }
    let output = command.output().expect("helm is on PATH");
    let text = if output.status.success() { output.stdout } else { [output.stdout, output.stderr].concat() };
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The rendered chart as text, hooks included, or why it is refused.
pub fn template(values: &Value) -> Result<String, String> {
    template_in("openhive", values)
}

fn template_in(namespace: &str, values: &Value) -> Result<String, String> {
    let directory = directory().display().to_string();
    match helm(&["template", "release", &directory, "--namespace", namespace], Some(values)) {
        (true, text) => Ok(text),
        (false, why) => Err(why),
    }
}

/// Its objects.
#[track_caller]
pub fn objects(values: &Value) -> Vec<Value> {
    objects_in("openhive", values)
}

/// The same for a release in another namespace.
#[track_caller]
pub fn objects_in(namespace: &str, values: &Value) -> Vec<Value> {
    let text = template_in(namespace, values).unwrap_or_else(|why| panic!("{why}"));
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).expect("what Helm renders is YAML");
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// A YAML file of the chart.
#[track_caller]
pub fn read(file: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The sets of values in `ci/`, by name.
pub fn sets() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(directory().join("ci")).expect("our own directory").flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&format!("ci/{name}")))).collect()
}

/// Put something where nothing has to be.
pub fn set(values: &mut Value, pointer: &str, value: Value) {
    let mut place = values;
    for step in pointer.split('/').skip(1) {
        place = &mut place[step];
    }
    *place = value;
}

/// Every Pod in an object: what it says of itself and its spec. Templates inside a ConfigMap count too.
pub fn pods(object: &Value) -> Vec<Value> {
    match object["kind"].as_str() {
        Some("Pod") => vec![object.clone()],
        Some("Deployment" | "Job") => vec![object["spec"]["template"].clone()],
        Some("ConfigMap") => {
            let files = object["data"].as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("pod.yaml"));
            files.map(|(_, text)| serde_saphyr::from_str(text.as_str().expect("text")).expect("YAML")).collect()
        }
        _ => Vec::new(),
    }
}
