//! Tokens checked by the API server itself, one call for each dial: it alone knows of a Pod's end at that instant. Needs the
//! cluster-scoped right to create TokenReviews (`system:auth-delegator`).

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};

use super::IdentityError;
use super::claims::Bound;

/// To whom the token is bound; `None` where it is no service account's.
pub(super) async fn check(client: &Client, token: &str, audience: &str) -> Result<Option<Bound>, IdentityError> {
    let spec = TokenReviewSpec { token: token.into(), audiences: Some(vec![audience.into()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let status = answer.map_err(IdentityError::away("did not review a token"))?.status.unwrap_or_default();
    read(status, audience)
}

/// The same of its answer.
pub(crate) fn read(status: TokenReviewStatus, audience: &str) -> Result<Option<Bound>, IdentityError> {
    // An API server that does not know of audiences names none, and would take a token for anybody.
    let ours = status.audiences.is_some_and(|audiences| audiences.iter().any(|known| known == audience));
    if status.authenticated != Some(true) || !ours {
        return Err(IdentityError::refused(format!("the API server does not know the token for audience {audience}")));
    }
    Ok(bound(&status.user.unwrap_or_default()))
}

fn bound(user: &UserInfo) -> Option<Bound> {
    let extra = |name: &str| user.extra.as_ref()?.get(name)?.first().cloned();
    let account = user.username.as_ref()?.strip_prefix("system:serviceaccount:")?;
    Some(Bound {
        namespace: account.split_once(':')?.0.into(),
        pod: extra("authentication.kubernetes.io/pod-name")?,
        uid: extra("authentication.kubernetes.io/pod-uid")?,
    })
}
