//! The settings file: TOML whose tables are the parts, so that `[agent] restart = "never"` is `agent_restart`.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::{Mistake, SETTINGS, find, nearest};

type Values = BTreeMap<String, Vec<String>>;

/// Larger than any sensible settings file, small enough that a wrong path (a log, a disk image) costs nothing.
const MAX_BYTES: u64 = 1024 * 1024;

/// Values by setting name, and the mistakes found on the way; an error where there is nothing to read.
pub(super) fn read(path: &Path) -> Result<(Values, Vec<Mistake>), String> {
    let size = std::fs::metadata(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?.len();
    if size > MAX_BYTES {
        return Err(format!("{} has {size} bytes; a settings file has at most {MAX_BYTES}", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    parse(&text).map_err(|error| format!("{} is not TOML: {error}", path.display()))
}

/// The same of a text that was read.
pub(crate) fn parse(text: &str) -> Result<(Values, Vec<Mistake>), toml::de::Error> {
    let table: Table = text.parse()?;
    let mut values = Values::new();
    let mut mistakes = Vec::new();
    flatten("", &table, &mut values, &mut mistakes);
    Ok((values, mistakes))
}

fn flatten(prefix: &str, table: &Table, values: &mut Values, mistakes: &mut Vec<Mistake>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}_{key}") };
        match (find(&name).filter(|s| !s.secret && s.name != "config"), value) {
            (Some(_), Value::Table(pairs)) => {
                let pairs = pairs.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
                values.insert(name, pairs);
            }
            (Some(_), Value::Array(items)) => {
                values.insert(name, items.iter().map(plain).collect());
            }
            (Some(_), value) => {
                values.insert(name, vec![plain(value)]);
            }
            (None, Value::Table(inner)) => flatten(&name, inner, values, mistakes),
            (None, _) => {
                let hint = nearest(&name, SETTINGS.iter().map(|s| s.name))
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_default();
                let setting = format!("{name} in the settings file");
                mistakes.push(Mistake { setting, problem: format!("no such setting{hint}") });
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        // A table or list where one value belongs: its parser will refuse the empty text.
        Value::Array(_) | Value::Table(_) => String::new(),
    }
}
