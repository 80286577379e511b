//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 §9.1).
//!
//! Only the grammar: whether an extension was offered is checked by `response`, what its parameters
//! mean by the extension itself.
//!
//! RFC 6455 §4.3: "This section is using ABNF syntax/rules from Section 2.1 of [RFC2616], including
//! the "implied *LWS rule"." So white space may stand between any two elements.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use crate::protocol::http::is_token;

/// Most extensions in one header. Clients that offer variants of one extension send two or three.
pub const MAX_EXTENSIONS: usize = 16;
/// Most parameters of one extension. permessage-deflate has four.
pub const MAX_PARAMETERS: usize = 16;

/// One element of the list: `permessage-deflate; client_max_window_bits=10`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The extension's registered token.
    pub name: &'a str,
    /// Names and values in the order they came, not checked for duplicates. Values come without
    /// quotes and escapes and are tokens.
    pub params: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// Parses the value of a `Sec-WebSocket-Extensions` header. Empty list elements are skipped; at
/// least one extension comes back.
///
/// ```
/// use websockex::protocol::handshake::parse_extensions;
///
/// let list = parse_extensions("permessage-deflate; server_max_window_bits=\"10\", x-other")?;
/// assert_eq!(list[0].name, "permessage-deflate");
/// assert_eq!(list[0].params, [("server_max_window_bits", Some("10".into()))]);
/// assert_eq!(list[1].name, "x-other");
/// # Ok::<(), websockex::protocol::handshake::ExtensionError>(())
/// ```
///
/// # Errors
/// [`ExtensionError`] says where the value leaves the grammar or exceeds a limit.
pub fn parse_extensions(value: &str) -> Result<Vec<Extension<'_>>, ExtensionError> {
    let mut cursor = Cursor { rest: value };
    let mut list = Vec::new();
    loop {
        while cursor.take(',') {}
        if cursor.at_end() {
            // RFC 2616 §2.1: "where at least one element is required, at least one non-null element
            // MUST be present", and RFC 6455 §9.1 requires one.
            return if list.is_empty() {
                Err(ExtensionError::Empty)
            } else {
                Ok(list)
            };
        }
        if list.len() == MAX_EXTENSIONS {
            return Err(ExtensionError::TooManyExtensions);
        }
        list.push(parse_extension(&mut cursor)?);
        if !cursor.take(',') && !cursor.at_end() {
            return Err(ExtensionError::Separator);
        }
    }
}

/// RFC 6455 §9.1: extension = extension-token *( ";" extension-param )
fn parse_extension<'a>(cursor: &mut Cursor<'a>) -> Result<Extension<'a>, ExtensionError> {
    let name = cursor.token()?;
    let mut params = Vec::new();
    while cursor.take(';') {
        if params.len() == MAX_PARAMETERS {
            return Err(ExtensionError::TooManyParameters);
        }
        let parameter = cursor.token()?;
        let value = if cursor.take('=') {
            Some(cursor.value()?)
        } else {
            None
        };
        params.push((parameter, value));
    }
    Ok(Extension { name, params })
}

/// What is left of the value.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip_whitespace(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn at_end(&mut self) -> bool {
        self.skip_whitespace();
        self.rest.is_empty()
    }

    /// Takes the separator if it is next.
    fn take(&mut self, separator: char) -> bool {
        self.skip_whitespace();
        let behind = self.rest.strip_prefix(separator);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn token(&mut self) -> Result<&'a str, ExtensionError> {
        self.skip_whitespace();
        let end = self
            .rest
            .find([' ', '\t', ',', ';', '='])
            .unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        if is_token(token) {
            Ok(token)
        } else {
            Err(ExtensionError::NotToken)
        }
    }

    fn value(&mut self) -> Result<Cow<'a, str>, ExtensionError> {
        if !self.take('"') {
            return Ok(self.token()?.into());
        }
        let mut value = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[index + 1..];
                    // RFC 6455 §9.1: "When using the quoted-string syntax variant, the value after
                    // quoted-string unescaping MUST conform to the 'token' ABNF."
                    let token = is_token(&value);
                    return if token {
                        Ok(value.into())
                    } else {
                        Err(ExtensionError::NotToken)
                    };
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        Err(ExtensionError::UnterminatedQuote)
    }
}

/// Why a value is not a list of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtensionError {
    /// No extension at all.
    Empty,
    /// A name or a value is missing or holds characters that no token has.
    NotToken,
    /// Something other than a comma, a semicolon or the end behind an element.
    Separator,
    /// A quoted value without its closing quote.
    UnterminatedQuote,
    /// More than [`MAX_EXTENSIONS`] extensions.
    TooManyExtensions,
    /// More than [`MAX_PARAMETERS`] parameters of one extension.
    TooManyParameters,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it names no extension",
            Self::NotToken => "a name or a value is not a token",
            Self::Separator => "a comma or a semicolon is missing",
            Self::UnterminatedQuote => "a quoted value is not closed",
            Self::TooManyExtensions => return write!(f, "more than {MAX_EXTENSIONS} extensions"),
            Self::TooManyParameters => {
                return write!(f, "more than {MAX_PARAMETERS} parameters of one extension");
            }
        })
    }
}

impl Error for ExtensionError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a list without optional white space and quotes.
    fn canonical(list: &[Extension<'_>]) -> String {
        let mut elements = Vec::new();
        for extension in list {
            let mut element = extension.name.to_owned();
            for (name, value) in &extension.params {
                element.push_str(&format!(";{name}"));
                element.extend(value.iter().map(|value| format!("={value}")));
            }
            elements.push(element);
        }
        elements.join(",")
    }

    #[test]
    fn lists_that_follow_the_grammar() {
        let table = [
            ("foo", "foo"),
            // RFC 6455 §9.1 gives these three.
            ("foo, bar; baz=2", "foo,bar;baz=2"),
            ("deflate-stream", "deflate-stream"),
            (
                "mux; max-channels=4; flow-control, deflate-stream",
                "mux;max-channels=4;flow-control,deflate-stream",
            ),
            ("a;b,a;c", "a;b,a;c"),
            (",a,\t,b ,", "a,b"),
            ("a ; b = 1 ;c\t=\t2", "a;b=1;c=2"),
            (r#"a;b="10";c="\1\0""#, "a;b=10;c=10"),
            (r#"a;b="1",c"#, "a;b=1,c"),
            ("a;b;b=1", "a;b;b=1"),
        ];
        for (value, expected) in table {
            let list = parse_extensions(value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
            assert_eq!(canonical(&list), expected, "{value:?}");
        }
    }

    #[test]
    fn lists_that_do_not() {
        use ExtensionError as E;
        let table = [
            ("", E::Empty),
            (" \t", E::Empty),
            (" , ,", E::Empty),
            (";", E::NotToken),
            ("=", E::NotToken),
            ("a;", E::NotToken),
            ("a;;b", E::NotToken),
            ("a;=1", E::NotToken),
            ("a;b=", E::NotToken),
            ("a;b=,c", E::NotToken),
            ("a;b=\"\"", E::NotToken),
            ("a;b=\"1 0\"", E::NotToken),
            ("a;b=\"1,0\"", E::NotToken),
            ("a;b=\"1\u{e4}\"", E::NotToken),
            ("a/b", E::NotToken),
            ("\"a\"", E::NotToken),
            ("ä", E::NotToken),
            ("a\r\nb", E::NotToken),
            ("a b", E::Separator),
            ("a=1", E::Separator),
            ("a;b=1=2", E::Separator),
            ("a;b=\"1\"2", E::Separator),
            ("a;b c", E::Separator),
            ("a;b=\"1", E::UnterminatedQuote),
            ("a;b=\"", E::UnterminatedQuote),
            ("a;b=\"1\\", E::UnterminatedQuote),
            ("a;b=\"1\\\"", E::UnterminatedQuote),
        ];
        for (value, expected) in table {
            assert_eq!(parse_extensions(value), Err(expected), "{value:?}");
        }
    }

    #[test]
    fn counts_are_limited() {
        let extensions = |count: usize| vec!["a"; count].join(",");
        assert_eq!(
            parse_extensions(&extensions(MAX_EXTENSIONS)).unwrap().len(),
            MAX_EXTENSIONS
        );
        let error = Err(ExtensionError::TooManyExtensions);
        assert_eq!(parse_extensions(&extensions(MAX_EXTENSIONS + 1)), error);
        let parameters = |count: usize| format!("a{}", ";b".repeat(count));
        assert!(parse_extensions(&parameters(MAX_PARAMETERS)).is_ok());
        let error = Err(ExtensionError::TooManyParameters);
        assert_eq!(parse_extensions(&parameters(MAX_PARAMETERS + 1)), error);
    }

    /// What is accepted means the same when it is written down and parsed again, and no string of
    /// the grammar's own characters makes the parser panic.
    #[test]
    fn every_short_string_of_the_grammars_characters() {
        let alphabet = ['a', ',', ';', '=', '"', '\\', ' '];
        for code in 0..alphabet.len().pow(6) {
            let mut rest = code;
            let mut value = String::new();
            for _ in 0..6 {
                value.push(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            if let Ok(list) = parse_extensions(&value) {
                let written = canonical(&list);
                assert_eq!(
                    canonical(&parse_extensions(&written).unwrap()),
                    written,
                    "{value:?}"
                );
            }
        }
    }
}
