//! The scene of an escape: what lies where in a stage's container, known to the stage, the probes and the tests.

/// The binaries of the image volume, read-only.
pub const PROGRAMS: &str = "/opt/chaperone";
/// The probe, as a program of the sandbox image.
pub const PROBE: &str = "/opt/probe/probe";
/// The same, owned by root and set-user-id.
pub const SETUID_PROBE: &str = "/opt/probe/setuid-probe";
/// The same, with `CAP_KILL` among its file capabilities.
pub const CAPABLE_PROBE: &str = "/opt/probe/capable-probe";
/// The supervisor's API token.
pub const TOKEN: &str = "/etc/chaperone/token";
/// The supervisor's state directory.
pub const STATE: &str = "/var/lib/supervisor";
/// A file of it that was there before the supervisor started.
pub const STATE_FILE: &str = "/var/lib/supervisor/canary";
/// A program in it, of the supervisor's uid.
pub const STATE_PROGRAM: &str = "/var/lib/supervisor/program";
/// The agent's workspace.
pub const WORKSPACE: &str = "/workspace";
/// A file of it that was there before the agent.
pub const WORKSPACE_FILE: &str = "/workspace/file";
/// A directory that anybody may write by its mode, outside the workspace.
pub const OUTSIDE: &str = "/srv/outside";
/// A readable file in it.
pub const OUTSIDE_FILE: &str = "/srv/outside/file";
/// A directory in it.
pub const OUTSIDE_DIRECTORY: &str = "/srv/outside/directory";
/// Where a node can be made on a memory file system outside the workspace.
pub const OUTSIDE_NODE: &str = "/opt/outside/node";
/// A device that everybody may read, not in `/dev`.
pub const DEVICE: &str = "/opt/outside/zero";
/// Where the kubelet reads the termination message.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Where Kubernetes mounts the service account's token.
pub const SECRET: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// A disk's device node, made by the stage.
pub const DISK: &str = "/dev/scene-disk";
/// The supervisor's port.
pub const PORT: u16 = 8091;
/// Abstract socket of a process that is not of the agent's tree.
pub const ABSTRACT: &[u8] = b"chaperone-outsider";
/// What every secret contains.
pub const CANARY: &str = "CANARY-5f2b8c";
/// Environment variable of the supervisor that holds a secret.
pub const SECRET_VARIABLE: &str = "SUPERVISOR_INTERNAL_SECRET";
/// First argument of the process that is not of the agent's tree, as in `kubectl exec`.
pub const OUTSIDER: &str = "outsider";

/// The uid of the supervisor in a `restricted` Pod.
pub const RESTRICTED_UID: u32 = 10001;
/// The agent's uid in a `baseline` Pod.
pub const AGENT_UID: u32 = 20001;
