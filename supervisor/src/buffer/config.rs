//! The operator's bounds for the buffer.

use super::Limits;
use crate::config::{Reader, parse};

/// From the settings `buffer_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How much it may hold.
    pub limits: Limits,
    /// A lifecycle record or a result is on the disk before its sequence is answered.
    pub sync_always: bool,
}

impl Config {
    /// Read, and say what does not fit together.
    pub fn read(reader: &mut Reader<'_>) -> Config {
        let size = reader.value("buffer_size", parse::size);
        let reserve = reader.value("buffer_reserve", parse::size);
        if size < Limits::LEAST {
            reader.mistake(reader.origin("buffer_size"), "is less than 1MiB, which holds too little to be of use");
        } else if reserve > size / 2 {
            reader.mistake(reader.origin("buffer_reserve"), "is more than half of the buffer's size");
        }
        Config {
            limits: Limits { size, reserve },
            sync_always: reader.value("buffer_sync", |text| match text {
                "group" => Ok(false),
                "always" => Ok(true),
                _ => Err(format!("`{text}` is neither group nor always")),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn read(pairs: &[(&str, &str)]) -> (Config, Vec<String>) {
        let environment = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sources = Sources::gather(Default::default(), environment);
        let mut reader = Reader::new(&sources);
        let config = Config::read(&mut reader);
        (config, reader.finish().into_iter().map(|mistake| mistake.setting).collect())
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_named() {
        let usual = Limits { size: 64 * 1024 * 1024, reserve: 4 * 1024 * 1024 };
        assert_eq!(read(&[]), (Config { limits: usual, sync_always: false }, vec![]));
        assert_eq!(read(&[("SUPERVISOR_BUFFER_SIZE", "1KiB")]).1, ["SUPERVISOR_BUFFER_SIZE"]);
        assert_eq!(read(&[("SUPERVISOR_BUFFER_RESERVE", "40MiB")]).1, ["SUPERVISOR_BUFFER_RESERVE"]);
        assert_eq!(read(&[("SUPERVISOR_BUFFER_SYNC", "never")]).1, ["SUPERVISOR_BUFFER_SYNC"]);
    }
}
