//! Makes foreign bytes safe to print: whatever they are, the result is one line of visible characters.

use std::fmt::{self, Write};

/// Which characters delimit the place where escaped bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// None: quotation marks are harmless and left alone.
    Bare,
    /// Quotation marks, which are escaped inside.
    Quotes,
}

/// Bytes as text for people: visible characters as they are, the others as `\n`, `\u{1b}` and the like,
/// bytes that are not UTF-8 as `\xNN`.
pub(super) struct Escaped<'a>(pub(super) &'a [u8], pub(super) Delimiter);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Escaped(bytes, delimiter) = *self;
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if is_visible(character) || (character == '"' && delimiter == Delimiter::Bare) {
                    f.write_char(character)?;
                } else {
                    write!(f, "{}", character.escape_debug())?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Bytes as a JSON string, quotation marks included. What is not visible becomes `\uXXXX`, as RFC 8259,
/// section 7 allows for any character; bytes that are not UTF-8 become U+FFFD.
pub(super) struct JsonString<'a>(pub(super) &'a [u8]);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if is_visible(character) {
                    f.write_char(character)?;
                } else {
                    // "To escape an extended character that is not in the Basic Multilingual Plane, the
                    // character is represented as a 12-character sequence, encoding the UTF-16 surrogate pair."
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(f, "\\u{unit:04x}")?;
                    }
                }
            }
            if !chunk.invalid().is_empty() {
                f.write_str("\\ufffd")?;
            }
        }
        f.write_char('"')
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How many bytes at the end begin a character that does not end there.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    let invalid = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

/// Neither a quotation mark nor a backslash, and something to see. The standard library's own judgement of what
/// debug output must escape serves here: control and format characters (terminal escapes, bidirectional
/// overrides, zero-width characters), separators other than the space, combining marks, unassigned code points.
fn is_visible(character: char) -> bool {
    character == '\'' || character.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for (bytes, expected) in [
            (&b"plain 'text'"[..], "plain 'text'"),
            ("größe 価格 🦀".as_bytes(), "größe 価格 🦀"),
            (b"two\nlines\r\tand\0nul", "two\\nlines\\r\\tand\\0nul"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m\u{7f}".as_bytes(), "\\u{9b}31m\\u{7f}"),
            (
                "\u{202e}gpj\u{2028}\u{200b}\u{feff}".as_bytes(),
                "\\u{202e}gpj\\u{2028}\\u{200b}\\u{feff}",
            ),
            (b"\\n is not a newline", "\\\\n is not a newline"),
            (b"a\xffb\xe2\x82", "a\\xffb\\xe2\\x82"),
        ] {
            assert_eq!(Escaped(bytes, Delimiter::Quotes).to_string(), expected);
        }
        assert_eq!(Escaped(b"\"", Delimiter::Quotes).to_string(), "\\\"");
        assert_eq!(Escaped(b"\"", Delimiter::Bare).to_string(), "\"");
    }

    #[test]
    fn json_strings_are_escaped_as_utf_16() {
        for (bytes, expected) in [
            (&b"it's"[..], r#""it's""#),
            (b"\"\\\n\x1b", r#""\u0022\u005c\u000a\u001b""#),
            ("\u{e0001}é".as_bytes(), r#""\udb40\udc01é""#),
            (b"a\xff\xfeb", r#""a\ufffd\ufffdb""#),
        ] {
            assert_eq!(JsonString(bytes).to_string(), expected);
        }
    }

    #[test]
    fn unfinished_characters_are_found_at_the_end_only() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"abc", 0),
            ("é".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"a\xf0\x9f\xa6", 3),
            (b"\xe2\x82 then \xe2\x82", 2),
            (b"a\xff", 0),
            (b"\xe2\x82 then", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
