//! From text to values: durations, addresses, ids, limits. An error says what was wrong and shows a right one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::policy::{Limit, Resource};
use protocol::setting::{LONGEST_MILLIS, millis};

/// `250ms`, `25s`, `5m`, `2h`, at most a hundred years.
pub fn duration(text: &str) -> Result<Duration, String> {
    millis(text)?
        .filter(|millis| *millis <= LONGEST_MILLIS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// `512`, `64KiB`, `1GiB`: bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("`{text}` is not a size; write for instance 64MiB");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("`{unit}` is not a unit of size; use KiB, MiB or GiB")),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0 && *bytes <= 1 << 50).ok_or_else(wrong)
}

/// A duration longer than nothing.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".into()),
        longer => Ok(longer),
    }
}

/// `[::]:8091`, `127.0.0.1:8091` or `:8091`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_string() };
    full.parse().map_err(|_| format!("`{text}` is not an address; write for instance [::]:8091 or 127.0.0.1:8091"))
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// Any text.
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.to_string())
}

/// An absolute path.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{text}` is not absolute; write it from / on")) }
}

/// A path that may be relative to where the supervisor was started.
pub fn any_path(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|e| format!("`{text}` is not a path: {e}"))
}

/// An octal file mode mask.
pub fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|m| *m <= 0o777)
        .ok_or_else(|| format!("`{text}` is not an octal mask from 0000 to 0777"))
}

/// A whole number within bounds.
pub fn number(low: i64, high: i64) -> impl Fn(&str) -> Result<i64, String> {
    move |text| {
        text.parse::<i64>()
            .ok()
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| format!("`{text}` is not a whole number from {low} to {high}"))
    }
}

/// A TCP port.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
}

/// `UID` or `UID:GID`; numbers only, since a static binary cannot ask the name service.
pub fn user(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => Ok((uid, gid)),
        _ => Err(format!("`{text}` is not UID or UID:GID; write numbers, for instance 10001:10001")),
    }
}

/// `NAME=VALUE`, the name without `=` and NUL.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => Ok((key.into(), value.into())),
        _ => Err(format!("`{}` is not KEY=VALUE", text.split('=').next().unwrap_or_default())),
    }
}

/// `nofile=1024` or `nofile=1024:4096`; `unlimited` for none.
pub fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || format!("`{text}` is not NAME=SOFT[:HARD]; write for instance nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let resource = match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "as" => Resource::As,
        "stack" => Resource::Stack,
        "memlock" => Resource::Memlock,
        _ => {
            return Err(format!(
                "`{name}` is no limit; use core, cpu, data, fsize, nofile, nproc, as, stack or memlock"
            ));
        }
    };
    let value = |v: &str| if v == "unlimited" { Ok(u64::MAX) } else { v.parse::<u64>().map_err(|_| wrong()) };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(format!("`{text}` has a soft limit above the hard one"));
    }
    Ok(Limit { resource, soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("25").unwrap_err().contains("25s"));
        assert!(duration("25sec").unwrap_err().contains("`sec`"));
        assert!(duration("-1s").is_err());
        assert!(duration("18446744073709551615h").unwrap_err().contains("too long"));
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn a_bare_port_listens_on_every_address() {
        assert_eq!(address(":80"), address("[::]:80"));
        assert!(address("localhost:80").is_err(), "names would need a resolver");
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        assert!(limit("nofile=10:5").is_err());
        assert_eq!(limit("nofile=5").map(|l| (l.soft, l.hard)), Ok((5, 5)));
        assert_eq!(limit("core=0:unlimited").map(|l| l.hard), Ok(u64::MAX));
    }

    #[test]
    fn an_assignment_never_repeats_the_value_in_its_error() {
        let error = assignment("=secret").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
