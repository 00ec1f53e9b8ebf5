//! The token of a sandbox as a Secret, until the gateway verifies the tokens that the cluster itself gives to Pods: then this
//! file goes, with its two calls and [`super::pod`]'s volume.
//!
//! It is made before the Pod, so that no kubelet waits for it, and by the name of this gateway, so that it can be removed
//! without being read: the gateway may create and delete Secrets, and read none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};

use super::refusal::is_there;
use super::{Kubernetes, absent, names};
use crate::backend::BackendError;

impl Kubernetes {
    /// In the place of one that was there.
    pub(super) async fn put_token(&self, id: &str, token: &str) -> Result<(), BackendError> {
        let controller = &self.config.controller;
        let name = names::secret(controller, id);
        let wanted = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(names::labels(controller, id)),
                annotations: Some(names::annotations(controller, id)),
                ..ObjectMeta::default()
            },
            string_data: Some(BTreeMap::from([("token".into(), token.into())])),
            ..Secret::default()
        };
        let secrets = self.api::<Secret>();
        for _ in 0..2 {
            match secrets.create(&PostParams::default(), &wanted).await {
                Ok(_) => return Ok(()),
                Err(error) if is_there(&error) => self.remove_token(id).await?,
                Err(error) => return Err(self.act("create", "Secret", &name).refused(&error)),
            }
        }
        Err(BackendError::Away(format!("Secret {name} comes and goes; try again")))
    }

    pub(super) async fn remove_token(&self, id: &str) -> Result<(), BackendError> {
        let name = names::secret(&self.config.controller, id);
        let gone = self.api::<Secret>().delete(&name, &DeleteParams::default()).await;
        gone.map(|_| ()).or_else(absent).map_err(|error| self.act("delete", "Secret", &name).refused(&error))
    }
}
