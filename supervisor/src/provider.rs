//! The model provider's `~/.codex/config.toml`, written once from settings (000-66, 000-67).
//!
//! Whatever already has that name stays: after the first start the file is the user's. It holds no secret, only the
//! name of the variable that does.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fsync;

use crate::bootstrap::directory::{self, Missing};
use crate::bootstrap::place::{self, PlaceError, Placed};
use crate::config::{Reader, parse};

const DIRECTORY: &str = ".codex";
const FILE: &str = "config.toml";

/// The settings, each as it was given; an empty string counts as not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    /// Model to use.
    pub model: Option<String>,
    /// Key of the provider's table; alone, it chooses one that the agent has built in.
    pub id: Option<String>,
    /// Name for people; the id where it is missing.
    pub name: Option<String>,
    /// Where the provider answers.
    pub base_url: Option<String>,
    /// Dialect: `responses` or `chat`.
    pub wire_api: Option<String>,
    /// The environment variable that holds the key.
    pub env_key: Option<String>,
    /// Whether the agent must log in instead.
    pub requires_openai_auth: Option<bool>,
    /// The agent's own inner sandbox; in a Pod that is the boundary itself `danger-full-access` (000-65).
    pub sandbox_mode: Option<String>,
}

impl Provider {
    /// From the settings `provider_*`.
    pub fn read(reader: &mut Reader<'_>) -> Provider {
        Provider {
            model: reader.optional("provider_model", parse::text),
            id: reader.optional("provider_id", parse::text),
            name: reader.optional("provider_name", parse::text),
            base_url: reader.optional("provider_base_url", parse::text),
            wire_api: reader.optional("provider_wire_api", parse::text),
            env_key: reader.optional("provider_env_key", parse::text),
            requires_openai_auth: reader.optional("provider_requires_openai_auth", parse::boolean),
            sandbox_mode: reader.optional("provider_sandbox_mode", sandbox_mode),
        }
    }

    /// Whether any of it was given.
    pub fn is_configured(&self) -> bool {
        !self.variables().is_empty()
    }

    /// The same settings as variables, for the worker that writes the file.
    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        let auth = self.requires_openai_auth.map(|needs| needs.to_string());
        [
            ("MODEL", &self.model),
            ("ID", &self.id),
            ("NAME", &self.name),
            ("BASE_URL", &self.base_url),
            ("WIRE_API", &self.wire_api),
            ("ENV_KEY", &self.env_key),
            ("REQUIRES_OPENAI_AUTH", &auth),
            ("SANDBOX_MODE", &self.sandbox_mode),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((format!("SUPERVISOR_PROVIDER_{name}").into(), value.clone()?.into())))
        .collect()
    }
}

fn sandbox_mode(text: &str) -> Result<String, String> {
    match text {
        "read-only" | "workspace-write" | "danger-full-access" => Ok(text.into()),
        _ => Err(format!("`{text}` is none of read-only, workspace-write, danger-full-access")),
    }
}

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was missing and is there now.
    Written(PathBuf),
    /// Something has its name already.
    Kept(PathBuf),
    /// No setting was given.
    NotConfigured,
}

/// What stopped it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProviderError {
    #[error("a provider needs an id: set PROVIDER_ID along with its other settings")]
    NoId,
    #[error("provider setting {setting} {problem}")]
    Bad { setting: &'static str, problem: &'static str },
    #[error("{path} cannot be made; HOME must be a directory on a writable volume, without symbolic links")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: io::Error },
}

/// Writes the file beneath `home` unless something has its name.
pub fn write_once(home: &Path, provider: &Provider) -> Result<Outcome, ProviderError> {
    let Some(text) = render(provider)? else { return Ok(Outcome::NotConfigured) };
    let path = home.join(DIRECTORY).join(FILE);
    let dir = own_directory(home)?;
    let placed = place::place(&dir, FILE.as_ref(), &mut text.as_bytes(), 0o600).map_err(|error| match error {
        PlaceError::Read(source) | PlaceError::Write(source) => ProviderError::Write { path: path.clone(), source },
    })?;
    if placed == Placed::WasThere {
        return Ok(Outcome::Kept(path));
    }
    fsync(&dir).map_err(|errno| ProviderError::Write { path: path.clone(), source: errno.into() })?;
    Ok(Outcome::Written(path))
}

/// `~/.codex`, made where it is missing. A link in its place is the agent's doing or the user's; it is not followed.
fn own_directory(home: &Path) -> Result<OwnedFd, ProviderError> {
    let path = home.join(DIRECTORY);
    let failed = |errno: Errno| ProviderError::Directory { path: path.clone(), source: errno.into() };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let home = directory::open(home, Missing::Refuse)
        .map_err(|source| ProviderError::Directory { path: path.clone(), source })?;
    match mkdirat(&home, DIRECTORY, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let dir = openat(&home, DIRECTORY, flags, Mode::empty()).map_err(failed)?;
    place::remove_leftovers(&dir);
    Ok(dir)
}

/// The file's text, `None` where there is nothing to say.
fn render(provider: &Provider) -> Result<Option<String>, ProviderError> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let table = [
        ("base_url", given(&provider.base_url)),
        ("wire_api", given(&provider.wire_api)),
        ("env_key", given(&provider.env_key)),
    ];
    let (model, id, name) = (given(&provider.model), given(&provider.id), given(&provider.name));
    let has_table =
        name.is_some() || provider.requires_openai_auth.is_some() || table.iter().any(|(_, value)| value.is_some());
    check(&table)?;
    let sandbox_mode = given(&provider.sandbox_mode);
    if model.is_none() && id.is_none() && !has_table && sandbox_mode.is_none() {
        return Ok(None);
    }
    let mut text = String::new();
    if let Some(mode) = sandbox_mode {
        text += &format!("sandbox_mode = {}\n", quoted(&mode));
    }
    if let Some(model) = model {
        text += &format!("model = {}\n", quoted(&model));
    }
    let Some(id) = id else { return if has_table { Err(ProviderError::NoId) } else { Ok(Some(text)) } };
    text += &format!("model_provider = {}\n", quoted(&id));
    if has_table {
        text += &format!("\n[model_providers.{}]\nname = {}\n", key(&id), quoted(&name.unwrap_or_else(|| id.clone())));
        for (key, value) in table.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            text += &format!("{key} = {}\n", quoted(&value));
        }
        if let Some(required) = provider.requires_openai_auth {
            text += &format!("requires_openai_auth = {required}\n");
        }
    }
    Ok(Some(text))
}

/// No message repeats a value: a key that was pasted into the wrong setting must not reach a log.
fn check(table: &[(&'static str, Option<String>); 3]) -> Result<(), ProviderError> {
    let [(_, base_url), (_, wire_api), (_, env_key)] = table;
    let bad = |setting, problem| Err(ProviderError::Bad { setting, problem });
    if let Some(url) = base_url {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return bad("BASE_URL", "must begin with https:// or http:// and name a host");
        };
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return bad("BASE_URL", "must not hold a user or password; name a variable in ENV_KEY");
        }
    }
    if wire_api.as_deref().is_some_and(|api| !matches!(api, "responses" | "chat")) {
        return bad("WIRE_API", "must be responses or chat");
    }
    let is_name = |key: &str| {
        key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !key.as_bytes()[0].is_ascii_digit()
    };
    if env_key.as_deref().is_some_and(|key| !is_name(key)) {
        return bad("ENV_KEY", "must be the name of an environment variable, not a key");
    }
    Ok(())
}

/// Bare where TOML allows it.
fn key(id: &str) -> String {
    let bare = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if bare { id.to_owned() } else { quoted(id) }
}

/// A basic string (TOML 1.0, "String"): quotation mark, backslash and control characters are escaped.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            control if control.is_control() => out += &format!("\\u{:04X}", u32::from(control)),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn all() -> Provider {
        let some = |text: &str| Some(text.to_owned());
        Provider {
            model: some("gpt-x"),
            id: some("mock"),
            name: some("Mock \"one\""),
            base_url: some("http://127.0.0.1:9/v1"),
            wire_api: some("responses"),
            env_key: some("OPENAI_API_KEY"),
            requires_openai_auth: Some(false),
            sandbox_mode: some("danger-full-access"),
        }
    }

    #[test]
    fn the_file_says_what_was_set_and_nothing_else() {
        let home = tempfile::tempdir().expect("scratch");
        let outcome = write_once(home.path(), &all()).expect("written");
        let path = home.path().join(".codex/config.toml");
        assert_eq!(outcome, Outcome::Written(path.clone()));
        let expected = "sandbox_mode = \"danger-full-access\"\nmodel = \"gpt-x\"\nmodel_provider = \"mock\"\n\n[model_providers.mock]\n\
                        name = \"Mock \\\"one\\\"\"\nbase_url = \"http://127.0.0.1:9/v1\"\nwire_api = \"responses\"\n\
                        env_key = \"OPENAI_API_KEY\"\nrequires_openai_auth = false\n";
        assert_eq!(std::fs::read_to_string(&path).expect("there"), expected);
        let modes = [&path, &home.path().join(".codex")].map(|path| path.metadata().expect("there").mode() & 0o7777);
        assert_eq!(modes, [0o600, 0o700]);
        assert_eq!(std::fs::read_dir(home.path().join(".codex")).expect("lists").count(), 1);
    }

    #[test]
    fn what_is_there_stays_even_a_dangling_link() {
        let home = tempfile::tempdir().expect("scratch");
        let path = home.path().join(".codex/config.toml");
        write_once(home.path(), &all()).expect("written");
        std::fs::write(&path, "edited").expect("written");
        assert_eq!(write_once(home.path(), &all()).expect("kept"), Outcome::Kept(path.clone()));
        assert_eq!(std::fs::read(&path).expect("there"), b"edited");
        std::fs::remove_file(&path).expect("ours");
        std::os::unix::fs::symlink(home.path().join("elsewhere"), &path).expect("link");
        assert!(matches!(write_once(home.path(), &all()), Ok(Outcome::Kept(_))));
        assert!(!home.path().join("elsewhere").exists());
    }

    #[test]
    fn a_link_in_the_directory_s_place_is_not_followed() {
        let home = tempfile::tempdir().expect("scratch");
        let outside = tempfile::tempdir().expect("scratch");
        std::os::unix::fs::symlink(outside.path(), home.path().join(".codex")).expect("link");
        assert!(matches!(write_once(home.path(), &all()), Err(ProviderError::Directory { .. })));
        assert_eq!(std::fs::read_dir(outside.path()).expect("lists").count(), 0);
    }

    #[test]
    fn a_link_in_a_parent_of_home_is_not_followed() {
        let (volume, outside) = (tempfile::tempdir().expect("scratch"), tempfile::tempdir().expect("scratch"));
        std::fs::create_dir(outside.path().join("home")).expect("made");
        std::os::unix::fs::symlink(outside.path(), volume.path().join("a")).expect("link");
        let written = write_once(&volume.path().join("a/home"), &all());
        assert!(matches!(written, Err(ProviderError::Directory { .. })));
        assert_eq!(std::fs::read_dir(outside.path().join("home")).expect("lists").count(), 0);
    }

    #[test]
    fn nothing_set_makes_nothing() {
        let home = tempfile::tempdir().expect("scratch");
        let empty = Provider { model: Some(String::new()), ..Provider::default() };
        for provider in [Provider::default(), empty] {
            assert_eq!(write_once(home.path(), &provider).expect("fine"), Outcome::NotConfigured);
        }
        assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 0);
    }

    #[test]
    fn a_model_or_a_built_in_provider_alone_needs_no_table() {
        let model = Provider { model: Some("m".into()), ..Provider::default() };
        assert_eq!(render(&model).expect("fine").as_deref(), Some("model = \"m\"\n"));
        let id = Provider { id: Some("openai".into()), ..Provider::default() };
        assert_eq!(render(&id).expect("fine").as_deref(), Some("model_provider = \"openai\"\n"));
    }

    #[test]
    fn a_mistake_is_named_by_its_setting_and_never_repeated() {
        assert!(matches!(render(&Provider { id: None, ..all() }), Err(ProviderError::NoId)));
        let bad = |provider: Provider, setting: &str| {
            let error = render(&provider).expect_err("a mistake").to_string();
            assert!(error.contains(setting) && !error.contains("sk-"), "{error}");
        };
        for url in ["sk-1", "https://", "https://me:sk-1@host/v1", "file:///x"] {
            bad(Provider { base_url: Some(url.into()), ..all() }, "BASE_URL");
        }
        bad(Provider { wire_api: Some("sk-1".into()), ..all() }, "WIRE_API");
        for key in ["sk-1", "1A", "A B"] {
            bad(Provider { env_key: Some(key.into()), ..all() }, "ENV_KEY");
        }
    }

    #[test]
    fn a_home_that_cannot_be_used_is_named() {
        let error = write_once(Path::new("/proc/no-such"), &all()).expect_err("missing");
        assert!(error.to_string().contains("/proc/no-such/.codex"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_toml_as_it_went_in(model in "(\\PC|[\\x00-\\x1f\\x7f\"\\\\]){1,40}", id in "(\\PC|[. \"']){1,20}") {
            let text = render(&Provider { model: Some(model.clone()), id: Some(id.clone()), ..all() });
            let text = text.expect("any text is allowed").expect("something is set");
            let table: toml::Table = text.parse().expect("valid TOML");
            prop_assert_eq!(table["model"].as_str(), Some(model.as_str()));
            prop_assert_eq!(table["model_provider"].as_str(), Some(id.as_str()));
            prop_assert_eq!(table["model_providers"][id.as_str()]["env_key"].as_str(), Some("OPENAI_API_KEY"));
        }
    }
}
