//! The settings of the Kubernetes backend.

use std::path::PathBuf;

use super::delivery::Delivery;
use super::stage::Limits;
use crate::cluster;
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
    /// How the supervisor comes into a sandbox.
    pub delivery: Delivery,
    /// How the cluster is found.
    pub cluster: cluster::Config,
    /// How long things may take.
    pub limits: Limits,
    /// The image that `gateway preflight` runs in, instead of the template's.
    pub preflight_image: Option<String>,
}

impl Config {
    /// From the settings; `None` where no such backend is asked for, or something is missing and was noted.
    pub fn read(reader: &mut Reader, cluster: &cluster::Config) -> Option<Config> {
        let wanted = reader.value("backend", parse::one_of(&[("none", false), ("kubernetes", true)]));
        let namespace = reader.optional("kubernetes_namespace", parse::namespace);
        let controller = reader.optional("kubernetes_controller_id", parse::visible);
        let template = reader.optional("kubernetes_template", parse::path);
        let delivery = reader
            .value("kubernetes_delivery", parse::one_of(&[("template", Delivery::Template), ("auto", Delivery::Auto)]));
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
        Some(Config { namespace, controller, template, delivery, cluster: cluster.clone(), limits, preflight_image })
    }
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.into())
}
