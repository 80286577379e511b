//! `ws://` and `wss://` URLs (RFC 6455 §3, RFC 3986).
//!
//! A connection starts here: the host is what gets resolved and what TLS verifies, the port is what
//! TCP connects to, and [`super::handshake`] writes the rest into the request. Whatever could break
//! out of a request line or a header is refused while parsing, so nothing after this module has to
//! think of it again.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use super::base64;

/// The longest URL text taken, in bytes. Offsets into the stored text stay within 16 bits.
pub const MAX_URL_BYTES: usize = 16 * 1024;
/// The longest path with its query, in bytes and percent-encoded. RFC 9112 §3 recommends that
/// recipients support request lines of at least 8,000 bytes; more than that few servers take.
pub const MAX_PATH_BYTES: usize = 8 * 1024;
/// The longest host name, in bytes (RFC 1035 §2.3.4, without the length byte and the root label).
const MAX_HOST_BYTES: usize = 253;
/// The longest label of a host name, in bytes (RFC 1035 §2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Whether the connection is in the clear or inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `ws`: plain TCP, port 80 by default.
    Ws,
    /// `wss`: TLS, port 443 by default.
    Wss,
}

impl Scheme {
    /// The scheme as it is written in front of `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port that is meant when the URL names none (RFC 6455 §3).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// The host of a [`Url`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// A name to resolve, in lower case.
    Name(&'a str),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
}

/// A parsed and normalised WebSocket URL. Cloning copies a pointer.
///
/// `Display` and `Debug` leave the userinfo out, so that a password in a URL never reaches a log.
///
/// ```
/// use websockex::protocol::url::Url;
///
/// let url = Url::parse("wss://Stream.Example.com:9443/ws?streams=trades")?;
/// assert_eq!(url.host_str(), "stream.example.com");
/// assert_eq!(url.port(), 9443);
/// assert_eq!(url.path_and_query(), "/ws?streams=trades");
/// # Ok::<(), websockex::protocol::url::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(Arc<Parts>);

#[derive(PartialEq, Eq, Hash)]
struct Parts {
    /// `scheme://authority/path?query`, and behind it the `Basic` credentials if there was a
    /// userinfo. The authority is what the `Host` header takes; everything shown is a prefix.
    text: Box<str>,
    scheme: Scheme,
    port: u16,
    host_end: u16,
    path_start: u16,
    path_end: u16,
}

impl Url {
    /// Parses and normalises a URL: scheme and host in lower case, the scheme's default port
    /// dropped, an empty path written as `/`. Characters that RFC 3986 allows in no path or query
    /// (non-ASCII ones, `"<>\^` and a few more) are percent-encoded; what is already encoded stays
    /// as it is.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong. None of its messages repeats the text, which may hold a
    /// password.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong {
                limit: MAX_URL_BYTES,
            });
        }
        if let Some(at) = text.find(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::ForbiddenCharacter { at });
        }
        // RFC 6455 §3: "Fragment identifiers are meaningless in the context of WebSocket URIs and
        // MUST NOT be used on these URIs."
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (scheme, rest) = split_scheme(text)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, host_and_port) = match authority.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, authority),
        };
        let (host, port) = split_port(host_and_port)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };

        let mut builder = Builder {
            text: format!("{}://", scheme.as_str()),
        };
        builder.push_host(host)?;
        let host_end = builder.position();
        if host.starts_with('[') {
            builder.text.push(']');
        }
        if port != scheme.default_port() {
            builder.text.push(':');
            builder.text.push_str(&port.to_string());
        }
        let path_start = builder.position();
        builder.push_path(path)?;
        let path_end = builder.position();
        builder.push_credentials(userinfo.unwrap_or_default())?;

        Ok(Self(Arc::new(Parts {
            text: builder.text.into(),
            scheme,
            port,
            host_end,
            path_start,
            path_end,
        })))
    }

    /// Plain or TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    /// Whether the connection goes through TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.scheme == Scheme::Wss
    }

    /// The host, told apart by kind.
    #[must_use]
    pub fn host(&self) -> Host<'_> {
        let text = self.host_str();
        if let Ok(address) = text.parse() {
            Host::Ipv4(address)
        } else if let Ok(address) = text.parse() {
            Host::Ipv6(address)
        } else {
            Host::Name(text)
        }
    }

    /// The host in lower case; an IPv6 address without its brackets.
    #[must_use]
    pub fn host_str(&self) -> &str {
        self.0.text[self.authority_start()..usize::from(self.0.host_end)].trim_start_matches('[')
    }

    /// The port, the scheme's default if the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The value of the `Host` header: IPv6 in brackets, the port only if it is not the default.
    ///
    /// RFC 6455 §4.1: "The request MUST contain a |Host| header field whose value contains /host/
    /// plus optionally ":" followed by /port/ (when not using the default port)."
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.0.text[self.authority_start()..usize::from(self.0.path_start)]
    }

    /// What stands in the request line: the path, `/` if it is empty, and the query if there is one.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.0.text[usize::from(self.0.path_start)..usize::from(self.0.path_end)]
    }

    /// The value of the `Authorization` header (`Basic ...`, RFC 7617) that the userinfo asks for.
    /// It is a secret: keep it out of logs.
    #[must_use]
    pub fn basic_authorization(&self) -> Option<&str> {
        Some(&self.0.text[usize::from(self.0.path_end)..]).filter(|value| !value.is_empty())
    }

    /// The same URL with the credentials of `other`.
    pub(crate) fn with_authorization_of(&self, other: &Self) -> Self {
        let shown = &self.0.text[..usize::from(self.0.path_end)];
        let credentials = &other.0.text[usize::from(other.0.path_end)..];
        Self(Arc::new(Parts {
            text: [shown, credentials].concat().into(),
            ..*self.0
        }))
    }

    /// The same URL with another query, or none if that is empty.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(crate) fn with_query(&self, query: &str) -> Result<Self, UrlError> {
        let path = self.path_and_query();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let mark = if query.is_empty() { "" } else { "?" };
        let (scheme, host) = (self.0.scheme.as_str(), self.host_header());
        let url = Self::parse(&format!("{scheme}://{host}{path}{mark}{query}"))?;
        Ok(url.with_authorization_of(self))
    }

    fn authority_start(&self) -> usize {
        self.0.scheme.as_str().len() + "://".len()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text[..usize::from(self.0.path_end)])
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::parse(text)
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), UrlError> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::NoScheme)?;
    // RFC 3986 §3.1: schemes are case-insensitive.
    match scheme.to_ascii_lowercase().as_str() {
        "ws" => Ok((Scheme::Ws, rest)),
        "wss" => Ok((Scheme::Wss, rest)),
        "http" => Err(UrlError::WrongScheme {
            suggestion: Some(Scheme::Ws),
        }),
        "https" => Err(UrlError::WrongScheme {
            suggestion: Some(Scheme::Wss),
        }),
        _ => Err(UrlError::WrongScheme { suggestion: None }),
    }
}

/// Splits `host:port`; the host keeps the opening bracket of an IPv6 address, but not the closing.
fn split_port(text: &str) -> Result<(&str, Option<&str>), UrlError> {
    if !text.starts_with('[') {
        return Ok(match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        });
    }
    let (host, rest) = text.split_once(']').ok_or(UrlError::BadIpv6)?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlError::BadIpv6),
    }
}

/// One to five digits. Port 0 cannot be connected to; a colon with nothing behind it is taken for a
/// slip rather than for the default, although RFC 3986 §3.2.3 would allow it.
fn parse_port(digits: &str) -> Result<u16, UrlError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::BadPort);
    }
    digits
        .parse()
        .ok()
        .filter(|&port| port != 0)
        .ok_or(UrlError::BadPort)
}

/// The normalised text while it is put together.
struct Builder {
    text: String,
}

impl Builder {
    /// The limits on URL, path and host keep every position within 16 bits.
    fn position(&self) -> u16 {
        u16::try_from(self.text.len()).expect("a URL's parts are limited to far less than 64 KiB")
    }

    fn push_host(&mut self, host: &str) -> Result<(), UrlError> {
        if let Some(address) = host.strip_prefix('[') {
            // RFC 6874 zone ids mean something on one machine only; a peer could not use them.
            if address.contains('%') {
                return Err(UrlError::Ipv6Zone);
            }
            let address: Ipv6Addr = address.parse().map_err(|_| UrlError::BadIpv6)?;
            let _ = write!(self.text, "[{address}");
            return Ok(());
        }
        check_host_name(host)?;
        self.text
            .extend(host.chars().map(|c| c.to_ascii_lowercase()));
        Ok(())
    }

    fn push_path(&mut self, path: &str) -> Result<(), UrlError> {
        let start = self.text.len();
        // RFC 6455 §3 puts the resource name together from "/" if the path is empty, the path, and
        // "?" with the query if that is not empty.
        let path = match path.split_once('?') {
            Some((path, "")) => path,
            _ => path,
        };
        if !path.starts_with('/') {
            self.text.push('/');
        }
        for byte in path.bytes() {
            if byte.is_ascii() && !br#""<>\^`{|}"#.contains(&byte) {
                self.text.push(char::from(byte));
            } else {
                let _ = write!(self.text, "%{byte:02X}");
            }
        }
        if self.text.len() - start > MAX_PATH_BYTES {
            return Err(UrlError::PathTooLong {
                limit: MAX_PATH_BYTES,
            });
        }
        Ok(())
    }

    /// RFC 7617 §2: user-id, a colon and the password, base64-encoded.
    fn push_credentials(&mut self, userinfo: &str) -> Result<(), UrlError> {
        if userinfo.is_empty() {
            return Ok(());
        }
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let user = percent_decode(user)?;
        // RFC 7617 §2: "a user-id containing a colon character is invalid".
        if user.contains(&b':') {
            return Err(UrlError::BadUserinfo);
        }
        let plain = [user, b":".to_vec(), percent_decode(password)?].concat();
        // RFC 7617 §2: "The user-id and password MUST NOT contain any control characters".
        if plain.iter().any(u8::is_ascii_control) {
            return Err(UrlError::BadUserinfo);
        }
        self.text.push_str("Basic ");
        self.text.push_str(&base64::encode(&plain));
        Ok(())
    }
}

fn check_host_name(host: &str) -> Result<(), UrlError> {
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if !host.is_ascii() {
        return Err(UrlError::NonAsciiHost);
    }
    // One dot at the end names the DNS root and is allowed.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_HOST_BYTES {
        return Err(UrlError::BadHost);
    }
    // Underscores are in use, whatever RFC 952 says about host names.
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !name.split('.').all(is_label) {
        return Err(UrlError::BadHost);
    }
    // Resolvers read `127.1`, `0x7f.1` or `2130706433` as addresses, each in its own way. Only the
    // form that has one meaning is taken.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(UrlError::BadIpv4);
    }
    Ok(())
}

/// Decodes `%XX`. Raw characters must be ones that RFC 3986 §3.2.1 allows in a userinfo: an `@` or
/// a `\` there is read differently by different parsers, which is how a URL lies about its host.
/// Non-ASCII characters are taken as their UTF-8 bytes.
pub(crate) fn percent_decode(text: &str) -> Result<Vec<u8>, UrlError> {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte) || !byte.is_ascii()
    };
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            if !allowed(first) {
                return Err(UrlError::BadUserinfo);
            }
            decoded.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2).ok_or(UrlError::BadUserinfo)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(UrlError::BadUserinfo);
        let value = digit(digits[0])? << 4 | digit(digits[1])?;
        decoded.extend(u8::try_from(value));
        rest = behind;
    }
    Ok(decoded)
}

/// Why a text is not a URL to connect to. No variant repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Longer than [`MAX_URL_BYTES`].
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// White space or a control character, which could end a request line or a header early.
    ForbiddenCharacter {
        /// Where it stands, in bytes from the start.
        at: usize,
    },
    /// A `#fragment` (RFC 6455 §3).
    Fragment,
    /// No `scheme://` in front.
    NoScheme,
    /// A scheme other than `ws` and `wss`.
    WrongScheme {
        /// What was probably meant, for `http` and `https`.
        suggestion: Option<Scheme>,
    },
    /// Nothing where the host should be.
    NoHost,
    /// Not a host name: a label is empty or too long, or holds other characters than letters,
    /// digits, `-` and `_`.
    BadHost,
    /// A host name outside ASCII.
    NonAsciiHost,
    /// A host that ends in a number and is no IPv4 address of four decimal parts.
    BadIpv4,
    /// Not an IPv6 address between brackets.
    BadIpv6,
    /// An IPv6 address with a zone id (`%eth0`).
    Ipv6Zone,
    /// A port that is not a number from 1 to 65535.
    BadPort,
    /// A userinfo with characters that must be percent-encoded, a broken percent-encoding, or
    /// something Basic authorization cannot carry (RFC 7617 §2).
    BadUserinfo,
    /// Path and query, percent-encoded, are longer than [`MAX_PATH_BYTES`].
    PathTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong { limit } => return write!(f, "the URL is longer than {limit} bytes"),
            Self::ForbiddenCharacter { at } => {
                return write!(f, "the URL has white space or a control character at byte {at}");
            }
            Self::Fragment => "a WebSocket URL must not have a #fragment (RFC 6455 §3)",
            Self::NoScheme => "the URL must start with ws:// or wss://",
            Self::WrongScheme { suggestion: Some(scheme) } => {
                let scheme = scheme.as_str();
                return write!(f, "a WebSocket URL starts with {scheme}://, not with http(s)://");
            }
            Self::WrongScheme { suggestion: None } => "the scheme of the URL must be ws or wss",
            Self::NoHost => "the URL names no host",
            Self::BadHost => "the host of the URL is not a valid host name",
            Self::NonAsciiHost => {
                "the host of the URL is not ASCII; write it in its punycode form (xn--...)"
            }
            Self::BadIpv4 => "the host of the URL ends in a number but is not an IPv4 address",
            Self::BadIpv6 => "the host of the URL is not a valid IPv6 address in brackets",
            Self::Ipv6Zone => "an IPv6 address in a URL must not have a zone id",
            Self::BadPort => "the port of the URL must be a number from 1 to 65535",
            Self::BadUserinfo => {
                "user name or password of the URL must be percent-encoded and free of control characters"
            }
            Self::PathTooLong { limit } => {
                return write!(f, "path and query of the URL are longer than {limit} bytes");
            }
        })
    }
}

impl Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts_are_normalised() {
        // text, shown, host, port, Host header, path and query
        let table = [
            ("ws://h", "ws://h/", "h", 80, "h", "/"),
            ("wss://h", "wss://h/", "h", 443, "h", "/"),
            (
                "WSS://Ex.COM:443/A",
                "wss://ex.com/A",
                "ex.com",
                443,
                "ex.com",
                "/A",
            ),
            (
                "ws://ex.com:443/",
                "ws://ex.com:443/",
                "ex.com",
                443,
                "ex.com:443",
                "/",
            ),
            ("ws://h:00080/", "ws://h/", "h", 80, "h", "/"),
            ("ws://h?q=1", "ws://h/?q=1", "h", 80, "h", "/?q=1"),
            ("ws://h/?", "ws://h/", "h", 80, "h", "/"),
            (
                "ws://h/a?b?c/d@e",
                "ws://h/a?b?c/d@e",
                "h",
                80,
                "h",
                "/a?b?c/d@e",
            ),
            (
                "ws://h?x@evil/",
                "ws://h/?x@evil/",
                "h",
                80,
                "h",
                "/?x@evil/",
            ),
            (
                "ws://a_b-c.d./",
                "ws://a_b-c.d./",
                "a_b-c.d.",
                80,
                "a_b-c.d.",
                "/",
            ),
            (
                "ws://10.0.0.1:81",
                "ws://10.0.0.1:81/",
                "10.0.0.1",
                81,
                "10.0.0.1:81",
                "/",
            ),
            ("ws://[::1]", "ws://[::1]/", "::1", 80, "[::1]", "/"),
            (
                "wss://[2001:DB8:0:0::1]:9443/x",
                "wss://[2001:db8::1]:9443/x",
                "2001:db8::1",
                9443,
                "[2001:db8::1]:9443",
                "/x",
            ),
            (
                "ws://h/ä?\u{20ac}",
                "ws://h/%C3%A4?%E2%82%AC",
                "h",
                80,
                "h",
                "/%C3%A4?%E2%82%AC",
            ),
            (
                r#"ws://h/{"a"}\%41%"#,
                "ws://h/%7B%22a%22%7D%5C%41%",
                "h",
                80,
                "h",
                "/%7B%22a%22%7D%5C%41%",
            ),
        ];
        for (text, shown, host, port, host_header, path) in table {
            let url = url(text);
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(url.host_str(), host, "{text}");
            assert_eq!(url.port(), port, "{text}");
            assert_eq!(url.host_header(), host_header, "{text}");
            assert_eq!(url.path_and_query(), path, "{text}");
            assert_eq!(url.is_secure(), shown.starts_with("wss"), "{text}");
            assert_eq!(
                Url::parse(shown).as_ref(),
                Ok(&url),
                "normalising is idempotent"
            );
        }
    }

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!(url("ws://example.com").host(), Host::Name("example.com"));
        assert_eq!(
            url("ws://127.0.0.1:1").host(),
            Host::Ipv4(Ipv4Addr::LOCALHOST)
        );
        assert_eq!(url("ws://[::1]:1").host(), Host::Ipv6(Ipv6Addr::LOCALHOST));
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped();
        assert_eq!(url("ws://[::FFFF:1.2.3.4]").host(), Host::Ipv6(mapped));
    }

    #[test]
    fn userinfo_becomes_basic_authorization_and_stays_out_of_sight() {
        // RFC 7617 §2: Aladdin / "open sesame".
        let aladdin = url("wss://Aladdin:open%20sesame@ex.com/x");
        assert_eq!(
            aladdin.basic_authorization(),
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        for shown in [aladdin.to_string(), format!("{aladdin:?}")] {
            assert!(shown.contains("wss://ex.com/x"), "{shown}");
            assert!(
                !shown.contains("QWxh") && !shown.contains("sesame"),
                "{shown}"
            );
        }
        assert_eq!(aladdin.host_header(), "ex.com");
        assert_eq!(aladdin.path_and_query(), "/x");

        let basic = |plain: &str| format!("Basic {}", base64::encode(plain.as_bytes()));
        let of = |text: &str| url(text).basic_authorization().map(str::to_owned);
        assert_eq!(of("ws://h"), None);
        assert_eq!(of("ws://@h"), None);
        assert_eq!(of("ws://key@h"), Some(basic("key:")));
        assert_eq!(of("ws://:p@h"), Some(basic(":p")));
        assert_eq!(of("ws://u:p:q@h"), Some(basic("u:p:q")));
        assert_eq!(of("ws://u:%40%2f%C3%a4@h"), Some(basic("u:@/ä")));
    }

    #[test]
    fn what_is_refused() {
        let http = UrlError::WrongScheme {
            suggestion: Some(Scheme::Ws),
        };
        let https = UrlError::WrongScheme {
            suggestion: Some(Scheme::Wss),
        };
        let table = [
            ("", UrlError::NoScheme),
            ("example.com", UrlError::NoScheme),
            ("ws:/h", UrlError::NoScheme),
            ("http://h", http),
            ("HTTPS://h", https),
            ("ftp://h", UrlError::WrongScheme { suggestion: None }),
            ("://h", UrlError::WrongScheme { suggestion: None }),
            ("ws://", UrlError::NoHost),
            ("ws:///path", UrlError::NoHost),
            ("ws://:80", UrlError::NoHost),
            ("ws://u:p@", UrlError::NoHost),
            ("ws://h/#", UrlError::Fragment),
            ("ws://h#frag", UrlError::Fragment),
            ("ws://h:", UrlError::BadPort),
            ("ws://h:0", UrlError::BadPort),
            ("ws://h:+80", UrlError::BadPort),
            ("ws://h:65536", UrlError::BadPort),
            ("ws://h:8a", UrlError::BadPort),
            ("ws://::1/", UrlError::BadPort),
            ("ws://[::1", UrlError::BadIpv6),
            ("ws://[::1]x", UrlError::BadIpv6),
            ("ws://[::1]80", UrlError::BadIpv6),
            ("ws://[]", UrlError::BadIpv6),
            ("ws://[1.2.3.4]", UrlError::BadIpv6),
            ("ws://[[::1]]", UrlError::BadIpv6),
            ("ws://[fe80::1%25eth0]", UrlError::Ipv6Zone),
            ("ws://h]", UrlError::BadHost),
            ("ws://a..b", UrlError::BadHost),
            ("ws://.a", UrlError::BadHost),
            ("ws://.", UrlError::BadHost),
            ("ws://a%20b", UrlError::BadHost),
            (r"ws://a\b", UrlError::BadHost),
            ("ws://a,b", UrlError::BadHost),
            ("ws://b\u{fc}cher.example", UrlError::NonAsciiHost),
            ("ws://127.1", UrlError::BadIpv4),
            ("ws://2130706433", UrlError::BadIpv4),
            ("ws://0x7f.0.0.0x1", UrlError::BadIpv4),
            ("ws://256.0.0.1", UrlError::BadIpv4),
            ("ws://010.0.0.1", UrlError::BadIpv4),
            ("ws://u:p%4@h", UrlError::BadUserinfo),
            ("ws://u:%zz@h", UrlError::BadUserinfo),
            ("ws://u:%+1@h", UrlError::BadUserinfo),
            ("ws://u:%0d%0a@h", UrlError::BadUserinfo),
            ("ws://u%3Av:p@h", UrlError::BadUserinfo),
            ("ws://a@b@c", UrlError::BadUserinfo),
            (r"ws://good.example\@evil.example", UrlError::BadUserinfo),
        ];
        for (text, expected) in table {
            assert_eq!(Url::parse(text), Err(expected), "{text:?}");
            let sentence = expected.to_string();
            assert!(
                sentence.len() > 15 && !sentence.ends_with('.'),
                "{sentence}"
            );
        }
    }

    #[test]
    fn limits_hold_on_the_byte() {
        let path = |bytes: usize| format!("ws://h/{}", "a".repeat(bytes - 1));
        assert!(Url::parse(&path(MAX_PATH_BYTES)).is_ok());
        let too_long = Err(UrlError::PathTooLong {
            limit: MAX_PATH_BYTES,
        });
        assert_eq!(Url::parse(&path(MAX_PATH_BYTES + 1)), too_long);
        // It is the encoded length that counts.
        assert_eq!(
            Url::parse(&format!("ws://h/{}", "ä".repeat(MAX_PATH_BYTES / 4))),
            too_long
        );
        let huge = format!("ws://{}@h", "a".repeat(MAX_URL_BYTES));
        assert_eq!(
            Url::parse(&huge),
            Err(UrlError::TooLong {
                limit: MAX_URL_BYTES
            })
        );
        // The longest credentials and the longest path together.
        let user = "u".repeat(MAX_URL_BYTES - MAX_PATH_BYTES - "ws://@h".len());
        let both = url(&format!("ws://{user}@h/{}", "a".repeat(MAX_PATH_BYTES - 1)));
        assert_eq!(both.path_and_query().len(), MAX_PATH_BYTES);
        assert!(
            both.basic_authorization()
                .is_some_and(|value| value.len() > user.len())
        );

        let label = "a".repeat(MAX_LABEL_BYTES);
        assert!(Url::parse(&format!("ws://{label}.com")).is_ok());
        assert_eq!(
            Url::parse(&format!("ws://a{label}.com")),
            Err(UrlError::BadHost)
        );
        let name = [label.as_str(); 4].join(".");
        assert!(Url::parse(&format!("ws://{}", &name[..MAX_HOST_BYTES])).is_ok());
        assert_eq!(
            Url::parse(&format!("ws://{}", &name[..MAX_HOST_BYTES + 1])),
            Err(UrlError::BadHost)
        );
    }

    /// Every control character and every kind of white space, in every part.
    #[test]
    fn pitfall_18_no_line_breaks_or_controls_in_any_part() {
        let controls = (0..=0x20)
            .chain([0x7f, 0x85, 0xa0, 0x2028])
            .filter_map(char::from_u32);
        for c in controls {
            for text in [
                format!("w{c}s://h/"),
                format!("ws://u{c}:p@h/"),
                format!("ws://h{c}/"),
                format!("ws://h:8{c}0/"),
                format!("ws://h/a{c}b"),
                format!("ws://h/?a{c}b"),
                format!("{c}ws://h/"),
                format!("ws://h/{c}"),
            ] {
                let at = text.find(c).unwrap();
                assert_eq!(
                    Url::parse(&text),
                    Err(UrlError::ForbiddenCharacter { at }),
                    "{text:?}"
                );
            }
        }
    }

    /// No text, however cut or spliced, makes the parser panic, and what it accepts is clean.
    #[test]
    fn pieces_in_any_order_stay_harmless() {
        let pieces = [
            "ws://", "[", "::1", "]", ":", "80", "@", "/", "?", "%", "ä", "a", ".", "0x",
        ];
        for code in 0..pieces.len().pow(4) {
            let mut text = String::from("ws://");
            let mut rest = code;
            for _ in 0..4 {
                text.push_str(pieces[rest % pieces.len()]);
                rest /= pieces.len();
            }
            if let Ok(url) = Url::parse(&text) {
                assert!(
                    url.to_string().bytes().all(|byte| byte.is_ascii_graphic()),
                    "{text}"
                );
                assert!(url.path_and_query().starts_with('/'), "{text}");
                assert!(!url.host_str().is_empty(), "{text}");
                assert_eq!(
                    Url::parse(&url.to_string()).unwrap().to_string(),
                    url.to_string()
                );
            }
        }
    }
}
