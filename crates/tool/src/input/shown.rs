//! Bytes of a file in a message.

/// The most characters shown.
const SHOWN: usize = 60;

/// The bytes in quotes, cut short, with escapes for all that is not printable text.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    let mut letters = 0;
    for chunk in bytes.trim_ascii().utf8_chunks() {
        let escaped = chunk.valid().chars().map(|letter| letter.escape_debug().to_string());
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        for letter in escaped.chain(invalid) {
            letters += letter.chars().count();
            if letters > SHOWN {
                return text + "…\"";
            }
            text += &letter;
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn nothing_reaches_the_terminal_as_it_is() {
        assert_eq!(shown(b" 1: mall\r"), r#""1: mall""#);
        assert_eq!(shown(b"PK\x03\x04\x1b[2J\xff\"\xe2\x80\xae"), r#""PK\u{3}\u{4}\u{1b}[2J\xff\"\u{202e}""#);
        assert_eq!(shown("ü".repeat(100).as_bytes()), format!("\"{}…\"", "ü".repeat(60)));
        assert_eq!(shown(&[0; 1000]).len(), "\"\"".len() + 20 * r"\0".len() + 10 * r"\0".len() + "…".len());
    }
}
