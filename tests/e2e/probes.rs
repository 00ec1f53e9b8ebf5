//! Probes as the kubelet drives them (kubernetes.md 5.1).

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use protocol::health::{Health, Status};

use crate::cluster::{Level, in_namespace};
use crate::pod::{AGENT, container, is_ready};
use crate::sandbox::{SUPERVISOR, Sandbox, tests_image};

fn http(path: &str) -> Probe {
    let get = HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(8091), ..HTTPGetAction::default() };
    Probe {
        http_get: Some(get),
        period_seconds: Some(1),
        failure_threshold: Some(30),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn exec(what: &str) -> Probe {
    let command = [SUPERVISOR, "probe", what].map(str::to_owned).to_vec();
    Probe {
        exec: Some(ExecAction { command: Some(command) }),
        period_seconds: Some(1),
        failure_threshold: Some(30),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

#[test]
fn startup_liveness_and_readiness_over_http_make_the_pod_ready() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exec sleep infinity")
            .env("SUPERVISOR_AGENT_ID", "agent-7")
            .env("SUPERVISOR_PROJECT_ID", "project-7")
            .container(|c| {
                c.startup_probe = Some(http("/startupz"));
                c.liveness_probe = Some(Probe { failure_threshold: Some(3), ..http("/livez") });
                c.readiness_probe = Some(http("/readyz"));
            })
            .start(scene)
            .await;
        pod.ready().await;
        let health = pod.health().await;
        assert_eq!(health.status, Status::Ready);
        assert_eq!(health.identity.agent_id, "agent-7");
        assert_eq!(health.identity.project_id, "project-7");
        assert_eq!(health.identity.deployment_backend, "kubernetes");
        for path in ["/livez", "/readyz", "/startupz", "/healthz", "/alive"] {
            assert_eq!(pod.get(path).await.map(|(status, _)| status), Some(200), "{path}");
        }
    });
}

#[test]
fn exec_probes_need_no_shell_and_no_curl_in_the_image() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::agent(&["/scripted-model", "--listen", "127.0.0.1:8099"])
            .image(tests_image())
            .env("SUPERVISOR_AGENT_READY", "http:8099/healthz")
            .container(|c| {
                c.startup_probe = Some(exec("live"));
                c.liveness_probe = Some(exec("live"));
                c.readiness_probe = Some(exec("ready"));
            })
            .start(scene)
            .await;
        pod.ready().await;
    });
}

#[test]
fn the_pod_is_ready_when_the_agent_is_and_lives_on_when_it_is_not() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exec sleep infinity")
            .env("SUPERVISOR_AGENT_READY", "exec:test -e /workspace/ready")
            .container(|c| {
                c.liveness_probe = Some(Probe { failure_threshold: Some(2), ..http("/livez") });
                c.readiness_probe = Some(Probe { failure_threshold: Some(1), ..http("/readyz") });
            })
            .start(scene)
            .await;
        pod.started().await;
        let health = pod.health().await;
        assert_ne!(health.status, Status::Ready);
        assert!(!health.readiness_reason.is_empty(), "it says why");
        assert_eq!(pod.exec(&[SUPERVISOR, "probe", "live"]).await.code, 0);
        assert_ne!(pod.exec(&[SUPERVISOR, "probe", "ready"]).await.code, 0);

        pod.shell("touch /workspace/ready").await;
        pod.ready().await;
        assert_eq!(pod.exec(&[SUPERVISOR, "probe", "ready"]).await.code, 0);

        pod.shell("rm /workspace/ready").await;
        pod.until("the Pod is not Ready any more", |pod| (!is_ready(pod)).then_some(())).await;
        let restarts = pod.until("its status", |pod| container(pod, AGENT).map(|c| c.restart_count)).await;
        assert_eq!(restarts, 0, "liveness never depends on the agent");
    });
}

#[test]
fn the_readiness_probe_of_003_12_finds_alive() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exec sleep infinity")
            .container(|c| {
                c.readiness_probe = Some(Probe {
                    initial_delay_seconds: Some(1),
                    period_seconds: Some(1),
                    timeout_seconds: Some(5),
                    success_threshold: Some(1),
                    failure_threshold: Some(3),
                    ..http("/alive")
                });
            })
            .start(scene)
            .await;
        pod.ready().await;
    });
}

#[test]
fn health_is_plain_json_on_loopback_at_the_port_of_an_agent_pod() {
    // 000-80, with bash for wget.
    let get = "exec 3<>/dev/tcp/127.0.0.1/8090; printf 'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("echo started; exec sleep infinity")
            .env("SUPERVISOR_LISTEN", "[::]:8090")
            .start(scene)
            .await;
        pod.says("started").await;
        let answer = pod.shell(get).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let health: Health = serde_json::from_str(body).expect("health is JSON");
        assert_eq!(health.status, Status::Ready);
    });
}
