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
    let url = resolve(&target.url, location)?;
    if target.url.is_secure() && !url.is_secure() {
        return None;
    }
    let mut options = Arc::clone(&target.options);
    if !same_origin(&target.url, &url) {
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
/// relative to the scheme, the host or the path (RFC 3986 §5.2, without dot segments).
fn resolve(base: &Url, location: &str) -> Option<Url> {
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
            let text = format!("{scheme}://{}{location}", base.host_header());
            return with_userinfo(base, &text);
        }
        _ => {
            let path = base.path_and_query();
            let path = path.split('?').next().unwrap_or("/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let text = format!("{scheme}://{}{folder}/{location}", base.host_header());
            return with_userinfo(base, &text);
        }
    };
    Url::parse(&text).ok()
}

/// A place on the same server keeps the credentials for it.
fn with_userinfo(base: &Url, text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    Some(url.with_authorization_of(base))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("ftp://b.example/", None),
            ("http://", None),
        ];
        for (location, expected) in cases {
            assert_eq!(resolved(base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn credentials_stay_with_their_server() {
        let base = Url::parse("ws://user:secret@a.example/").unwrap();
        let here = resolve(&base, "/other").unwrap();
        assert_eq!(here.basic_authorization(), base.basic_authorization());
        let there = resolve(&base, "ws://b.example/").unwrap();
        assert_eq!(there.basic_authorization(), None);
    }
}
