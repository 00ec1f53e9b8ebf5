//! `%XX` of URLs (RFC 3986): paths, queries, and names and passwords before a host.

use std::collections::BTreeMap;

/// The bytes that `text` stands for; `None` where a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next()?)? * 16 + hex(rest.next()?)? } else { byte });
    }
    Some(bytes)
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// A `%` that is not `%XX`.
    Escape,
    /// What `%XX` stands for is not UTF-8.
    Text,
    /// This parameter is given twice.
    Twice(String),
}

/// The parameters of a query as forms write it (HTML; curl and browsers send it): `+` is a blank, a parameter without `=` is
/// empty.
pub fn parameters(query: &str) -> Result<BTreeMap<String, String>, QueryError> {
    let text = |text: &str| {
        let bytes = decode(&text.replace('+', " ")).ok_or(QueryError::Escape)?;
        String::from_utf8(bytes).map_err(|_| QueryError::Text)
    };
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (text(name)?, text(value)?);
        if parameters.contains_key(&name) {
            return Err(QueryError::Twice(name));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_escape_stays_and_half_an_escape_is_refused() {
        assert_eq!(decode("a%2Fb%20%c3%B6+"), Some("a/b ö+".into()));
        for bad in ["%", "%4", "%4g", "%%41", "a%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_parameter_stands_once_in_a_query() {
        let expected = [("a b", "1=2"), ("c", ""), ("d+", "ö")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(parameters("a+b=1=2&&c&d%2b=%C3%B6"), Ok(expected.into()));
        assert_eq!(parameters(""), Ok(BTreeMap::new()));
        assert_eq!(parameters("a=1&%61=2"), Err(QueryError::Twice("a".into())));
        assert_eq!(parameters("a=%f"), Err(QueryError::Escape));
        assert_eq!(parameters("%ff=1"), Err(QueryError::Text));
    }
}
