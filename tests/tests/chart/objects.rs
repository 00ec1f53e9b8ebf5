//! What is rendered: where it is, what it may do, and who it is.

use serde_json::{Value, json};
use tests::chart;

/// Each object of each set, with the set's name.
fn every(check: impl Fn(&str, &Value)) {
    if !chart::has_helm() {
        return;
    }
    for (name, values) in chart::sets() {
        let objects = chart::objects(&values);
        assert!(objects.len() > 5, "{name}: {}", objects.len());
        for object in objects {
            let about = format!("{name}: {} {}", object["kind"], object["metadata"]["name"]);
            check(&about, &object);
        }
    }
}

/// 002-22.
#[test]
fn nothing_but_asked_for_namespaces_is_cluster_scoped_and_every_object_says_where_it_is() {
    every(|about, object| {
        let kind = object["kind"].as_str().expect("a kind");
        assert!(!kind.starts_with("Cluster") && kind != "CustomResourceDefinition", "{about}");
        let namespace = object["metadata"]["namespace"].as_str();
        assert!(kind == "Namespace" || namespace.is_some(), "{about} leaves its namespace to who applies it");
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/part-of"], "chaperone", "{about}");
    });
}

/// `defaultMode: 0440` is 288 to Helm and 440 to a reader of YAML 1.2, and the Pod of sandboxes has readers of both kinds.
#[test]
fn no_number_is_written_so_that_two_readers_take_it_for_two_numbers() {
    if !chart::has_helm() {
        return;
    }
    for (name, values) in chart::sets() {
        let text = chart::template(&values).expect("it renders");
        let octal = |word: &&str| word.len() > 1 && word.starts_with('0') && word.bytes().all(|b| b.is_ascii_digit());
        let text = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"._-/:\"'".contains(c));
        assert_eq!(words.filter(octal).collect::<Vec<_>>(), [""; 0], "{name}");
    }
}

/// Hooks, init containers and the Pod that sandboxes are made from included. Admission's own word on it: `tests/e2e/chart.rs`.
#[test]
fn every_pod_passes_restricted_and_only_a_gateway_that_makes_sandboxes_has_a_token_of_the_cluster() {
    every(|about, object| {
        for pod in chart::pods(object) {
            let found = findings(&pod["spec"]);
            assert!(found.is_empty(), "{about}: {found:?}");
            let calls = pod["spec"]["automountServiceAccountToken"] != json!(false);
            let makes = ["\"hive-gateway\"", "\"hive-gateway-clean\"", "\"chaperone-test-preflight\""]
                .iter()
                .any(|name| about.ends_with(name))
                && object["kind"] != "ConfigMap"
                && !["plain.yaml", "several.yaml"].iter().any(|set| about.starts_with(set));
            assert_eq!(calls, makes, "{about}");
        }
    });
}

/// What the level `restricted` of Pod Security would say of a Pod.
fn findings(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: String| found.extend((!holds).then_some(what));
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        must(spec[shared] != json!(true), shared.into());
    }
    must(spec["securityContext"]["runAsNonRoot"] == json!(true), "runAsNonRoot".into());
    must(spec["securityContext"]["runAsUser"].as_i64() > Some(0), "runAsUser".into());
    must(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile".into());
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let allowed = ["configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret"];
        let kinds = volume.as_object().expect("a volume").keys().filter(|key| *key != "name");
        must(kinds.clone().count() == 1 && kinds.clone().all(|k| allowed.contains(&k.as_str())), volume.to_string());
    }
    for container in
        ["initContainers", "containers"].iter().flat_map(|kind| spec[kind].as_array().into_iter().flatten())
    {
        let context = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        });
        must(
            container["securityContext"] == context,
            format!("{}: {}", container["name"], container["securityContext"]),
        );
        let resources = &container["resources"];
        let bounded = !resources["limits"]["memory"].is_null() && !resources["requests"]["cpu"].is_null();
        must(bounded, format!("{}: resources, which a quota asks for", container["name"]));
        let host = container["ports"].as_array().into_iter().flatten().any(|port| !port["hostPort"].is_null());
        must(!host, format!("{}: hostPort", container["name"]));
    }
    found
}

/// One definition, so what is proved of one holds for the other; they differ in who they are and in how they are told.
#[test]
fn a_sandbox_on_request_is_the_shared_one_but_for_who_it_is() {
    if !chart::has_helm() {
        return;
    }
    let mut values = chart::read("ci/rich.yaml");
    for key in ["port", "settings", "topologySpreadConstraints"] {
        values["sandboxes"].as_object_mut().expect("a map").remove(key);
    }
    values["sandbox"].as_object_mut().expect("a map").remove("settings");
    let objects = chart::objects(&values);
    let of = |kind: &str, name: &str| {
        let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        chart::pods(objects.iter().find(is).expect("it is rendered")).remove(0)
    };
    let (mut shared, mut made) = (of("Deployment", "hive-sandbox"), of("ConfigMap", "hive-sandboxes"));
    assert_eq!((made["apiVersion"].take(), made["kind"].take()), (json!("v1"), json!("Pod")));
    assert_eq!(made["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "sandbox");
    for key in ["name", "namespace"] {
        assert_eq!(made["metadata"][key], Value::Null, "the gateway's to choose");
    }
    assert_eq!(made["spec"]["restartPolicy"].take(), "Never");
    // A kubelet looks once a second, and a start-up probe costs one of its looks.
    let probe = shared["spec"]["containers"][0].as_object_mut().expect("a container").remove("startupProbe");
    assert!(probe.is_some() && made["spec"]["containers"][0]["startupProbe"].is_null());
    let identity = |variable: &Value| {
        let name = variable["name"].as_str().unwrap_or_default();
        ["SUPERVISOR_AGENT_ID", "SUPERVISOR_CONTROLLER_ID"].contains(&name)
    };
    let has_identity =
        |pod: &Value| pod["spec"]["containers"][0]["env"].as_array().expect("a list").iter().any(identity);
    assert!(has_identity(&shared) && !has_identity(&made));
    for pod in [&mut shared, &mut made] {
        let spec = pod["spec"].as_object_mut().expect("a spec");
        spec.remove("restartPolicy");
        assert!(spec.remove("serviceAccountName").is_some());
        let volumes = spec["volumes"].as_array_mut().expect("a list");
        volumes.retain(|volume| volume["name"] != "gateway-token");
        spec["containers"][0]["env"].as_array_mut().expect("a list").retain(|variable| !identity(variable));
    }
    assert_eq!(shared["spec"], made["spec"]);
}

/// 001-11.
#[test]
fn with_auto_the_gateway_finds_out_for_what_it_makes_and_the_rest_is_copied_into() {
    if !chart::has_helm() {
        return;
    }
    let mut values = chart::read("ci/rich.yaml");
    let mut delivered = |delivery: &str| {
        chart::set(&mut values, "/supervisor/delivery", json!(delivery));
        let objects = chart::objects(&values);
        let of = |kind: &str, name: &str| {
            let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
            chart::pods(objects.iter().find(is).expect("it is rendered")).remove(0)
        };
        let by_image = |pod: &Value| pod["spec"]["volumes"].to_string().contains("\"image\":");
        let by_copy = |pod: &Value| pod["spec"]["initContainers"].to_string().contains("\"/supervisor\",\"install\"");
        let (shared, made) = (of("Deployment", "hive-sandbox"), of("ConfigMap", "hive-sandboxes"));
        let found_out = of("Deployment", "hive-gateway").to_string().contains("GATEWAY_KUBERNETES_DELIVERY");
        [by_image(&shared), by_copy(&shared), by_image(&made), by_copy(&made), found_out]
    };
    assert_eq!(delivered("image-volume"), [true, false, true, false, false]);
    assert_eq!(delivered("install"), [false, true, false, true, false]);
    assert_eq!(delivered("auto"), [false, true, true, false, true]);
}

/// 001-5: each knows where it is, the others may go there, and no drain and no upgrade takes all of them at once.
#[test]
fn several_gateways_reach_each_other_and_go_one_at_a_time() {
    if !chart::has_helm() {
        return;
    }
    let mut values = chart::read("ci/several.yaml");
    let of = |values: &Value, kind: &str| {
        let is = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == "hive-gateway";
        chart::objects(values).into_iter().find(is).unwrap_or_default()
    };
    let gateway = of(&values, "Deployment");
    assert_eq!(gateway["spec"].get("replicas"), None, "the autoscaler's to say");
    assert_eq!(gateway["spec"]["strategy"]["rollingUpdate"], json!({ "maxSurge": 1, "maxUnavailable": 0 }));
    let pod = &gateway["spec"]["template"];
    let spread = &pod["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"]["matchLabels"], gateway["spec"]["selector"]["matchLabels"]);
    let env = pod["spec"]["containers"][0]["env"].as_array().expect("a list");
    let names: Vec<&str> = env.iter().filter_map(|variable| variable["name"].as_str()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name);
    assert!(place("POD_IP") < place("GATEWAY_ADVERTISE_URL"), "what is named in a value stands before it: {names:?}");
    let value = |name: &str| env[place(name).expect("it is set")]["value"].clone();
    assert_eq!(value("GATEWAY_ADVERTISE_URL"), "https://$(POD_IP):8080");
    assert_eq!(value("GATEWAY_ADVERTISE_NAME"), "hive-gateway.openhive.svc.cluster.local");
    let scaler = of(&values, "HorizontalPodAutoscaler");
    assert_eq!((&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]), (&json!(2), &json!(5)));
    assert_eq!(of(&values, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let to = |values: &Value| {
        let labels = &gateway["spec"]["selector"]["matchLabels"];
        let egress = of(values, "NetworkPolicy")["spec"]["egress"].clone();
        egress
            .as_array()
            .expect("a list")
            .iter()
            .any(|rule| rule["to"][0]["podSelector"]["matchLabels"] == *labels && rule["ports"][0]["port"] == 8080)
    };
    assert!(to(&values), "its policy lets it reach the others");
    for (pointer, value) in [("/gateway/autoscaling/enabled", json!(false)), ("/gateway/tls", json!({}))] {
        chart::set(&mut values, pointer, value);
    }
    let gateway = of(&values, "Deployment");
    assert_eq!(gateway["spec"]["replicas"], 2);
    assert!(gateway.to_string().contains("http://$(POD_IP):8080"));
    chart::set(&mut values, "/gateway/replicas", json!(1));
    let alone = of(&values, "Deployment");
    assert_eq!(alone["spec"]["strategy"]["type"], "Recreate");
    assert!(!alone.to_string().contains("ADVERTISE") && !to(&values));
    assert_eq!(of(&values, "PodDisruptionBudget"), Value::Null);
}

/// 000-45, 002-7, 002-22, 002-27; RBAC adds up, so every rule of every role is in this list.
#[test]
fn what_the_gateway_may_do_is_this_and_in_these_namespaces_only() {
    if !chart::has_helm() {
        return;
    }
    assert_eq!(rights(&chart::read("ci/plain.yaml")), [""; 0], "nobody has a role");
    let made = [
        "hive-sandbox: pods: create get list watch delete",
        "hive-sandbox: pods/log: get",
        "hive-sandbox: services: create get list delete",
        "hive-sandbox: events: list",
    ];
    assert_eq!(rights(&chart::read("ci/sandboxes.yaml")), made);
    let watched = "hive-agents: pods: get list watch";
    let mut values = chart::read("ci/rich.yaml");
    assert_eq!(rights(&values), [&[watched], &made[..]].concat());
    chart::set(&mut values, "/sandboxes/enabled", json!(false));
    assert_eq!(rights(&values), [watched, "hive-sandbox: pods: get list watch"]);
    chart::set(&mut values, "/identity/check", json!("tokenreview"));
    let scoped = |object: &Value| object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster"));
    let scoped: Vec<Value> = chart::objects(&values).into_iter().filter(scoped).collect();
    assert_eq!(scoped.len(), 1);
    assert_eq!(scoped[0]["roleRef"]["name"], "system:auth-delegator");
    assert_eq!(
        scoped[0]["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "hive-gateway", "namespace": "openhive" }])
    );
}

/// Each rule as a sentence; every role of that name is bound to the gateway's account and to nobody else.
fn rights(values: &Value) -> Vec<String> {
    let objects = chart::objects(values);
    let named = |o: &&Value| o["metadata"]["name"] == "hive-gateway";
    let of = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).filter(named).cloned().collect::<Vec<_>>();
    let (roles, bindings) = (of("Role"), of("RoleBinding"));
    assert_eq!(roles.len(), bindings.len());
    for (role, binding) in roles.iter().zip(&bindings) {
        assert_eq!(role["metadata"]["namespace"], binding["metadata"]["namespace"]);
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        let account = json!([{ "kind": "ServiceAccount", "name": "hive-gateway", "namespace": "openhive" }]);
        assert_eq!(binding["subjects"], account);
    }
    let sentences = |role: &Value| {
        let namespace = role["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        let rules = role["rules"].as_array().expect("a list").iter();
        rules.map(|rule| format!("{namespace}: {}", sentence(rule))).collect::<Vec<_>>()
    };
    roles.iter().flat_map(sentences).collect()
}

fn sentence(rule: &Value) -> String {
    assert_eq!(rule["apiGroups"], json!([""]));
    let words = |key: &str| {
        let list = rule[key].as_array().expect("a list").iter().filter_map(Value::as_str);
        list.collect::<Vec<_>>().join(" ")
    };
    format!("{}: {}", words("resources"), words("verbs"))
}

/// It outlives the release, so it brings all that it needs, ends only what is named to it, and goes itself.
#[test]
fn what_ends_the_sandboxes_after_an_uninstall_is_a_hook_with_a_role_of_its_own() {
    if !chart::has_helm() {
        return;
    }
    let mut values = chart::read("ci/rich.yaml");
    let cleaning = |values: &Value| {
        let of = |object: &Value| object["metadata"]["name"] == "hive-gateway-clean";
        chart::objects(values).into_iter().filter(of).collect::<Vec<_>>()
    };
    let objects = cleaning(&values);
    assert_eq!(objects.len(), 5, "{objects:#?}");
    for object in &objects {
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "post-delete");
        assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
    }
    let role = objects.iter().find(|object| object["kind"] == "Role").expect("a role");
    let rules: Vec<String> = role["rules"].as_array().expect("a list").iter().map(sentence).collect();
    assert_eq!(rules, ["pods: get list watch delete", "services: get list delete"]);
    let others = chart::objects(&values);
    let find = |kind: &str, name: &str| {
        let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        others.iter().find(is).cloned().unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    assert_eq!(find("ConfigMap", "hive-gateway-clean")["data"], find("ConfigMap", "hive-sandboxes")["data"]);
    let id = |pod: &Value| {
        let env = pod["spec"]["containers"][0]["env"].as_array().expect("a list").clone();
        env.into_iter().find(|variable| variable["name"] == "GATEWAY_KUBERNETES_CONTROLLER_ID").expect("an id")
    };
    let [clean, serve] = [("Job", "hive-gateway-clean"), ("Deployment", "hive-gateway")]
        .map(|(kind, name)| id(&chart::pods(&find(kind, name))[0]));
    assert_eq!(clean, serve);
    chart::set(&mut values, "/sandboxes/keep", json!(true));
    assert_eq!(cleaning(&values), [Value::Null; 0]);
}

/// 000-85: only the store; 000-86: it can come again; 000-88: and does not try for ever.
#[test]
fn the_migration_job_reads_one_variable_and_needs_nothing_of_the_release() {
    if !chart::has_helm() {
        return;
    }
    let mut values = chart::read("ci/rich.yaml");
    let job = |values: &Value| {
        let named = |object: &Value| object["kind"] == "Job" && object["metadata"]["name"] == "openhive-db-migrate";
        chart::objects(values).into_iter().find(named)
    };
    let hook = job(&values).expect("a Job");
    let annotations = &hook["metadata"]["annotations"];
    assert_eq!(annotations["helm.sh/hook"], "pre-install,pre-upgrade");
    assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation");
    let spec = &hook["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], Value::Null, "the release's accounts are not there yet");
    let container = &spec["containers"][0];
    assert_eq!(container["args"], json!(["migrate", "up"]));
    let source = json!({ "secretKeyRef": { "name": "openhive-platform-secrets", "key": "database-url" } });
    assert_eq!(container["env"], json!([{ "name": "DATABASE_URL", "valueFrom": source }]));
    assert!(hook["spec"]["backoffLimit"].is_number() && hook["spec"]["activeDeadlineSeconds"].is_number());
    chart::set(&mut values, "/migrations/mode", json!("manifest"));
    let manifest = job(&values).expect("a Job");
    assert_eq!(manifest["metadata"]["annotations"]["helm.sh/hook"], Value::Null);
    assert_eq!(manifest["spec"], hook["spec"]);
    chart::set(&mut values, "/migrations/mode", json!("none"));
    assert!(job(&values).is_none());
}
