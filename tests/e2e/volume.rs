//! Volumes of a test's Pods, and what lies behind them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, ImageVolumeSource, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, Secret, SecretVolumeSource, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::cluster::Scene;
use crate::sandbox::pull_policy;

/// An emptyDir.
pub(crate) fn scratch(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// The files of the Secret of that name.
pub(crate) fn secret(name: &str) -> Volume {
    let source = SecretVolumeSource { secret_name: Some(name.to_owned()), ..SecretVolumeSource::default() };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

/// What the claim of that name has.
pub(crate) fn claimed(name: &str, claim: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), ..Default::default() };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

/// The root of an image, read-only.
pub(crate) fn image(name: &str, reference: String) -> Volume {
    let pull_policy = pull_policy(&reference);
    let source = ImageVolumeSource { reference: Some(reference), pull_policy };
    Volume { name: name.to_owned(), image: Some(source), ..Volume::default() }
}

/// Where a volume is mounted.
pub(crate) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// Makes a Secret of these files.
pub(crate) async fn make_secret(scene: &Scene, name: &str, files: &[(&str, &str)]) {
    let secrets: Api<Secret> = scene.api();
    let secret = Secret {
        metadata: named(name),
        string_data: Some(files.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await.expect("a secret can be made");
}

/// Makes a claim of the cluster's usual class.
pub(crate) async fn make_claim(scene: &Scene, name: &str) {
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let requests = BTreeMap::from([("storage".to_owned(), Quantity("16Mi".to_owned()))]);
    let claim = PersistentVolumeClaim {
        metadata: named(name),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    claims.create(&PostParams::default(), &claim).await.expect("a claim can be made");
}

/// Metadata that is a name.
pub(crate) fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}
