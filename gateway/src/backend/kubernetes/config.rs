//! The settings of the Kubernetes backend.

use std::path::PathBuf;
use std::time::Duration;

use super::stage::Limits;
use crate::config::{Reader, parse};

/// What it needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its Pods are.
    pub namespace: String,
    /// The exact id of this gateway, which tells its objects from everybody else's.
    pub controller: String,
    /// The file of the template.
    pub template: PathBuf,
    /// How the cluster is found; without it, as a Pod of it.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of that file; without it, the current one.
    pub context: Option<String>,
    /// How long things may take.
    pub limits: Limits,
    /// The image that `gateway preflight` runs in, instead of the template's.
    pub preflight_image: Option<String>,
}

impl Config {
    /// From the settings; `None` where no such backend is asked for, or something is missing and was noted.
    pub fn read(reader: &mut Reader) -> Option<Config> {
        let wanted = reader.value("backend", parse::one_of(&[("none", false), ("kubernetes", true)]));
        let namespace = reader.optional("kubernetes_namespace", namespace);
        let controller = reader.optional("kubernetes_controller_id", controller);
        let template = reader.optional("kubernetes_template", parse::path);
        let kubeconfig = reader.optional("kubernetes_kubeconfig", parse::path);
        let context = reader.optional("kubernetes_context", text);
        let limits = Limits {
            ready: reader.value("kubernetes_ready_limit", parse::duration),
            unschedulable: reader.value("kubernetes_unschedulable_limit", parse::duration),
        };
        let preflight_image = reader.optional("kubernetes_preflight_image", text);
        if !wanted {
            return None;
        }
        for (name, missing) in [
            ("kubernetes_namespace", namespace.is_none()),
            ("kubernetes_controller_id", controller.is_none()),
            ("kubernetes_template", template.is_none()),
        ] {
            if missing {
                reader.mistake(name, "is missing, or wrong, and the backend `kubernetes` needs it");
            }
        }
        let (namespace, controller, template) = (namespace?, controller?, template?);
        Some(Config { namespace, controller, template, kubeconfig, context, limits, preflight_image })
    }

    /// How long a Pod is given to start.
    pub fn ready_limit(&self) -> Duration {
        self.limits.ready
    }
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.into())
}

fn namespace(text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = text.len() <= 63 && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-');
    if label {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is no namespace: small letters, digits and dashes, 63 at most"))
    }
}

/// It stands in an annotation and in lines of text.
fn controller(text: &str) -> Result<String, String> {
    let known = text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if known { Ok(text.into()) } else { Err("is no id: visible ASCII without blanks, 253 at most".into()) }
}
