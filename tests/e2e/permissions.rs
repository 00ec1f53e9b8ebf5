//! The agent and an editor of another uid share files by fsGroup and umask, without root (003-16).

use k8s_openapi::api::core::v1::{Container, SecurityContext};

use crate::cluster::{Level, in_namespace};
use crate::sandbox::{Sandbox, container_security, pull_policy, sandbox_image};
use crate::volume::mount;

#[test]
fn another_container_of_the_same_fsgroup_can_edit_the_agents_files_and_back() {
    let script = "
        umask > /workspace/umask; mkdir /workspace/dir; echo agent > /workspace/dir/file; echo written;
        until test -e /workspace/dir/by-editor; do sleep 0.1; done; grep -q editor /workspace/dir/file &&
        echo agent-again >> /workspace/dir/by-editor && echo shared; exec sleep infinity";
    in_namespace(Level::Restricted, async |scene| {
        let editor = Container {
            name: "editor".to_owned(),
            image: Some(sandbox_image()),
            image_pull_policy: pull_policy(&sandbox_image()),
            command: Some(["sleep", "infinity"].map(str::to_owned).into()),
            volume_mounts: Some(vec![mount("workspace", "/workspace")]),
            security_context: Some(SecurityContext {
                run_as_user: Some(10002),
                run_as_group: Some(10002),
                ..container_security(scene.level)
            }),
            ..Container::default()
        };
        let pod = Sandbox::shell(script)
            .change(move |spec| {
                spec.security_context.get_or_insert_default().fs_group = Some(20000);
                spec.containers.push(editor);
            })
            .start(scene)
            .await;
        pod.says("written").await;
        let edit = "umask 002; echo editor >> /workspace/dir/file && echo new > /workspace/dir/by-editor.tmp \
                    && mv /workspace/dir/by-editor.tmp /workspace/dir/by-editor && stat -c '%a %u %g' /workspace/dir/file";
        let answer = pod.exec_in("editor", &["bash", "-c", edit]).await;
        assert_eq!((answer.code, answer.stdout.trim()), (0, "664 10001 20000"), "{answer:?}");
        pod.says("shared").await;
        assert_eq!(pod.shell("cat /workspace/umask").await.trim(), "0002");
    });
}
