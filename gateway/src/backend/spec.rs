//! What may be asked for of a sandbox. The operator's template decides the rest.

use std::collections::BTreeMap;

use protocol::object::Only;
use serde::{Deserialize, Deserializer, Serialize};

use super::BackendError;

/// Beside its id. Everything may be left out; what is not here is refused by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// The image that the agent and its tasks run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The agent: program and arguments. Without it, there are dev-tasks only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Variables of the agent and its tasks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Processor, memory, and whatever else the cluster counts.
    #[serde(skip_serializing_if = "Resources::is_empty", deserialize_with = "object")]
    pub resources: Resources,
    /// Labels that its node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it does not mind.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub tolerations: Vec<Toleration>,
    /// The RuntimeClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// Further labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Secrets that its image is pulled with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Its whole life at most, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    /// Of its workspace, as Kubernetes writes quantities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_size: Option<String>,
}

fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Only::deserialize(from).map(|Only(value)| value)
}

fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Vec::<Only<T>>::deserialize(from).map(|values| values.into_iter().map(|Only(value)| value).collect())
}

/// By name, as Kubernetes writes quantities: `{"cpu": "500m", "memory": "1Gi"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What it is sure to get.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    /// What it gets at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

impl Resources {
    fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

/// A taint that is not minded. Without `value`, whatever its value is; without `effect`, whatever its effect is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toleration {
    /// Of the taint.
    pub key: String,
    /// Of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// No new Pod comes.
    NoSchedule,
    /// Rather not.
    PreferNoSchedule,
    /// And those that are there go.
    NoExecute,
}

impl Effect {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }
}

impl Spec {
    /// The variables: names that every shell takes, and none that would set up the supervisor.
    pub fn check_env(&self) -> Result<(), BackendError> {
        for name in self.env.keys() {
            let problem = if !is_variable(name) {
                "is no name of a variable: it has letters, digits and _, and begins with no digit"
            } else if OPERATORS.iter().any(|prefix| name.starts_with(prefix)) {
                "is the operator's to set"
            } else {
                continue;
            };
            return Err(BackendError::Request { field: format!("env.{name}"), problem: problem.into() });
        }
        Ok(())
    }
}

/// What the supervisor reads its settings from.
const OPERATORS: [&str; 4] = ["SUPERVISOR_", "HIVE_", "OPENHIVE_", "POD_"];

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_offered_is_refused_by_its_name() {
        for bad in [r#"{"privileged":true}"#, r#"{"hostNetwork":true}"#, r#"{"resources":{"claims":[]}}"#] {
            let error = serde_json::from_str::<Spec>(bad).expect_err(bad).to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn fields_without_names_are_refused() {
        for bad in [r#"{"resources":[{"cpu":"1"},{}]}"#, r#"{"tolerations":[["key","value"]]}"#] {
            assert!(serde_json::from_str::<Spec>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_asked_for_is_the_same_text_whatever_its_order_was() {
        let read = |text| serde_json::from_str::<Spec>(text).expect("a good request");
        let one = read(r#"{"env":{"B":"2","A":"1"},"image":"x"}"#);
        let two = read(r#"{"image":"x","env":{"A":"1","B":"2"}}"#);
        let text = |spec| serde_json::to_string(spec).expect("text");
        assert_eq!(text(&one), text(&two));
        assert_eq!(text(&Spec::default()), "{}");
    }

    #[test]
    fn the_supervisors_settings_are_not_the_requests_to_set() {
        for (name, good) in [("PATH_2", true), ("_x", true), ("2x", false), ("A,B", false), ("SUPERVISOR_GRACE", false)]
        {
            let spec = Spec { env: BTreeMap::from([(name.into(), "1".into())]), ..Spec::default() };
            assert_eq!(spec.check_env().is_ok(), good, "{name}");
        }
    }
}
