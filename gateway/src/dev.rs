//! The whole system on this machine: a gateway, its store in a directory, and supervised sandboxes, with no configuration.
//!
//! Promises: everything is in one directory, which one `gateway dev` has at a time; only this machine is listened to, and only
//! this user has the token; the commands `gateway sandbox` and `gateway task` find it by themselves while it runs; after a
//! kill -9 its sandboxes run on, and the next one in this directory adopts them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::app::{self, Running, Stops};
use crate::awake::wall_ms;
use crate::backend::local::{self, Local};
use crate::backend::{Backend, New, Spec, State};
use crate::client::Context;
use crate::client::context::{Left, state_home};
use crate::exit::{self, Fault};
use crate::store::{Register, migrate};
use crate::tokens::{Hash, new_token};

mod directory;

use directory::Directory;

/// The first sandbox; others are `dev-2`, `dev-3`…
pub const SANDBOX: &str = "dev";
/// Where it listens if that is free.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Until the sandboxes must be connected.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);

/// What `gateway dev` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is; `None` for the usual place of this user.
    pub directory: Option<PathBuf>,
    /// Where to listen and nowhere else; `None` for the usual port, or where it listened before, or any that is free.
    pub listen: Option<SocketAddr>,
    /// So many sandboxes, besides those that were created before.
    pub sandboxes: u32,
}

/// It runs.
pub struct Dev {
    /// Where everything is.
    pub directory: PathBuf,
    /// How clients reach it.
    pub context: Context,
    /// All of them, connected.
    pub sandboxes: Vec<String>,
    /// From the begin to the last connection.
    pub took: Duration,
    running: Running,
    local: Arc<Local>,
    left: Option<(Left, PathBuf)>,
    _lock: Directory,
}

/// Start everything and wait until every sandbox is connected; `config` is for what is not the directory's.
pub async fn start(options: Options, config: app::Config, stops: &mut Stops) -> Result<Dev, Fault> {
    let began = Instant::now();
    let supervisor = supervisor()?;
    let path = options.directory.or_else(usual_directory).ok_or_else(|| Fault {
        code: exit::CONFIGURATION,
        reason: "there is neither HOME nor XDG_STATE_HOME; name a directory with --dir".into(),
    })?;
    let directory = Directory::open(&path).map_err(|error| error.fault())?;
    let listener = match (options.listen, directory.address()) {
        (Some(address), _) => app::listen(address)?,
        (None, before) => match app::listen(before.unwrap_or(USUAL)) {
            Ok(listener) => listener,
            Err(_) => app::listen((Ipv4Addr::LOCALHOST, 0).into())?,
        },
    };
    let address = listener.local_addr().map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let moved = directory.address() != Some(address);
    let token_file = directory.prepare(address).map_err(|error| error.fault())?;
    let database_url = directory.database().map_err(|error| error.fault())?;
    migrate::up(&database_url).await.map_err(app::fault)?;

    let url = format!("http://{address}");
    let root = directory.sandboxes();
    let local = Arc::new(Local::new(local::Config { root: root.clone(), supervisor, gateway_url: url.clone() }));
    let config = app::Config {
        tls: None,
        database_url,
        advertise: None,
        users: Some(directory.users()),
        sandboxes: None,
        ..config
    };
    let running = app::start(config, listener, Some(local.clone())).await?;
    let left = Left { url: url.clone(), token_file: token_file.clone() };
    let client_address: peer::Address = url.parse().map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let mut dev = Dev {
        directory: path,
        context: Context { address: client_address, token_file, ca_file: None },
        sandboxes: Vec::new(),
        took: Duration::ZERO,
        running,
        local,
        left: None,
        _lock: directory,
    };
    match dev.bring_up(&root, options.sandboxes, moved).await {
        Ok(()) => {
            dev.took = began.elapsed();
            dev.leave_context(left);
            Ok(dev)
        }
        Err(fault) => {
            dev.stop(stops).await;
            Err(fault)
        }
    }
}

impl Dev {
    /// End the sandboxes while the gateway still hears their last words, then the gateway.
    pub async fn stop(self, stops: &mut Stops) {
        if let Some((left, path)) = &self.left {
            left.remove(path);
        }
        self.local.stop().await;
        self.running.stop(stops).await;
    }

    /// Known sandboxes go on, missing ones are made; then all are waited for.
    async fn bring_up(&mut self, root: &Path, wanted: u32, moved: bool) -> Result<(), Fault> {
        let mut known = Local::known(root).map_err(|error| Fault::new(exit::TEMPORARY, &error))?;
        if moved && Local::any_runs(root, &known) {
            // They dial where the gateway was before.
            known.iter().for_each(|sandbox| self.local.resume(&sandbox.id));
            self.local.stop().await;
        }
        for sandbox in &known {
            // The directory says who there is: the store may have been removed.
            self.register(sandbox).await?;
            self.local.resume(&sandbox.id);
        }
        for id in (1..=wanted).map(name) {
            if known.iter().all(|sandbox| sandbox.id != id) {
                let token = new_token().map_err(|error| Fault::new(exit::TEMPORARY, &error))?;
                let sandbox = New { id, token: Some(token), spec: Spec::default() };
                self.register(&sandbox).await?;
                self.local.create(sandbox.clone()).await.map_err(|error| Fault::new(exit::TEMPORARY, &error))?;
                known.push(sandbox);
            }
        }
        self.sandboxes = known.into_iter().map(|sandbox| sandbox.id).collect();
        for id in &self.sandboxes {
            self.connected(id).await?;
        }
        Ok(())
    }

    async fn register(&self, sandbox: &New) -> Result<(), Fault> {
        let token = Hash::of(sandbox.token.as_deref().unwrap_or_default()).hex();
        let register = Register { id: sandbox.id.clone(), token, now_ms: wall_ms() };
        self.running.sessions.store.write(register).await.map(|_| ()).map_err(app::fault)
    }

    async fn connected(&self, id: &str) -> Result<(), Fault> {
        let Some(mut state) = self.local.watch(id) else { return Ok(()) };
        let log = self.directory.join("sandboxes").join(id).join("log");
        tokio::select! {
            () = self.session(id) => Ok(()),
            (code, reason) = failure(&mut state) => {
                let code = code.and_then(|code| u8::try_from(code).ok()).filter(|code| (64..=78).contains(code));
                let reason = format!("the supervisor of sandbox {id} ended: {reason}; its log is {}", log.display());
                Err(Fault { code: code.unwrap_or(exit::UNAVAILABLE), reason })
            }
            () = tokio::time::sleep(PATIENCE) => {
                let reason = format!("sandbox {id} does not connect; its log is {}", log.display());
                Err(Fault { code: exit::UNAVAILABLE, reason })
            }
        }
    }

    async fn session(&self, id: &str) {
        while self.running.sessions.registry.get(id).is_none() {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Without it the commands need to be told where the gateway is; nothing else is lost.
    fn leave_context(&mut self, left: Left) {
        let Some(path) = Left::usual_path() else { return };
        match left.write(&path) {
            Ok(()) => self.left = Some((left, path)),
            Err(error) => tracing::warn!(path = %path.display(), %error, "clients will not find this gateway"),
        }
    }
}

async fn failure(state: &mut watch::Receiver<State>) -> (Option<i32>, String) {
    loop {
        if let State::Failed { code, reason } = &*state.borrow_and_update() {
            return (*code, reason.clone());
        }
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn name(number: u32) -> String {
    if number == 1 { SANDBOX.into() } else { format!("{SANDBOX}-{number}") }
}

/// Of this user.
fn usual_directory() -> Option<PathBuf> {
    Some(state_home()?.join("chaperone/dev"))
}

/// It lies beside this program, and its shim beside it.
fn supervisor() -> Result<PathBuf, Fault> {
    let here = std::env::current_exe().map_err(|error| Fault::new(exit::INTERNAL, &error))?;
    let directory = here.parent().unwrap_or(Path::new("/"));
    for name in ["supervisor", "shim"] {
        let path = directory.join(name);
        if !path.is_file() {
            let reason = format!(
                "there is no {}; `cargo build -p supervisor -p shim` makes both beside a gateway that cargo has built",
                path.display()
            );
            return Err(Fault { code: exit::CONFIGURATION, reason });
        }
    }
    Ok(directory.join("supervisor"))
}
