//! What the cluster's refusals mean, by the names of the things that somebody has to change.

use std::borrow::Cow;

use kube::core::Status;

use crate::backend::BackendError;
use crate::backend::words::cut;

/// What was refused.
#[derive(Clone, Debug)]
pub(super) struct Act<'a> {
    /// For instance `create`.
    pub verb: &'static str,
    /// For instance `Pod`.
    pub kind: Cow<'static, str>,
    /// The object's name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

impl Act<'_> {
    /// As an error of the backend.
    pub(super) fn refused(self, error: &kube::Error) -> BackendError {
        match error {
            kube::Error::Api(status) => self.by_the_server(status),
            other => BackendError::Away(format!(
                "{self}: the cluster's API cannot be reached: {}",
                crate::exit::reason(other)
            )),
        }
    }

    fn by_the_server(self, status: &Status) -> BackendError {
        let told = cut(&status.message);
        let namespace = self.namespace;
        let says = |word: &str| status.message.contains(word);
        if status.code == 401 {
            return BackendError::Operator(format!(
                "{self}: the cluster does not know this gateway: check its credentials: {told}"
            ));
        }
        if status.code == 429 || status.code >= 500 {
            return BackendError::Away(format!(
                "{self}: the cluster's API has trouble (status {}): {told}",
                status.code
            ));
        }
        if says("exceeded quota") {
            return BackendError::Full(format!(
                "{self}: the quota of namespace {namespace} is used up: delete sandboxes, ask for less, or raise it: {told}"
            ));
        }
        if says("failed quota") {
            return BackendError::Refused(format!(
                "{self}: the quota of namespace {namespace} wants more to be said: give `resources`, or set them in the template: {told}"
            ));
        }
        if says("because it is being terminated") {
            return BackendError::Operator(format!("{self}: namespace {namespace} is being removed: {told}"));
        }
        if status.code == 404 && is_of_a_namespace(status) {
            return BackendError::Operator(format!(
                "{self}: there is no namespace {namespace}: make it, or set GATEWAY_KUBERNETES_NAMESPACE: {told}"
            ));
        }
        if says("RuntimeClass") {
            return BackendError::Refused(format!("{self}: there is no such runtime class here: {told}"));
        }
        if says("violates PodSecurity") {
            return BackendError::Refused(format!(
                "{self}: the Pod Security level of namespace {namespace} forbids it: {told}"
            ));
        }
        // As an authoriser says it; an admission plugin begins otherwise.
        if status.code == 403 && says("cannot ") && says(" resource \"") {
            let hint =
                format!("the gateway's Role in namespace {namespace} lacks a verb; `gateway preflight` tells which");
            return BackendError::Operator(format!("{self}: {hint}: {told}"));
        }
        if says("error looking up service account") {
            return BackendError::Operator(format!("{self}: the template's service account is missing: {told}"));
        }
        if status.code == 422 || status.code == 400 && !says("admission webhook") {
            return BackendError::Refused(format!("{self}: the cluster calls it invalid: {told}"));
        }
        BackendError::Refused(format!("{self}: the cluster's admission denies it: {told}"))
    }
}

impl std::fmt::Display for Act<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {} {} {} in namespace {}", self.verb, self.kind, self.name, self.namespace)
    }
}

/// By the server's own word: what a message quotes may be anybody's.
fn is_of_a_namespace(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

/// Whether there is no such object.
pub(super) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found() && !is_of_a_namespace(status))
}

/// Whether there is one already.
pub(super) fn is_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> BackendError {
        let act = Act { verb: "create", kind: "Pod".into(), name: "sandbox-a", namespace: "hive-sandbox" };
        act.refused(&kube::Error::Api(Status::failure(message, "Forbidden").with_code(code).boxed()))
    }

    #[test]
    fn a_refusal_names_the_object_and_whose_turn_it_is() {
        // Messages of a Kubernetes 1.36 API server.
        let quota = refused(
            403,
            "pods \"a\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2",
        );
        assert!(matches!(quota, BackendError::Full(_)), "{quota}");
        let class = refused(403, "pods \"a\" is forbidden: pod rejected: RuntimeClass \"nope\" not found");
        assert!(matches!(class, BackendError::Refused(_)) && class.to_string().contains("nope"), "{class}");
        let level = refused(403, "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": privileged");
        assert!(matches!(level, BackendError::Refused(_)) && level.to_string().contains("Pod Security"), "{level}");
        let role = refused(403, "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\"");
        assert!(matches!(role, BackendError::Operator(_)) && role.to_string().contains("preflight"), "{role}");
        let details = serde_json::from_value(serde_json::json!({ "kind": "namespaces" })).expect("details");
        let missing =
            Status::failure("namespaces \"hive-sandbox\" not found", "NotFound").with_code(404).with_details(details);
        let act = Act { verb: "create", kind: "Pod".into(), name: "sandbox-a", namespace: "hive-sandbox" };
        let namespace = act.refused(&kube::Error::Api(missing.boxed()));
        assert!(matches!(namespace, BackendError::Operator(_)), "{namespace}");
        let webhook = refused(400, "admission webhook \"policy.example\" denied the request: no");
        assert!(matches!(webhook, BackendError::Refused(_)) && webhook.to_string().contains("admission"), "{webhook}");
        assert!(matches!(refused(503, "etcd is away"), BackendError::Away(_)));
        assert!(quota.to_string().contains("Pod sandbox-a in namespace hive-sandbox"), "{quota}");
    }
}
