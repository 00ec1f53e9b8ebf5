//! `gateway clean`: end all that this gateway has made in a cluster, when it has gone for good.

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Command};
use gateway::backend::kubernetes::Kubernetes;
use gateway::backend::{Backend, BackendError, Managed};
use gateway::exit::{self, Fault};
use gateway::sandboxes::EVERY;
use tokio::task::JoinSet;

/// A gateway that is still ending makes what it misses at each of its looks.
const AGAIN: Duration = EVERY.saturating_add(Duration::from_secs(1));
/// Ended at a time.
const PLACES: usize = 32;

/// The command, without the settings.
pub(crate) fn command() -> Command {
    Command::new("clean")
        .about(
            "End every sandbox that this gateway has made in the cluster, once it has gone for good; no store is read",
        )
        .after_help(
            "Only what has exactly this GATEWAY_KUBERNETES_CONTROLLER_ID is touched. A gateway of this id that still\n\
             serves would make them again.\n\n\
             Exit codes: 0 nothing is left; 75 something is, and the command can come again; 78 settings.",
        )
}

/// Run it; the exit code.
pub(crate) fn run(matches: &ArgMatches) -> Result<u8, Fault> {
    let config = crate::kubernetes(matches, "end")?;
    crate::many_threads(async move {
        let kubernetes = Kubernetes::new(config).await.map_err(|error| Fault::new(exit::CONFIGURATION, &error))?;
        tokio::spawn(kubernetes.follow());
        let kubernetes = Arc::new(kubernetes);
        let left = |error: BackendError| Fault::new(exit::TEMPORARY, &error);
        let mut all = kubernetes.list().await.map_err(left)?;
        if all.is_empty() {
            crate::say("there are no sandboxes of this gateway\n")?;
        }
        while !all.is_empty() {
            end(&kubernetes, all).await?;
            tokio::time::sleep(AGAIN).await;
            all = kubernetes.list().await.map_err(left)?;
        }
        Ok(0)
    })
}

/// Each of them, some at a time; the first that cannot be ended is told when all others are.
async fn end(kubernetes: &Arc<Kubernetes>, all: Vec<Managed>) -> Result<(), Fault> {
    let (mut waiting, mut ending, mut failed) = (all.into_iter(), JoinSet::new(), None);
    loop {
        while ending.len() < PLACES
            && let Some(Managed { id, instance, .. }) = waiting.next()
        {
            let kubernetes = kubernetes.clone();
            ending.spawn(async move {
                let ended = kubernetes.delete(&id, Some(&instance)).await;
                (id, ended)
            });
        }
        let Some(ended) = ending.join_next().await else { break };
        match ended.map_err(|error| Fault::new(exit::INTERNAL, &error))? {
            (id, Ok(())) => crate::say(&format!("ended    {id}\n"))?,
            (id, Err(error)) => {
                crate::say(&format!("FAILED   {id}: {error}\n"))?;
                failed = Some(Fault::new(exit::TEMPORARY, &error));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
