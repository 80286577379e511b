//! Redirects of the opening handshake, for requests that ask to follow them.

use super::options::Target;
use crate::protocol::handshake::Rejection;
use crate::protocol::url::Url;
use std::sync::Arc;

/// Headers that are meant for one server and not for whomever it points to.
const PRIVATE_HEADERS: [&str; 4] = ["authorization", "cookie", "host", "proxy-authorization"];

/// Where `rejection` points to, if it is a redirect that may be followed from `target`, which was
/// `built` before it was refreshed. What was refreshed for a server is for that server only.
pub(super) fn follow(
    target: &Target,
    built: Option<&Target>,
    rejection: &Rejection,
) -> Option<Target> {
    // RFC 9110 §15.4: those of the 3xx codes that name another place for the same request.
    if !matches!(rejection.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = rejection.headers.first("location")?;
    let mut url = resolve(&target.url, location)?;
    if target.url.is_secure() && !url.is_secure() {
        return None;
    }
    let mut options = Arc::clone(&target.options);
    if same_origin(&target.url, &url) {
        // A place on the same server keeps the credentials for it, however it is written.
        if url.basic_authorization().is_none() {
            url = url.with_authorization_of(&target.url);
        }
    } else {
        let private = |name: &str| PRIVATE_HEADERS.iter().any(|p| name.eq_ignore_ascii_case(p));
        let options = Arc::make_mut(&mut options);
        if let Some(built) = built {
            options.headers.clone_from(&built.options.headers);
        }
        options.headers.retain(|(name, _)| !private(name));
        // They are those of the server that redirects, not of the one that is meant.
        options.connect_to.clear();
        if let Some(environment) = &options.proxy_environment {
            // What the environment says and cannot be followed must not be passed by.
            options.proxy = environment.proxy_for(&url).ok()?;
        }
    }
    Some(Target { url, options })
}

fn same_origin(a: &Url, b: &Url) -> bool {
    (a.is_secure(), a.host_str(), a.port()) == (b.is_secure(), b.host_str(), b.port())
}

/// The URL that `location` means, seen from `base`: absolute (http counts as ws, https as wss), or
/// relative to the scheme, the host or the path (RFC 3986 §5.2, without dot segments). It has the
/// credentials that are in `location`.
fn resolve(base: &Url, location: &str) -> Option<Url> {
    // RFC 9110 §10.2.2: "Location = URI-reference", which may end in a fragment. In a WebSocket URL it
    // means nothing and may not be (RFC 6455 §3), so it goes before anything else is made of the text.
    let location = location.split('#').next().unwrap_or(location);
    let scheme = base.scheme().as_str();
    let text = match location.split_once("://") {
        Some((given, rest)) if !given.contains(['/', '?']) => {
            let given = match given.to_ascii_lowercase().as_str() {
                "http" | "ws" => "ws",
                "https" | "wss" => "wss",
                _ => return None,
            };
            format!("{given}://{rest}")
        }
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => {
            format!("{scheme}://{}{location}", base.host_header())
        }
        _ => {
            let whole = base.path_and_query();
            let path = whole.split('?').next().unwrap_or(whole);
            // RFC 3986 §5.2.2: "if (R.path == "") then T.path = Base.path; if defined(R.query) then
            // T.query = R.query; else T.query = Base.query".
            let kept = match location.chars().next() {
                None => whole,
                Some('?') => path,
                Some(_) => path.trim_end_matches(|c| c != '/'),
            };
            format!("{scheme}://{}{kept}{location}", base.host_header())
        }
    };
    Url::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::handshake::{ClientHandshake, HandshakeError, HandshakeLimits};

    fn resolved(base: &str, location: &str) -> Option<String> {
        let base = Url::parse(base).unwrap();
        resolve(&base, location).map(|url| url.to_string())
    }

    #[test]
    fn locations_of_every_form() {
        let base = "wss://a.example:8443/feeds/v1?x=1";
        let cases = [
            ("wss://b.example/ws", Some("wss://b.example/ws")),
            ("https://b.example/ws", Some("wss://b.example/ws")),
            ("http://b.example/ws", Some("ws://b.example/ws")),
            ("//b.example/ws", Some("wss://b.example/ws")),
            ("/v2?y=http://z", Some("wss://a.example:8443/v2?y=http://z")),
            ("v2", Some("wss://a.example:8443/feeds/v2")),
            (
                "v2?y=http://z",
                Some("wss://a.example:8443/feeds/v2?y=http://z"),
            ),
            ("?y=/z/", Some("wss://a.example:8443/feeds/v1?y=/z/")),
            (
                "?y=http://z",
                Some("wss://a.example:8443/feeds/v1?y=http://z"),
            ),
            ("?", Some("wss://a.example:8443/feeds/v1")),
            ("", Some(base)),
            ("#", Some(base)),
            ("#top?y=1", Some(base)),
            ("?y=1#top", Some("wss://a.example:8443/feeds/v1?y=1")),
            ("/v2#top", Some("wss://a.example:8443/v2")),
            ("//b.example#@c.example/", Some("wss://b.example/")),
            ("https://b.example/ws#a#b://c", Some("wss://b.example/ws")),
            ("#wss://b.example/", Some(base)),
            ("ftp://b.example/", None),
            ("http://", None),
        ];
        for (location, expected) in cases {
            assert_eq!(resolved(base, location).as_deref(), expected, "{location}");
        }
    }

    /// Where a server at `url` sends one with a 302.
    fn sent(url: &str, location: &str) -> Option<Url> {
        let url = Url::parse(url).unwrap();
        let options = Arc::default();
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let request = Target { url, options };
        let limits = HandshakeLimits::default();
        let (head, out) = (request.request_head(None), &mut Vec::new());
        let mut handshake = ClientHandshake::new(&head, [0; 16], limits, out).unwrap();
        match handshake.receive(answer.as_bytes()) {
            Err(HandshakeError::Rejected(rejection)) => {
                follow(&request, None, &rejection).map(|target| target.url)
            }
            other => panic!("{other:?}"),
        }
    }

    /// However the same server is written, it gets the credentials that are for it, unless it names
    /// others; one that differs in host, port or scheme never does.
    #[test]
    fn credentials_stay_with_their_server() {
        let alice = Url::parse("ws://alice:secret@h/").unwrap();
        let alice = alice.basic_authorization();
        let bob = Url::parse("ws://bob@h/").unwrap();
        let bob = bob.basic_authorization();
        let plain = "ws://alice:secret@a.example/feed";
        let secure = "wss://alice:secret@a.example:8443/feed";
        for (base, location, expected) in [
            (plain, "/other", alice),
            (plain, "other", alice),
            (plain, "//a.example/other", alice),
            (plain, "ws://a.example/other", alice),
            (plain, "http://A.Example:80/other", alice),
            (plain, "ws://@a.example/other", alice),
            (secure, "/other", alice),
            (secure, "//a.example:8443/other", alice),
            (secure, "wss://a.example:8443/other", alice),
            (secure, "https://a.example:8443/other", alice),
            (plain, "ws://bob@a.example/other", bob),
            (plain, "ws://bob@b.example/other", bob),
            (plain, "ws://b.example/other", None),
            (plain, "//b.example/other", None),
            (plain, "ws://a.example.b.example/other", None),
            (plain, "ws://a.example:81/other", None),
            (plain, "//a.example:81/other", None),
            (plain, "wss://a.example/other", None),
            (plain, "https://a.example:80/other", None),
            (secure, "https://a.example/other", None),
            (secure, "//a.example/other", None),
            (secure, "wss://b.example:8443/other", None),
        ] {
            let url = sent(base, location).expect(location);
            assert_eq!(url.basic_authorization(), expected, "{base} {location}");
        }
        // From TLS to plain text nothing goes at all.
        for location in [
            "ws://a.example:8443/",
            "http://a.example:8443/",
            "ws://a.example/",
        ] {
            assert_eq!(sent(secure, location), None, "{location}");
        }
    }
}
