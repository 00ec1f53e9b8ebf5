//! What the Pod knows and the agent must not: the supervisor's token and secrets. What it gets: an allow-listed
//! environment (000-63, 000-68).

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};

use crate::cluster::{Level, in_namespace};
use crate::sandbox::Sandbox;
use crate::volume::make_secret;

const TOKEN: &str = "token-that-the-agent-must-not-see";

/// A variable from a secret that need not exist.
fn optional(name: &str) -> EnvVar {
    let selector = SecretKeySelector { name: "provider".to_owned(), key: name.to_owned(), optional: Some(true) };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

#[test]
fn a_mounted_token_is_the_supervisors_alone_where_both_have_one_uid() {
    let script = format!(
        "for file in /var/run/secrets/chaperone/token /run/secrets/chaperone/token \
             /proc/1/root/var/run/secrets/chaperone/token; do cat $file >/dev/null 2>&1 && echo 'read '$file; done; \
         ls /var/run/secrets/chaperone >/dev/null 2>&1 && echo 'listed the secrets'; \
         env | grep {TOKEN}; grep -l {TOKEN} /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -v self; \
         echo attempts-end; exec sleep infinity"
    );
    in_namespace(Level::Restricted, async |scene| {
        make_secret(scene, "token", &[("token", TOKEN)]).await;
        let pod = Sandbox::shell(&script.replace(TOKEN, "agent-must-not-se[e]"))
            .env("SUPERVISOR_API_TOKEN_FILE", "/var/run/secrets/chaperone/token")
            .secret("token", "/var/run/secrets/chaperone")
            .start(scene)
            .await;
        pod.says("attempts-end").await;
        assert_eq!(pod.agent_output().await, ["attempts-end\n"]);
        // The control: nothing but the confinement stands in the way of this uid.
        assert_eq!(pod.shell("cat /var/run/secrets/chaperone/token").await, TOKEN);
    });
}

#[test]
fn the_agent_gets_the_allowed_variables_only_and_starts_without_those_that_are_absent() {
    in_namespace(Level::Restricted, async |scene| {
        make_secret(scene, "provider", &[("OPENAI_API_KEY", "provider-key")]).await;
        let pod = Sandbox::shell("env | sort; echo env-ends; exec sleep infinity")
            .env("HIVE_SANDBOX_CODEX_ENV_ALLOWLIST", "OPENAI_API_KEY,ANTHROPIC_API_KEY,DEEPSEEK_API_KEY,QWEN_API_KEY")
            .env("DATABASE_URL", "postgres://user:password@db")
            .env("HOME", "/home/codex")
            .container(|c| {
                let env = c.env.get_or_insert_default();
                env.extend(["OPENAI_API_KEY", "ANTHROPIC_API_KEY"].map(optional));
            })
            .start(scene)
            .await;
        pod.says("env-ends").await;
        let lines = pod.agent_output().await;
        let names: Vec<&str> = lines.iter().filter_map(|l| Some(l.split_once('=')?.0)).collect();
        assert!(lines.iter().any(|l| l == "OPENAI_API_KEY=provider-key\n"), "{lines:?}");
        assert!(lines.iter().any(|l| l == "HOME=/home/codex\n"), "{lines:?}");
        for absent in
            ["ANTHROPIC_API_KEY", "DATABASE_URL", "KUBERNETES_SERVICE_HOST", "HIVE_SANDBOX_CODEX_ENV_ALLOWLIST"]
        {
            assert!(!names.contains(&absent), "{absent} is there: {names:?}");
        }
    });
}
