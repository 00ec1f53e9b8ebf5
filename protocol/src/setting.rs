//! How the settings of a program are written: a table, from which its command line, its environment and its docs are read.

use std::fmt;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Before the name of its variable, for instance `SUPERVISOR`.
    pub program: &'static str,
    /// `agent_restart`: the flag is `--agent-restart`, the variable `SUPERVISOR_AGENT_RESTART`; in a settings file the key is
    /// `agent.restart` or `agent_restart`.
    pub name: &'static str,
    /// Other variables that mean the same; the first that is set counts, after the setting's own name.
    pub aliases: &'static [&'static str],
    /// Default as it would be typed; empty for none.
    pub default: &'static str,
    /// Shape of the value, for help and docs.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The value is, or may hold, a secret: never a flag, never shown.
    pub secret: bool,
    /// A list whose items may hold commas: a flag or an item of the file is one item as it is.
    pub verbatim: bool,
}

impl Setting {
    /// A row without aliases, neither secret nor verbatim.
    pub const fn new(
        program: &'static str,
        name: &'static str,
        default: &'static str,
        value: &'static str,
        help: &'static str,
    ) -> Setting {
        Setting { program, name, aliases: &[], default, value, help, secret: false, verbatim: false }
    }

    /// These variables mean the same.
    pub const fn alias(mut self, aliases: &'static [&'static str]) -> Setting {
        self.aliases = aliases;
        self
    }

    /// Its items may hold commas.
    pub const fn verbatim(mut self) -> Setting {
        self.verbatim = true;
        self
    }

    /// It is a secret.
    pub const fn secret(mut self) -> Setting {
        self.secret = true;
        self
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{}_{}", self.program, self.name.to_uppercase())
    }

    /// Every variable that it is read from; the first that is set counts.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.variable()).chain(self.aliases.iter().map(|alias| alias.to_string()))
    }

    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting as the operator wrote it: flag, variable or key.
    pub setting: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// Whether Kubernetes itself makes variables like this one, without its program, for a Service of the program's name
/// (`enableServiceLinks`): those are no settings.
pub fn is_service_link(rest: &str) -> bool {
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

/// The table as `docs/configuration.md` has it.
pub fn markdown(settings: &[Setting]) -> String {
    let mut out = String::from("| setting | default | value | what it does | also read |\n|---|---|---|---|---|\n");
    for s in settings {
        let aliases = s.aliases.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", ");
        let default = if s.default.is_empty() { String::new() } else { format!("`{}`", s.default) };
        let value = s.value.replace('|', "\\|");
        out.push_str(&format!("| `{}` | {default} | {value} | {} | {aliases} |\n", s.variable(), s.help));
    }
    out
}

/// A hundred years: longer is a typing mistake, and keeps every sum of times far from overflow.
pub const LONGEST_MILLIS: u64 = 100 * 365 * 24 * 3_600_000;

/// `250ms`, `25s`, `5m`, `2h` in milliseconds, `None` where they are too many to count; what may be too short or too long is
/// the caller's to say. A number without a unit is refused, because seconds and milliseconds were both meant by somebody.
pub fn millis(text: &str) -> Result<Option<u64>, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a duration; write for instance 25s"))?;
    match unit {
        "ms" => Ok(Some(number)),
        "s" => Ok(number.checked_mul(1000)),
        "m" => Ok(number.checked_mul(60_000)),
        "h" => Ok(number.checked_mul(3_600_000)),
        "" => Err(format!("`{text}` has no unit; write {text}s or {text}ms")),
        _ => Err(format!("`{unit}` is not a unit of time; use ms, s, m or h")),
    }
}
