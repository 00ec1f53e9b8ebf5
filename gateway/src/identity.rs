//! Sandboxes that are Pods show the token of their service account: no secret is made, given out or shared.
//!
//! The kubelet projects a token into the Pod that is bound to it, is for this gateway alone (`aud`) and changes every hour.
//! Promises: a token counts only while its Pod is there, for the audience of this gateway, in a namespace that was named; who
//! the Pod is, its annotation `openhive.io/agent-id` says, which whoever makes Pods in that namespace writes and no agent can
//! change. Checked by the cluster's own keys and a watch of Pods, which asks the API server nothing for a dial
//! ([`keys`]), or by a TokenReview for each dial ([`review`]), which needs a cluster-scoped right.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;

use crate::cluster::AGENT_ID;
use crate::config::{Reader, parse};
use crate::exit::reason;
use crate::tokens::is_name;

pub(crate) mod claims;
pub(crate) mod keys;
mod pods;
pub(crate) mod review;

use claims::Bound;
use keys::Keys;
use pods::Pods;

/// Which tokens count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `aud` of the tokens.
    pub audience: String,
    /// Where the Pods are.
    pub namespaces: BTreeSet<String>,
    /// Who checks them.
    pub check: Check,
    /// The exact id of this gateway, where it makes Pods itself: those that others have made are not its own.
    pub controller: Option<String>,
}

impl Config {
    /// Checked by the cluster's keys, in no namespace yet.
    pub fn new(audience: &str) -> Config {
        Config { audience: audience.into(), namespaces: BTreeSet::new(), check: Check::Keys, controller: None }
    }

    /// From the settings; `None` where no audience is set, or where something is missing and was noted.
    pub fn read(reader: &mut Reader) -> Option<Config> {
        let audience = reader.optional("identity_audience", parse::visible);
        let namespaces = reader.optional("identity_namespaces", namespaces);
        let check = reader
            .value("identity_check", parse::one_of(&[("keys", Check::Keys), ("tokenreview", Check::TokenReview)]));
        let audience = audience?;
        let Some(namespaces) = namespaces else {
            reader.mistake("identity_namespaces", "is missing, or wrong: name the namespaces whose Pods may dial");
            return None;
        };
        Some(Config { audience, namespaces, check, controller: None })
    }
}

fn namespaces(text: &str) -> Result<BTreeSet<String>, String> {
    text.split(',').map(|name| parse::namespace(name.trim())).collect()
}

/// Who checks tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// We, by the keys that the cluster publishes.
    Keys,
    /// The API server, each time.
    TokenReview,
}

/// Why nobody is known by a token now.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The token is one of a service account, and is not good.
    #[error("{0}")]
    Refused(String),
    /// It cannot be found out.
    #[error("the API server cannot be asked: it {step}")]
    Away {
        /// What was wanted.
        step: &'static str,
        /// Why it was not answered.
        source: Box<kube::Error>,
    },
    /// What the API server publishes cannot be used.
    #[error("the cluster's {0}")]
    Unusable(&'static str),
}

impl IdentityError {
    fn away(step: &'static str) -> impl FnOnce(kube::Error) -> IdentityError {
        move |source| IdentityError::Away { step, source: Box::new(source) }
    }

    fn refused(why: impl Into<String>) -> IdentityError {
        IdentityError::Refused(why.into())
    }
}

/// Knows sandboxes by the tokens of their service accounts. Shared.
pub struct Identity {
    config: Config,
    client: Client,
    keys: Option<Keys>,
    pods: Arc<Pods>,
}

impl Identity {
    /// Begin to learn the keys and to watch Pods. A cluster that is away holds nobody up; it is asked again when somebody dials.
    pub fn new(config: Config, client: Client) -> Identity {
        let keys = (config.check == Check::Keys).then(|| Keys::new(client.clone()));
        let pods = Pods::watch(&client, &config.namespaces, config.controller.clone());
        Identity { config, client, keys, pods }
    }

    /// The id of the sandbox whose Pod has this token; `None` where it is no token of a service account.
    pub async fn sandbox_of(&self, token: &str) -> Result<Option<String>, IdentityError> {
        if !claims::is_shaped(token) {
            return Ok(None);
        }
        let bound = match &self.keys {
            Some(keys) => keys.check(token, &self.config.audience).await?,
            None => review::check(&self.client, token, &self.config.audience).await?,
        };
        let Some(bound) = bound else { return Ok(None) };
        self.known(&bound).await.map(Some)
    }

    async fn known(&self, bound: &Bound) -> Result<String, IdentityError> {
        let Bound { namespace, pod, uid } = bound;
        if !self.config.namespaces.contains(namespace) {
            return Err(IdentityError::refused(format!(
                "the token is of namespace {namespace}, which has no sandboxes"
            )));
        }
        let id = match self.pods.agent_of(uid) {
            Some(id) => id,
            // It may be younger than what the watch has told.
            None => pods::ask(&self.client, bound, self.config.controller.as_deref()).await?,
        };
        let id = id.ok_or_else(|| {
            IdentityError::refused(format!("Pod {namespace}/{pod} has no annotation {AGENT_ID}, or another gateway has made it, so it is no sandbox here"))
        })?;
        match is_name(&id) {
            true => Ok(id),
            false => Err(IdentityError::refused(format!("{AGENT_ID} of Pod {namespace}/{pod} is no id of an agent"))),
        }
    }
}

/// One log line for operators; the peer is told less.
pub fn log(error: &IdentityError) {
    match error {
        IdentityError::Refused(why) => tracing::warn!(why, "a service account's token was refused"),
        other => tracing::error!(error = reason(other), "a service account's token cannot be checked"),
    }
}
