//! The command line, read by the table of settings: every command that takes settings takes each as a flag.
//!
//! A flag's value is the next argument, whatever it looks like, or follows a `=`. Only what stands after `--` is a program.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use supervisor::config::{SETTINGS, nearest, parse};
use supervisor::netcheck::{self, Target};

/// Values by setting, in the order given.
pub(crate) type Flags = BTreeMap<&'static str, Vec<String>>;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Command {
    Run {
        flags: Flags,
        argv: Vec<OsString>,
    },
    Bootstrap {
        flags: Flags,
        only: Vec<String>,
    },
    Install {
        destination: PathBuf,
    },
    Preflight {
        flags: Flags,
        json: bool,
    },
    Probe {
        flags: Flags,
        path: &'static str,
    },
    Netcheck {
        open: Vec<Target>,
        closed: Vec<Target>,
        settle: Duration,
        json: bool,
    },
    Settings,
    Worker {
        work: Vec<OsString>,
    },
    /// Help or version was asked for.
    Tell(String),
}

/// Why it cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The command, where that much is known.
    pub(crate) command: Option<&'static str>,
    /// What is wrong.
    pub(crate) problem: String,
}

/// One command in words.
struct Verb {
    name: &'static str,
    about: &'static str,
    /// Behind its name.
    shape: &'static str,
    settings: bool,
    /// Flags of its own: name, value or nothing, help.
    own: &'static [(&'static str, &'static str, &'static str)],
    /// After the flags.
    more: &'static str,
}

const VERBS: [Verb; 7] = [
    Verb {
        name: "run",
        about: "Run the agent; without one, answer probes only",
        shape: "[OPTIONS] [-- ARGV...]",
        settings: true,
        own: &[],
        more: "\nExit codes: the agent's own, 128 + N where signal N ended it; else 64 usage, 69 port taken, 70 internal,\n\
               71 confinement not to be had, 75 try again, 78 configuration.\n\n\
               Every setting is also an environment variable, SUPERVISOR_ and the flag in capitals, and a key of the \
               settings file.\n",
    },
    Verb {
        name: "bootstrap",
        about: "Copy defaults into a volume and write the provider's configuration; what is there is never touched",
        shape: "[OPTIONS]",
        settings: true,
        own: &[("only", "defaults|provider", "only these parts [both]")],
        more: "",
    },
    Verb {
        name: "install",
        about: "Copy the supervisor and the shim into DEST, for an init container",
        shape: "DEST",
        settings: false,
        own: &[],
        more: "",
    },
    Verb {
        name: "preflight",
        about: "Say what this node can enforce; exit 71 where a required guarantee does not hold",
        shape: "[OPTIONS]",
        settings: true,
        own: &[("json", "", "for programs")],
        more: "",
    },
    Verb {
        name: "probe",
        about: "Ask the supervisor in this container; exit 0 for yes, 1 for no",
        shape: "[OPTIONS] live|ready|startup",
        settings: true,
        own: &[],
        more: "",
    },
    Verb {
        name: "netcheck",
        about: "Say what can be reached from here and what cannot; exit 1 where it is not as said",
        shape: "--open HOST:PORT... [--closed HOST:PORT...] [--json]",
        settings: false,
        own: &[
            ("open", "HOST:PORT", "must take a TCP connection; can be repeated"),
            ("closed", "HOST:PORT", "must not, while the others do; can be repeated"),
            ("settle", "DURATION", "how long to look again while something is not as said [30s]"),
            ("json", "", "for programs"),
        ],
        more: "",
    },
    Verb { name: "settings", about: "Print the table of all settings", shape: "", settings: false, own: &[], more: "" },
];

/// Read the arguments that follow the program's name.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Wrong> {
    let mut parser = Parser::from_args(arguments);
    let wrong = |problem: String| Wrong { command: None, problem };
    let verb = match parser.next().map_err(|e| wrong(e.to_string()))? {
        None => return Err(wrong("no command is given".into())),
        Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Tell(overview())),
        Some(Arg::Short('V') | Arg::Long("version")) => {
            return Ok(Command::Tell(format!("supervisor {}\n", env!("CARGO_PKG_VERSION"))));
        }
        // Started by `run` only.
        Some(Arg::Value(name)) if name == "worker" => {
            return Ok(Command::Worker { work: parser.raw_args().map(Iterator::collect).unwrap_or_default() });
        }
        Some(Arg::Value(name)) => match VERBS.iter().find(|verb| name == verb.name) {
            Some(verb) => verb,
            None => {
                let name = name.to_string_lossy();
                let near = nearest(&name, VERBS.iter().map(|verb| verb.name));
                return Err(wrong(format!("there is no command `{name}`{}", hint("", near))));
            }
        },
        Some(other) => return Err(wrong(other.unexpected().to_string())),
    };
    let words = verb.words(&mut parser).map_err(|problem| Wrong { command: Some(verb.name), problem })?;
    words.map_or_else(|help| Ok(Command::Tell(help)), |words| words.command(verb))
}

/// What stood behind a command's name.
#[derive(Default)]
struct Words {
    flags: Flags,
    own: BTreeMap<&'static str, Vec<String>>,
    operands: Vec<OsString>,
    /// After `--`.
    argv: Vec<OsString>,
}

impl Verb {
    /// All words, or the help that one of them asks for.
    fn words(&self, parser: &mut Parser) -> Result<Result<Words, String>, String> {
        let mut words = Words::default();
        let text = |e: lexopt::Error| e.to_string();
        loop {
            if let Some(mut rest) = parser.try_raw_args()
                && rest.next_if(|next| next == "--").is_some()
            {
                words.argv = rest.collect();
                return Ok(Ok(words));
            }
            let name = match parser.next().map_err(text)? {
                None => return Ok(Ok(words)),
                Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Err(self.help())),
                Some(Arg::Value(operand)) => {
                    words.operands.push(operand);
                    continue;
                }
                Some(Arg::Long(name)) => name.to_string(),
                Some(short) => return Err(short.unexpected().to_string()),
            };
            if let Some((own, value, _)) = self.own.iter().find(|(own, ..)| *own == name) {
                let given =
                    if value.is_empty() { String::new() } else { parser.value().and_then(string).map_err(text)? };
                words.own.entry(own).or_default().push(given);
            } else if let Some(setting) = self.flags().find(|setting| setting.flag() == name) {
                let value = parser.value().and_then(string).map_err(text)?;
                words.flags.entry(setting.name).or_default().push(value);
            } else {
                let known: Vec<String> = self.flags().map(|s| s.flag()).collect();
                let own = self.own.iter().map(|(own, ..)| *own);
                let near = nearest(&name, known.iter().map(String::as_str).chain(own));
                return Err(format!("there is no flag `--{name}`{}", hint("--", near)));
            }
        }
    }

    /// The settings that may be flags: a secret in argv could be read by everybody.
    fn flags(&self) -> impl Iterator<Item = &'static supervisor::config::Setting> {
        SETTINGS.iter().filter(|setting| self.settings && !setting.secret)
    }

    fn usage(&self) -> String {
        format!("Usage: supervisor {} {}", self.name, self.shape).trim_end().into()
    }

    fn help(&self) -> String {
        let mut out = format!("{}\n\n{}\n\nOptions:\n", self.about, self.usage());
        for (name, value, help) in self.own {
            let value = if value.is_empty() { String::new() } else { format!(" <{value}>") };
            out += &format!("      --{name}{value}\n          {help}\n");
        }
        for setting in self.flags() {
            let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
            out += &format!("      --{} <{}>\n          {}{default}\n", setting.flag(), setting.value, setting.help);
        }
        out + "  -h, --help\n          Print help\n" + self.more
    }
}

impl Words {
    fn command(mut self, verb: &Verb) -> Result<Command, Wrong> {
        let wrong = |problem: String| Wrong { command: Some(verb.name), problem };
        let mut operand = (verb.name == "install" || verb.name == "probe")
            .then(|| if self.operands.is_empty() { None } else { Some(self.operands.remove(0)) })
            .flatten();
        if let Some(unexpected) = self.operands.first().or(self.argv.first().filter(|_| verb.name != "run")) {
            let after = if verb.name == "run" { "; the agent's program stands after `--`" } else { "" };
            return Err(wrong(format!("`{}` is not expected{after}", unexpected.to_string_lossy())));
        }
        let flags = self.flags;
        Ok(match verb.name {
            "run" => Command::Run { flags, argv: self.argv },
            "bootstrap" => {
                let only = self.own.remove("only").unwrap_or_default();
                let only: Vec<String> = only.iter().flat_map(|parts| parts.split(',')).map(str::to_string).collect();
                match only.iter().find(|part| !matches!(part.as_str(), "defaults" | "provider")) {
                    Some(part) => return Err(wrong(format!("--only takes defaults and provider, not `{part}`"))),
                    None => Command::Bootstrap { flags, only },
                }
            }
            "install" => match operand.take() {
                Some(destination) => Command::Install { destination: destination.into() },
                None => return Err(wrong("DEST is missing".into())),
            },
            "preflight" => Command::Preflight { flags, json: self.own.contains_key("json") },
            "probe" => match operand.as_deref().and_then(OsStr::to_str) {
                Some("live") => Command::Probe { flags, path: "/livez" },
                Some("ready") => Command::Probe { flags, path: "/readyz" },
                Some("startup") => Command::Probe { flags, path: "/startupz" },
                Some(other) => return Err(wrong(format!("`{other}` is none of live, ready, startup"))),
                None => return Err(wrong("one of live, ready, startup is missing".into())),
            },
            "netcheck" => {
                let json = self.own.contains_key("json");
                let mut targets = |name| {
                    let given = self.own.remove(name).unwrap_or_default();
                    given.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()
                };
                let open = targets("open").map_err(|problem| wrong(format!("--open: {problem}")))?;
                let closed = targets("closed").map_err(|problem| wrong(format!("--closed: {problem}")))?;
                if open.is_empty() {
                    return Err(wrong("--open is missing: closed proves nothing where nothing is open".into()));
                }
                let settle = self.own.remove("settle").and_then(|mut given| given.pop());
                let settle = settle.map_or(Ok(netcheck::SETTLE), |text| parse::duration(&text));
                let settle = settle.map_err(|problem| wrong(format!("--settle {problem}")))?;
                Command::Netcheck { open, closed, settle, json }
            }
            _ => Command::Settings,
        })
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = self.command.and_then(|command| VERBS.iter().find(|verb| verb.name == command));
        let usage = verb.map_or_else(|| "Usage: supervisor COMMAND".into(), Verb::usage);
        let command = verb.map_or_else(String::new, |verb| format!(" {}", verb.name));
        write!(f, "error: {}\n\n{usage}\n\n`supervisor{command} --help` tells more\n", self.problem)
    }
}

fn string(value: OsString) -> Result<String, lexopt::Error> {
    value.string()
}

fn hint(dashes: &str, near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{dashes}{near}`?")).unwrap_or_default()
}

fn overview() -> String {
    let mut out = String::from(
        "Runs an agent in a sandbox: PID 1, confinement, probes, truth about its end\n\n\
         Usage: supervisor COMMAND\n\nCommands:\n",
    );
    for verb in &VERBS {
        out += &format!("  {:<10} {}\n", verb.name, verb.about);
    }
    out + "\nOptions:\n  -h, --help     Print help\n  -V, --version  Print version\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Command, Wrong> {
        read(words.iter().map(OsString::from))
    }

    fn flags(pairs: &[(&'static str, &[&str])]) -> Flags {
        pairs.iter().map(|(name, values)| (*name, values.iter().map(|v| v.to_string()).collect())).collect()
    }

    #[test]
    fn what_stands_after_two_dashes_is_the_agents_and_nothing_before_is() {
        let argv = ["a", "--grace", "--", "-h"].map(OsString::from).to_vec();
        let given = flags(&[("grace", &["1s"]), ("agent_env", &["A=1", "-B=2"])]);
        let words =
            ["run", "--grace=1s", "--agent-env", "A=1", "--agent-env", "-B=2", "--", "a", "--grace", "--", "-h"];
        assert_eq!(of(&words), Ok(Command::Run { flags: given, argv }));
        assert_eq!(of(&["run"]), Ok(Command::Run { flags: Flags::new(), argv: Vec::new() }));
        let problem = of(&["run", "/bin/sh"]).expect_err("no dashes").problem;
        assert!(problem.contains("/bin/sh") && problem.contains("`--`"), "{problem}");
    }

    #[test]
    fn each_command_takes_its_own_words() {
        let none = Flags::new;
        let only = vec!["defaults".to_string(), "provider".into()];
        assert_eq!(of(&["bootstrap", "--only", "defaults,provider"]), Ok(Command::Bootstrap { flags: none(), only }));
        assert_eq!(of(&["install", "/x"]), Ok(Command::Install { destination: "/x".into() }));
        assert_eq!(of(&["preflight", "--json"]), Ok(Command::Preflight { flags: none(), json: true }));
        assert_eq!(of(&["probe", "ready"]), Ok(Command::Probe { flags: none(), path: "/readyz" }));
        assert_eq!(of(&["settings"]), Ok(Command::Settings));
        let work = ["read", "--", "-x"].map(OsString::from).to_vec();
        assert_eq!(of(&["worker", "read", "--", "-x"]), Ok(Command::Worker { work }));
        for asks in [&["--help"][..], &["-h"], &["-V"], &["--version"], &["run", "-h"], &["probe", "--help"]] {
            assert!(matches!(of(asks), Ok(Command::Tell(_))), "{asks:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_meant() {
        for (words, named) in [
            (&[][..], "no command"),
            (&["runn"], "`run`"),
            (&["--run"], "--run"),
            (&["run", "--agent-restrat", "always"], "`--agent-restart`"),
            (&["run", "--grace"], "--grace"),
            (&["run", "-x"], "-x"),
            (&["preflight", "--json=yes"], "--json"),
            (&["preflight", "--", "x"], "`x`"),
            (&["bootstrap", "--only", "half"], "`half`"),
            (&["install"], "DEST"),
            (&["install", "/a", "/b"], "`/b`"),
            (&["install", "--grace", "1s"], "--grace"),
            (&["probe"], "live, ready, startup"),
            (&["probe", "dead"], "`dead`"),
            (&["run", "--relay-token", "x"], "`--relay-token`"),
            (&["netcheck", "--closed", "x:1"], "--open"),
            (&["netcheck", "--open", "x"], "HOST:PORT"),
        ] {
            let wrong = of(words).expect_err("not to be understood");
            assert!(wrong.problem.contains(named), "{words:?}: {wrong}");
            assert!(wrong.to_string().contains("Usage: supervisor"), "{wrong}");
        }
    }
}
