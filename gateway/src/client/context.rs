//! Which gateway a command speaks to: flags, then environment, then what `gateway dev` has left for this user.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use peer::Address;
use peer::address::AddressError;
use serde::{Deserialize, Serialize};

use crate::config::{Mistake, Reader, parse};

/// A gateway, and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Where it is.
    pub address: Address,
    /// Read anew for each request.
    pub token_file: PathBuf,
    /// Who signed its certificate; `None` for the machine's bundle.
    pub ca_file: Option<PathBuf>,
}

/// The file of a running `gateway dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its address.
    pub url: String,
    /// The user's token.
    pub token_file: PathBuf,
}

const MAX_FILE: u64 = 64 * 1024;

impl Context {
    /// From the settings `url`, `token_file`, `ca_file` and `plain`; what is not given is taken from the file `left`.
    pub fn read(mut reader: Reader, left: Option<&Path>) -> Result<Context, Vec<Mistake>> {
        let url = reader.optional("url", address);
        let token_file = reader.optional("token_file", parse::path);
        let ca_file = reader.optional("ca_file", parse::path);
        let plain = reader.value("plain", parse::one_of(&[("true", true), ("false", false)]));
        let mut mistakes = reader.finish();
        let mut mistake = |setting: &str, problem: String| mistakes.push(Mistake { setting: setting.into(), problem });
        let found = match (url, token_file) {
            (Some(address), Some(token_file)) => Some((address, token_file)),
            (Some(_), None) => {
                mistake("GATEWAY_TOKEN_FILE", "is needed beside GATEWAY_URL: the file with your token".into());
                None
            }
            (None, token_file) => match left.map(Left::read).transpose() {
                Ok(known) => match known.flatten() {
                    Some((left, address)) => Some((address, token_file.unwrap_or(left.token_file))),
                    None => {
                        let problem = "no gateway is known: start one here with `gateway dev`, or set GATEWAY_URL and \
                                       GATEWAY_TOKEN_FILE";
                        mistake("GATEWAY_URL", problem.into());
                        None
                    }
                },
                Err(problem) => {
                    mistake("GATEWAY_URL", problem);
                    None
                }
            },
        };
        if let Some((address, _)) = &found
            && !address.tls
            && !plain
            && !address.is_loopback()
        {
            let problem = "would send the token in the open; use https, or say GATEWAY_PLAIN=true where the network is \
                           trusted";
            mistake("GATEWAY_URL", problem.into());
        }
        match found {
            Some((address, token_file)) if mistakes.is_empty() => Ok(Context { address, token_file, ca_file }),
            _ => Err(mistakes),
        }
    }
}

impl Left {
    /// Where it is: below the state directory of this user. `None` without a home.
    pub fn usual_path() -> Option<PathBuf> {
        Some(state_home()?.join("chaperone/context.json"))
    }

    /// Write it for this user only, as a whole.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
        rename(beside, path)
    }

    /// Remove it where it is still this one.
    pub fn remove(&self, path: &Path) {
        if Left::read(path).is_ok_and(|found| found.is_some_and(|(left, _)| left == *self)) {
            // It is no more than a hint.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Nothing where there is no file.
    fn read(path: &Path) -> Result<Option<(Left, Address)>, String> {
        let wrong = |what: String| format!("{} {what}; remove it, or start `gateway dev`", path.display());
        let mut text = String::new();
        match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
            Ok(_) => {}
        }
        let left: Left = serde_json::from_str(&text).map_err(|_| wrong("is not what `gateway dev` writes".into()))?;
        let address = address(&left.url).map_err(|problem| wrong(format!("has a URL that {problem}")))?;
        Ok(Some((left, address)))
    }
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| match error {
        AddressError::Credentials => format!("{error}; use GATEWAY_TOKEN_FILE"),
        other => other.to_string(),
    })
}

/// `$XDG_STATE_HOME`, or what stands for it.
pub fn state_home() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)], left: Option<&Path>) -> Result<Context, String> {
        let reader = Reader::new(BTreeMap::new(), pairs.iter().map(|(k, v)| (k.into(), v.into())).collect());
        let told = |mistakes: Vec<Mistake>| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Context::read(reader, left).map_err(told)
    }

    #[test]
    fn what_gateway_dev_has_left_is_taken_where_nothing_is_set() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("made/context.json");
        assert!(read(&[], Some(&path)).expect_err("nothing is known").contains("gateway dev"));
        let left = Left { url: "http://127.0.0.1:8080".into(), token_file: "/x/token".into() };
        left.write(&path).expect("written");
        let context = read(&[], Some(&path)).expect("left");
        assert_eq!((context.address.port, context.token_file), (8080, PathBuf::from("/x/token")));
        let other = Left { url: "http://127.0.0.1:8081".into(), ..left.clone() };
        other.remove(&path);
        assert!(read(&[], Some(&path)).is_ok(), "somebody else's stays");
        left.remove(&path);
        assert!(read(&[], Some(&path)).is_err());
    }

    #[test]
    fn a_url_goes_before_what_was_left_and_needs_its_own_token() {
        assert!(read(&[("GATEWAY_URL", "https://g.example")], None).expect_err("no token").contains("TOKEN_FILE"));
        let given = [("GATEWAY_URL", "https://g.example"), ("GATEWAY_TOKEN_FILE", "/t")];
        assert_eq!(read(&given, None).expect("both").address.host, "g.example");
    }

    #[test]
    fn a_token_does_not_travel_in_the_open() {
        let given = [("GATEWAY_URL", "http://g.example"), ("GATEWAY_TOKEN_FILE", "/t")];
        assert!(read(&given, None).expect_err("in the open").contains("GATEWAY_PLAIN"));
        let given = [given[0], given[1], ("GATEWAY_PLAIN", "true")];
        assert!(read(&given, None).is_ok());
    }

    #[test]
    fn a_file_that_is_something_else_is_named() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("context.json");
        std::fs::write(&path, "{}").expect("our own file");
        assert!(read(&[], Some(&path)).expect_err("wrong").contains("context.json"));
    }
}
