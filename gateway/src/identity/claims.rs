//! What a service account's token says (Kubernetes, "Managing Service Accounts", bound tokens).

use jsonwebtoken::decode_header;
use protocol::object::Only;
use serde::Deserialize;

use super::IdentityError;

/// To whom the token is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) pod: String,
    pub(crate) uid: String,
}

/// The claims that we read beside those that every JSON Web Token has.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Only<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Only<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    uid: String,
}

impl Claims {
    /// A token that is bound to no Pod could be anybody's.
    pub(super) fn bound(self) -> Result<Bound, IdentityError> {
        let Only(Kubernetes { namespace, pod }) = self.kubernetes;
        let Only(pod) = pod.ok_or_else(|| IdentityError::refused("the service account's token is bound to no Pod"))?;
        Ok(Bound { namespace, pod: pod.name, uid: pod.uid })
    }
}

/// Whether this is a JSON Web Token at all.
pub(super) fn is_shaped(token: &str) -> bool {
    decode_header(token).is_ok()
}
