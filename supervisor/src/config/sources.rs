//! Where values come from: flags, environment and file, in that order; and what none of them knows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use protocol::setting::is_service_link;

use super::{Mistake, SETTINGS, Setting, file, nearest};

/// What was found, by setting name.
#[derive(Default)]
pub struct Sources {
    flags: BTreeMap<&'static str, Vec<String>>,
    variables: Vec<(OsString, OsString)>,
    file: BTreeMap<String, Vec<String>>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Sources {
    /// Flags as parsed, the environment as it is, and the file that either names.
    pub fn gather(flags: BTreeMap<&'static str, Vec<String>>, variables: Vec<(OsString, OsString)>) -> Sources {
        let mut sources = Sources { flags, variables, ..Sources::default() };
        sources.refuse_unknown_variables();
        if let Some((origin, path)) = sources.get("config") {
            match file::read(Path::new(&path)) {
                Ok((file, mistakes)) => {
                    sources.file = file;
                    sources.mistakes.extend(mistakes);
                }
                Err(problem) => sources.mistakes.push(Mistake { setting: origin, problem }),
            }
        }
        sources
    }

    /// The value and what the operator called it; an empty value counts as not set.
    pub fn get(&self, name: &str) -> Option<(String, OsString)> {
        let setting = super::find(name)?;
        if let Some(value) = self.flags.get(name).and_then(|v| v.last()).filter(|v| !v.is_empty()) {
            return Some((format!("--{}", setting.flag()), value.into()));
        }
        if let Some((variable, value)) = self.environment_value(setting) {
            return Some((variable, value.to_owned()));
        }
        let values = self.file.get(name)?;
        Some((format!("{} in the settings file", setting.name), values.join(",").into()))
    }

    /// A list's items with what the operator called each; `None` where it is not set.
    pub fn items(&self, name: &str) -> Option<Vec<(String, String)>> {
        let setting = super::find(name)?;
        let split = |origin: &str, text: &str| -> Vec<(String, String)> {
            text.split(',').map(str::trim).filter(|i| !i.is_empty()).map(|i| (origin.into(), i.into())).collect()
        };
        let each = |origin: String, values: &[String]| match setting.verbatim {
            true => values.iter().map(|value| (origin.clone(), value.clone())).collect(),
            false => values.iter().flat_map(|value| split(&origin, value)).collect(),
        };
        if let Some(values) = self.flags.get(name) {
            return Some(each(format!("--{}", setting.flag()), values));
        }
        if let Some((variable, value)) = self.environment_value(setting) {
            return Some(split(&variable, &value.to_string_lossy()));
        }
        let values = self.file.get(name)?;
        Some(each(format!("{} in the settings file", setting.name), values))
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// The whole environment.
    pub fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }

    fn environment_value(&self, setting: &Setting) -> Option<(String, &OsStr)> {
        setting.variables().find_map(|name| self.variable(&name).filter(|v| !v.is_empty()).map(|v| (name, v)))
    }

    /// A misspelt setting would be silently without effect.
    fn refuse_unknown_variables(&mut self) {
        for (key, _) in &self.variables {
            let Some(rest) = key.to_str().and_then(|k| k.strip_prefix("SUPERVISOR_")) else { continue };
            let name = rest.to_lowercase();
            if is_service_link(rest) || super::find(&name).is_some() {
                continue;
            }
            let problem = match nearest(&name, SETTINGS.iter().map(|s| s.name)).and_then(super::find) {
                Some(near) => format!("no such setting; did you mean {}?", near.variable()),
                None => "no such setting; `supervisor run --help` lists them".into(),
            };
            self.mistakes.push(Mistake { setting: format!("SUPERVISOR_{rest}"), problem });
        }
    }
}
