//! Which proxy to go through: its protocol, its place and the credentials for it.

use super::{connect, socks5};
use crate::protocol::url::{Host, MAX_URL_BYTES, Url, UrlError, percent_decode};
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The port when the URL names none, whatever its scheme: what curl takes, and RFC 1928 §3 for
/// SOCKS.
const DEFAULT_PORT: u16 = 1080;

/// A proxy to connect through. Cloning copies a pointer.
///
/// `Display` and `Debug` leave the credentials out.
///
/// ```
/// use websockex::Proxy;
///
/// let proxy = Proxy::parse("http://user:pass%20word@proxy.example.com:3128")?;
/// assert_eq!((proxy.host(), proxy.port()), ("proxy.example.com", 3128));
/// assert_eq!(proxy.to_string(), "http://proxy.example.com:3128");
/// # Ok::<(), websockex::ProxyUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy(Arc<Settings>);

#[derive(PartialEq, Eq)]
struct Settings {
    protocol: ProxyProtocol,
    /// Host and port, in the form that has their rules. Its scheme and path mean nothing here.
    place: Url,
    /// The credentials as the protocol sends them, empty if there are none: the value of
    /// `Proxy-Authorization`, or the message of RFC 1929.
    login: Vec<u8>,
}

/// How to talk to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyProtocol {
    /// HTTP CONNECT; the proxy looks names up.
    Http,
    /// SOCKS5; names are looked up on this side.
    Socks5,
    /// SOCKS5; the proxy looks names up.
    Socks5h,
}

impl ProxyProtocol {
    /// RFC 3986 §3.1: schemes are case-insensitive.
    fn from_scheme(scheme: &str) -> Result<Self, ProxyUrlError> {
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Ok(Self::Http),
            "socks5" => Ok(Self::Socks5),
            "socks5h" => Ok(Self::Socks5h),
            "https" => Err(ProxyUrlError::TlsToProxy),
            _ => Err(ProxyUrlError::Scheme),
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }
}

impl Proxy {
    /// Parses `scheme://[user[:password]@]host[:port]`.
    ///
    /// | scheme | protocol | who looks the server's name up |
    /// | --- | --- | --- |
    /// | `http`, or none | HTTP CONNECT (RFC 9110 §9.3.6), `Basic` authorization | the proxy |
    /// | `socks5` | SOCKS5 (RFC 1928), user name and password (RFC 1929) | this side |
    /// | `socks5h` | the same | the proxy |
    ///
    /// As with curl, the port is 1080 if none is named, also for `http`. User name and password are
    /// percent-decoded; a `/`, `@`, `:` or `#` in them has to be percent-encoded.
    ///
    /// # Errors
    /// [`ProxyUrlError`] says what is wrong. None of its messages repeats the text, which may hold a
    /// password.
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        if url.len() > MAX_URL_BYTES {
            let limit = MAX_URL_BYTES;
            return Err(UrlError::TooLong { limit }.into());
        }
        if let Some(at) = url.find(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::ForbiddenCharacter { at }.into());
        }
        let (protocol, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (ProxyProtocol::from_scheme(scheme)?, rest),
            None => (ProxyProtocol::Http, url),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        if !matches!(behind, "" | "/") {
            return Err(ProxyUrlError::Path);
        }
        let (userinfo, host_and_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        Ok(Self(Arc::new(Settings {
            protocol,
            place: parse_place(host_and_port)?,
            login: parse_login(protocol, userinfo)?,
        })))
    }

    /// Whether the proxy looks up the server's name, so that this side need not know its address.
    #[must_use]
    pub fn resolves_remotely(&self) -> bool {
        self.0.protocol != ProxyProtocol::Socks5
    }

    /// The proxy's host in lower case; an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.place.host_str()
    }

    /// The proxy's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.place.port()
    }

    pub(super) fn protocol(&self) -> ProxyProtocol {
        self.0.protocol
    }

    /// The credentials as the protocol sends them. They are a secret: keep them out of logs.
    pub(super) fn login(&self) -> Option<&[u8]> {
        Some(self.0.login.as_slice()).filter(|login| !login.is_empty())
    }
}

/// A proxy's host follows the rules of a server's, so the same parser reads it.
fn parse_place(host_and_port: &str) -> Result<Url, UrlError> {
    let behind_address = host_and_port
        .rsplit_once(']')
        .map_or(host_and_port, |(_, behind)| behind);
    if behind_address.contains(':') {
        Url::parse(&format!("ws://{host_and_port}"))
    } else {
        Url::parse(&format!("ws://{host_and_port}:{DEFAULT_PORT}"))
    }
}

fn parse_login(protocol: ProxyProtocol, userinfo: &str) -> Result<Vec<u8>, ProxyUrlError> {
    if userinfo.is_empty() {
        return Ok(Vec::new());
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (user, password) = (percent_decode(user)?, percent_decode(password)?);
    match protocol {
        ProxyProtocol::Http => connect::login(&user, &password),
        ProxyProtocol::Socks5 | ProxyProtocol::Socks5h => socks5::login(&user, &password),
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.protocol.scheme();
        let port = self.port();
        match self.0.place.host() {
            Host::Ipv6(address) => write!(f, "{scheme}://[{address}]:{port}"),
            Host::Name(_) | Host::Ipv4(_) => write!(f, "{scheme}://{}:{port}", self.host()),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        Self::parse(text)
    }
}

/// Why a text does not name a proxy. No variant repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// Host, port or userinfo cannot be used.
    Url(UrlError),
    /// A scheme other than `http`, `socks5` and `socks5h`.
    Scheme,
    /// `https`: a proxy that is itself reached through TLS.
    TlsToProxy,
    /// More than a `/` behind host and port; perhaps a password with a character that must be
    /// percent-encoded.
    Path,
    /// SOCKS5 takes a user name of 1 to 255 bytes and a password of at most 255 (RFC 1929 §2).
    LoginLength,
}

impl From<UrlError> for ProxyUrlError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

impl fmt::Display for ProxyUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(error) => return write!(f, "the proxy cannot be used: {error}"),
            Self::Scheme => "the scheme of a proxy must be http, socks5 or socks5h",
            Self::TlsToProxy => {
                "proxies that are reached through TLS (https://) are not supported; \
                 an http:// proxy carries wss:// end to end"
            }
            Self::Path => {
                "a proxy's URL must end behind its host and port; \
                 \"/\", \"?\" and \"#\" in a password must be percent-encoded"
            }
            Self::LoginLength => {
                "SOCKS5 takes a user name of 1 to 255 bytes and a password of at most 255 \
                 (RFC 1929 §2)"
            }
        })
    }
}

impl Error for ProxyUrlError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            Self::Scheme | Self::TlsToProxy | Self::Path | Self::LoginLength => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::base64;

    fn proxy(text: &str) -> Proxy {
        Proxy::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn schemes_hosts_and_ports() {
        // text, shown, host, port, resolves remotely
        let table = [
            ("http://h:3128", "http://h:3128", "h", 3128, true),
            ("http://h", "http://h:1080", "h", 1080, true),
            ("http://h:80/", "http://h:80", "h", 80, true),
            (
                "Proxy.Example:8080",
                "http://proxy.example:8080",
                "proxy.example",
                8080,
                true,
            ),
            (
                "localhost",
                "http://localhost:1080",
                "localhost",
                1080,
                true,
            ),
            ("SOCKS5://h", "socks5://h:1080", "h", 1080, false),
            (
                "socks5://u:p@1.2.3.4:9050/",
                "socks5://1.2.3.4:9050",
                "1.2.3.4",
                9050,
                false,
            ),
            ("socks5h://[::1]", "socks5h://[::1]:1080", "::1", 1080, true),
            (
                "socks5h://[::1]:443",
                "socks5h://[::1]:443",
                "::1",
                443,
                true,
            ),
        ];
        for (text, shown, host, port, remotely) in table {
            let proxy = proxy(text);
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert_eq!((proxy.host(), proxy.port()), (host, port), "{text}");
            assert_eq!(proxy.resolves_remotely(), remotely, "{text}");
        }
        assert_eq!("h:1".parse(), Ok(proxy("http://h:1")));
        assert_ne!(proxy("http://h:1"), proxy("http://u@h:1"));
    }

    #[test]
    fn what_is_refused() {
        use ProxyUrlError as E;
        let table = [
            ("", E::Url(UrlError::NoHost)),
            ("http://", E::Url(UrlError::NoHost)),
            ("http://u:p@:80", E::Url(UrlError::NoHost)),
            ("https://h", E::TlsToProxy),
            ("HTTPS://h:443", E::TlsToProxy),
            ("socks4://h", E::Scheme),
            ("socks4a://h", E::Scheme),
            ("socks://h", E::Scheme),
            ("ws://h", E::Scheme),
            ("://h", E::Scheme),
            ("u:secret://@h", E::Scheme),
            ("http://h/path", E::Path),
            ("http://h?", E::Path),
            ("http://h#", E::Path),
            ("http://u:pass/word@h", E::Path),
            ("http:/h", E::Path),
            ("http://h:", E::Url(UrlError::BadPort)),
            ("http://h:0", E::Url(UrlError::BadPort)),
            ("http://h:65536", E::Url(UrlError::BadPort)),
            ("http://::1", E::Url(UrlError::BadPort)),
            ("http://[::1", E::Url(UrlError::BadIpv6)),
            ("http://[::1]x", E::Url(UrlError::BadIpv6)),
            ("http://[fe80::1%25eth0]", E::Url(UrlError::Ipv6Zone)),
            ("http://a..b", E::Url(UrlError::BadHost)),
            ("http://127.1", E::Url(UrlError::BadIpv4)),
            ("http://b\u{fc}cher.example", E::Url(UrlError::NonAsciiHost)),
            ("http://a@b@h", E::Url(UrlError::BadUserinfo)),
            ("http://u:%zz@h", E::Url(UrlError::BadUserinfo)),
            ("socks5://u:%4@h", E::Url(UrlError::BadUserinfo)),
            // RFC 7617 §2 allows neither; RFC 1929 does.
            ("http://u%3Av:p@h", E::Url(UrlError::BadUserinfo)),
            ("http://u:%0d%0a@h", E::Url(UrlError::BadUserinfo)),
            ("socks5://:p@h", E::LoginLength),
        ];
        for (text, expected) in table {
            assert_eq!(Proxy::parse(text), Err(expected), "{text:?}");
            let sentence = expected.to_string();
            assert!(
                sentence.len() > 15 && !sentence.ends_with('.'),
                "{sentence}"
            );
            assert!(!sentence.contains("secret"), "{sentence}");
        }
        let huge = format!("http://{}@h", "a".repeat(MAX_URL_BYTES));
        let limit = MAX_URL_BYTES;
        assert_eq!(Proxy::parse(&huge), Err(UrlError::TooLong { limit }.into()));
    }

    #[test]
    fn pitfall_18_no_line_breaks_or_controls_in_any_part() {
        for c in ['\r', '\n', '\0', '\t', ' ', '\u{7f}', '\u{85}', '\u{2028}'] {
            for text in [
                format!("ht{c}tp://h"),
                format!("http://u{c}:p@h"),
                format!("http://u:p{c}@h"),
                format!("http://h{c}:80"),
                format!("http://h:8{c}0"),
                format!("http://h/{c}"),
                format!("socks5://h{c}"),
            ] {
                let at = text.find(c).unwrap();
                let expected = Err(UrlError::ForbiddenCharacter { at }.into());
                assert_eq!(Proxy::parse(&text), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn credentials_are_decoded_and_stay_out_of_sight() {
        let login = |text: &str| proxy(text).login().map(<[u8]>::to_vec);
        // RFC 7617 §2: Aladdin / "open sesame".
        let basic = b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_vec();
        assert_eq!(login("http://Aladdin:open%20sesame@h"), Some(basic));
        let key_only = format!("Basic {}", base64::encode(b"key:")).into_bytes();
        assert_eq!(login("http://key@h"), Some(key_only));
        assert_eq!(login("http://@h"), None);
        assert_eq!(login("socks5://h"), None);

        assert_eq!(
            login("socks5://me:p%40%00@h"),
            Some(b"\x01\x02me\x03p@\0".to_vec())
        );
        assert_eq!(
            login("socks5h://a%3Ab@h"),
            Some(b"\x01\x03a:b\x00".to_vec())
        );
        let long = "x".repeat(255);
        assert!(login(&format!("socks5://{long}:{long}@h")).is_some());
        for text in [
            format!("socks5://{long}x:p@h"),
            format!("socks5://u:{long}x@h"),
        ] {
            assert_eq!(Proxy::parse(&text), Err(ProxyUrlError::LoginLength));
        }

        for text in ["http://Aladdin:sesame@h", "socks5://Aladdin:sesame@h"] {
            let shown = format!("{0} {0:?} {0:#?}", proxy(text));
            for secret in ["Aladdin", "sesame", "Basic", "QWxh"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}
