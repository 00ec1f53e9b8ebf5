//! All settings of one run, and what must be right between them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::health::SandboxIdentity;
use protocol::policy::ExecutionClass;

use crate::bootstrap::Plan;
use crate::config::{Mistake, Reader, Sources, parse};
use crate::launch::{environment, files, policy, program};
use crate::provider::Provider;
use crate::workspace::relay::Relay;
use crate::{agent, buffer, launch, link, logs, state, tasks};

/// What `supervisor run` runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listener.
    pub listen: SocketAddr,
    /// State directory.
    pub state_dir: PathBuf,
    /// From a stop signal to KILL.
    pub grace: Duration,
    /// Obey stop signals from inside the namespace as PID 1.
    pub signals_from_inside: bool,
    /// Who this sandbox is.
    pub identity: SandboxIdentity,
    /// Every child.
    pub launch: launch::Config,
    /// The agent.
    pub agent: agent::Config,
    /// Defaults to copy; `None` where no source is configured.
    pub bootstrap: Option<Plan>,
    /// Dev-tasks.
    pub tasks: tasks::Config,
    /// What waits for the gateway.
    pub buffer: buffer::Config,
    /// The API's token.
    pub api_token_file: Option<PathBuf>,
    /// The API takes calls that the gateway has signed.
    pub api_signed: bool,
    /// The largest archive or file that a client may send.
    pub upload: u64,
    /// An attached client that is not heard of for so long is cut.
    pub attach_silence: Duration,
    /// Who applies approved patches.
    pub relay: Option<Arc<Relay>>,
    /// Provider configuration to write once.
    pub provider: Provider,
    /// The gateway; `None` where there is no link.
    pub link: Option<link::Config>,
    /// The agent's HOME.
    pub home: Option<PathBuf>,
}

impl Config {
    /// Everything, or every mistake. `argv` is what stood after `--`.
    pub fn read(sources: &Sources, argv: Vec<OsString>) -> Result<Config, Vec<Mistake>> {
        let programs = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
        Config::read_for(sources, argv, programs.as_deref())
    }

    /// The same for a supervisor and a shim that lie in `programs`.
    pub fn read_for(
        sources: &Sources,
        argv: Vec<OsString>,
        programs: Option<&std::path::Path>,
    ) -> Result<Config, Vec<Mistake>> {
        let mut reader = Reader::new(sources);
        let reader = &mut reader;
        // Read for its mistakes; `main` has used it already.
        logs::Config::read(reader);
        let state_dir = reader.value("state_dir", parse::any_path);
        let secrets = secrets(reader, &state_dir);
        let trusted = trusted(reader);
        let hidden: Vec<PathBuf> = secrets.iter().map(|(_, path)| path.clone()).collect();
        let launch = launch::Config::read(reader, &hidden);
        let agent = agent::Config::read(reader, argv);
        let env = environment::build(&launch.environment, &launch.env_allow, &launch.env, &program_env(&agent));
        let home = policy::variable(&env, "HOME").map(PathBuf::from).filter(|h| h.is_absolute());
        reader.value("provider_auth_mode", |text| match text {
            "env" => Ok(()),
            _ => Err(format!("`{text}` is not built; env passes the allow-listed keys")),
        });
        let secret =
            |name| secrets.iter().chain(&trusted).find(|(known, _)| *known == name).map(|(_, path)| path.clone());
        let identity = identity(reader);
        let link = link::Config::read(reader, &identity.agent_id, secret);
        let config = Config {
            listen: reader.value("listen", parse::address),
            grace: launch.grace,
            signals_from_inside: reader.value("signals_from_inside", parse::boolean),
            identity,
            link,
            bootstrap: Plan::read(reader, None),
            provider: Provider::read(reader),
            tasks: task_config(reader, &state_dir, launch.user.is_some()),
            buffer: buffer::Config::read(reader),
            upload: reader.value("archive_upload", parse::size),
            attach_silence: reader.value("attach_silence", parse::positive_duration),
            relay: Relay::read(reader, secret("relay_token_file"), secret("relay_ca_file")).map(Arc::new),
            api_token_file: secret("api_token_file"),
            api_signed: reader.value("api_signed", parse::boolean),
            state_dir,
            launch,
            agent,
            home,
        };
        config.check(
            reader,
            &[secrets, trusted].concat(),
            policy::variable(&env, "PATH").map(OsString::from),
            programs,
        );
        let mistakes = std::mem::replace(reader, Reader::new(sources)).finish();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    /// What only shows between settings, or between a setting and this machine.
    fn check(
        &self,
        reader: &mut Reader<'_>,
        guarded: &[Own],
        path: Option<OsString>,
        programs: Option<&std::path::Path>,
    ) {
        if self.launch.class != ExecutionClass::Networked && !self.launch.connect_ports.is_empty() {
            let class = reader.origin("agent_class");
            reader.mistake(
                reader.origin("agent_connect_ports"),
                format!("has no meaning beside {class} without network"),
            );
        }
        if self.api_signed && self.link.is_none() {
            let problem = "needs a link to the gateway: set SUPERVISOR_GATEWAY_URL and SUPERVISOR_LINK_TOKEN_FILE";
            reader.mistake(reader.origin("api_signed"), problem);
        }
        if reader.is_set("workspace") && !self.launch.workspace.is_dir() {
            let problem = format!("{} is not a directory; mount the workspace there", self.launch.workspace.display());
            reader.mistake(reader.origin("workspace"), problem);
        }
        for path in &self.launch.write {
            if !path.exists() {
                reader.mistake(reader.origin("agent_write"), format!("{} does not exist", path.display()));
            }
        }
        let writable = files::writable(&self.launch, self.home.as_deref());
        if self.launch.class == ExecutionClass::Readonly
            && let Some(open) = state::conflict(&self.launch.workspace, &writable)
        {
            let problem = format!(
                "{} is to be read-only and {} is writable for the agent; keep them apart",
                self.launch.workspace.display(),
                open.display()
            );
            reader.mistake(reader.origin("workspace"), problem);
        }
        if let Some((programs, open)) = programs.and_then(|p| Some((p, state::conflict(p, &writable)?))) {
            let problem = format!(
                "lie in {} and the agent may write {}, so it could replace them; keep them apart, or give the agent \
                 another HOME by SUPERVISOR_AGENT_ENV",
                programs.display(),
                open.display()
            );
            reader.mistake("the supervisor's own programs", problem);
        }
        for (name, guarded) in guarded {
            if let Some(open) = state::conflict(guarded, &writable) {
                let problem = format!(
                    "{} and {}, which the agent may write, lie inside each other; keep them apart",
                    guarded.display(),
                    open.display()
                );
                reader.mistake(reader.origin(name), problem);
            }
        }
        if let Some(wanted) = &self.agent.program {
            let resolved = program::resolve(&wanted.argv[0], wanted.cwd.as_deref(), path.as_deref());
            if let Err(error) = resolved {
                reader.mistake("the agent", error.to_string());
            }
            if let Some(cwd) = wanted.cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
                reader.mistake(reader.origin("agent_cwd"), format!("{} is not a directory", cwd.display()));
            }
        }
    }
}

/// Another uid cannot pass through what only we may enter, so its tasks' folders get a place beside that.
fn task_config(reader: &mut Reader<'_>, state_dir: &std::path::Path, for_other_uid: bool) -> tasks::Config {
    let mut config = tasks::Config::read(reader);
    if config.directory.is_none() && for_other_uid {
        config.directory = Some(state_dir.join("task-directories"));
    }
    config
}

/// A path of our own, by its setting.
type Own = (&'static str, PathBuf);

/// Our own files, which no child may open. A token that cannot be read is a mistake now and not a 401 later.
fn secrets(reader: &mut Reader<'_>, state_dir: &std::path::Path) -> Vec<Own> {
    let mut secrets = vec![("state_dir", state_dir.to_path_buf())];
    let readable =
        |path: &PathBuf| match std::fs::File::open(path).and_then(|mut f| std::io::Read::read(&mut f, &mut [0])) {
            Ok(0) => Err(format!("{} is empty; put the token there", path.display())),
            Ok(_) => Ok(()),
            Err(e) => Err(format!("cannot read {}: {e}", path.display())),
        };
    for name in ["api_token_file", "relay_token_file", "link_token_file", "link_key_file"] {
        let path = reader.optional(name, |text| parse::any_path(text).and_then(|p| readable(&p).map(|()| p)));
        secrets.extend(path.map(|path| (name, path)));
    }
    secrets.extend(reader.optional("termination_log", parse::any_path).map(|path| ("termination_log", path)));
    secrets.extend(reader.optional("config", parse::any_path).map(|path| ("config", path)));
    secrets
}

/// Whom we believe: an agent that could write there would choose who gets our tokens. Children may read it.
fn trusted(reader: &mut Reader<'_>) -> Vec<Own> {
    let readable = |path: PathBuf| match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    };
    let mut trusted = Vec::new();
    for name in ["relay_ca_file", "link_ca_file", "link_cert_file"] {
        let path = reader.optional(name, |text| parse::any_path(text).and_then(readable));
        trusted.extend(path.map(|path| (name, path)));
    }
    trusted
}

fn program_env(agent: &agent::Config) -> Vec<(OsString, OsString)> {
    agent.program.as_ref().map(|p| p.env.clone()).unwrap_or_default()
}

fn identity(reader: &mut Reader<'_>) -> SandboxIdentity {
    let in_cluster = reader.environment("KUBERNETES_SERVICE_HOST").is_some();
    let backend = reader.optional("deployment_backend", parse::text);
    SandboxIdentity {
        agent_id: reader.optional("agent_id", parse::text).unwrap_or_default(),
        project_id: reader.optional("project_id", parse::text).unwrap_or_default(),
        controller_id: reader.optional("controller_id", parse::text).unwrap_or_default(),
        deployment_backend: backend.unwrap_or_else(|| if in_cluster { "kubernetes" } else { "local" }.into()),
    }
}
