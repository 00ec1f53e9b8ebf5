//! `%XX` of URLs (RFC 3986): paths, queries, and names and passwords before a host.

/// The bytes that `text` stands for; `None` where a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next()?)? * 16 + hex(rest.next()?)? } else { byte });
    }
    Some(bytes)
}

/// A name or value of a query as forms write it (HTML; curl and browsers send it): `+` is a blank.
pub fn decode_form(text: &str) -> Option<Vec<u8>> {
    decode(&text.replace('+', " "))
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
        assert_eq!(decode_form("a+b%2B"), Some(b"a b+".to_vec()));
        for bad in ["%", "%4", "%4g", "%%41", "a%+1"] {
            assert_eq!((decode(bad), decode_form(bad)), (None, None), "{bad}");
        }
    }
}
