//! Whether it can work here: rights, the cluster's opinion of the very Pod, and a Pod that is run once (002-12..14).
//!
//! Nothing stays: the reviews and the dry run store nothing, the Pod is deleted.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Resource, ResourceExt};

use super::{Kubernetes, Template, delivery, pod};
use crate::backend::words::cut;
use crate::backend::{BackendError, Spec};

mod trial;

pub(super) use trial::Trial;

/// All that the backend may do, and nothing else: resource, subresource, verbs. The chart's Role has the same.
pub const RIGHTS: &[(&str, Option<&str>, &[&str])] = &[
    ("pods", None, &["create", "get", "list", "watch", "delete"]),
    ("pods", Some("log"), &["get"]),
    ("services", None, &["create", "get", "list", "delete"]),
    ("events", None, &["list"]),
];

/// The id of the Pod that is only asked about.
const NOBODY: &str = "preflight";

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as it has to be.
    Good(String),
    /// It works, and somebody should know.
    Warning(String),
    /// It cannot work; what to change.
    Bad(String),
    /// Nobody has answered.
    Unknown(String),
}

impl Finding {
    fn of(error: &BackendError) -> Finding {
        match error {
            BackendError::Away(_) => Finding::Unknown(error.to_string()),
            _ => Finding::Bad(error.to_string()),
        }
    }
}

impl Finding {
    /// Without the word before it.
    pub fn text(&self) -> &str {
        match self {
            Finding::Good(text) | Finding::Warning(text) | Finding::Bad(text) | Finding::Unknown(text) => text,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self {
            Finding::Good(_) => "ok",
            Finding::Warning(_) => "warning",
            Finding::Bad(_) => "FAILED",
            Finding::Unknown(_) => "unknown",
        };
        write!(f, "{word:<9}{}", self.text())
    }
}

impl Kubernetes {
    /// Each right that is needed, one finding for those of a resource.
    pub async fn rights(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (resource, subresource, verbs) in RIGHTS {
            let what = subresource.map_or_else(|| (*resource).to_string(), |sub| format!("{resource}/{sub}"));
            let mut missing = Vec::new();
            let mut failed = None;
            for verb in *verbs {
                match self.may(verb, resource, *subresource).await {
                    Ok(true) => {}
                    Ok(false) => missing.push(*verb),
                    Err(error) => failed = Some(Finding::of(&error)),
                }
            }
            let namespace = &self.config.namespace;
            findings.push(match failed {
                Some(finding) => finding,
                None if missing.is_empty() => Finding::Good(format!("may {} {what} in {namespace}", verbs.join(", "))),
                None => Finding::Bad(format!(
                    "may not {} {what} in {namespace}: add it to the gateway's Role there",
                    missing.join(", ")
                )),
            });
        }
        findings
    }

    async fn may(&self, verb: &str, resource: &str, subresource: Option<&str>) -> Result<bool, BackendError> {
        let wanted = ResourceAttributes {
            namespace: Some(self.config.namespace.clone()),
            verb: Some(verb.into()),
            resource: Some(resource.into()),
            subresource: subresource.map(Into::into),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(wanted), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        // Of nobody's namespace, and open to everybody (system:basic-user).
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| self.act("ask for", "the right to", verb).refused(&error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// What the cluster would say to a Pod and a Service of the template.
    pub async fn dry_run(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for template in self.candidates() {
            match self.would_take_pod_of(template).await {
                Ok(good) => {
                    findings = findings.iter().map(delivery::instead).chain(good).collect();
                    break;
                }
                Err(error) => {
                    findings.push(Finding::of(&error));
                    // What does not answer now says nothing of the next one either.
                    if !matches!(error, BackendError::Refused(_)) {
                        break;
                    }
                }
            }
        }
        let service =
            pod::service(&self.template, &self.config.controller, NOBODY, "00000000-0000-0000-0000-000000000000");
        findings.extend(self.would_take(&service).await.unwrap_or_else(|error| vec![Finding::of(&error)]));
        findings
    }

    async fn would_take_pod_of(&self, template: &Template) -> Result<Vec<Finding>, BackendError> {
        let spec = Spec { image: self.config.preflight_image.clone(), ..Spec::default() };
        self.would_take(&pod::pod(template, &self.config.controller, NOBODY, &spec)?).await
    }

    async fn would_take<K>(&self, object: &K) -> Result<Vec<Finding>, BackendError>
    where
        K: Resource<DynamicType = ()> + serde::Serialize,
    {
        let (kind, name) = (K::kind(&()), object.name_any());
        let namespace = &self.config.namespace;
        let refused = |error: &kube::Error| self.act("create (dry run)", kind.clone(), &name).refused(error);
        let bytes = serde_json::to_vec(object).map_err(|error| refused(&kube::Error::SerdeError(error)))?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let request = Request::new(K::url_path(&(), Some(namespace))).create(&dry, bytes);
        let request = request.map_err(|error| refused(&kube::Error::BuildRequest(error)))?.map(Body::from);
        let answer = self.client.send(request).await.map_err(|error| refused(&error))?;
        // What a client is to be told: `299 - "text"` (RFC 7234).
        let told: Vec<String> = answer
            .headers()
            .get_all("warning")
            .iter()
            .filter_map(|value| Some(value.to_str().ok()?.splitn(3, ' ').nth(2)?.trim_matches('"').to_string()))
            .collect();
        let good = answer.status().is_success();
        let body = answer.into_body().collect_bytes().await.map_err(|error| refused(&error))?;
        if !good {
            let status: Status = serde_json::from_slice(&body).unwrap_or_default();
            return Err(refused(&kube::Error::Api(status.boxed())));
        }
        let mut findings = vec![Finding::Good(format!("{namespace} takes the {kind} of a sandbox (dry run)"))];
        findings.extend(told.iter().map(|text| Finding::Warning(format!("of the {kind} of a sandbox: {}", cut(text)))));
        Ok(findings)
    }
}
