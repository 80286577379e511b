//! What the environment says about proxies, read as curl reads it, because people who set these
//! variables expect every program to take them alike.
//!
//! Two things go beyond curl, both taken from what other programs made common: an entry of
//! `no_proxy` may name a port, and `*.example.com` is understood as `.example.com`.

use super::url::{Proxy, ProxyUrlError};
use crate::protocol::url::{Host, Url};
use std::net::IpAddr;

/// Variables that name the proxy for `wss`, the first one that is set wins. Lower case comes first.
const FOR_WSS: [&str; 6] = [
    "wss_proxy",
    "WSS_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// The same for `ws`. `HTTP_PROXY` is left out on purpose: in a program that a web server started
/// (CGI), it holds the header `Proxy` of a request, so whoever sends requests could choose the proxy
/// (CVE-2016-5385).
const FOR_WS: [&str; 5] = [
    "ws_proxy",
    "WS_PROXY",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
];

/// Variables that list what is reached without a proxy.
const EXEMPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// These variables as they were when they were read: a redirect may lead to a server for which they say
/// something else.
#[derive(Clone)]
pub(crate) struct Environment(Vec<(&'static str, String)>);

impl Environment {
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let names = FOR_WSS.iter().chain(&FOR_WS).chain(&EXEMPTIONS);
        Self(
            names
                .filter_map(|name| Some((*name, lookup(name)?)))
                .collect(),
        )
    }

    /// As [`Proxy::from_environment`].
    ///
    /// # Errors
    /// Its own.
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<Proxy>, ProxyUrlError> {
        Proxy::from_environment(url, |name| {
            let mut variables = self.0.iter();
            let (_, value) = variables.find(|(other, _)| *other == name)?;
            Some(value.clone())
        })
    }
}

impl Proxy {
    /// The proxy that the environment names for this URL, if it names one. `lookup` gives the value
    /// of a variable; an empty one counts as not set.
    ///
    /// `no_proxy` is a list with commas or white space between its entries:
    ///
    /// | entry | reached without a proxy |
    /// | --- | --- |
    /// | `*` | everything |
    /// | `example.com`, `.example.com`, `*.example.com` | that host and all below it |
    /// | `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]` | that address, where the URL has it literally |
    /// | `192.0.2.0/24`, `2001:db8::/32` | addresses of that block, likewise |
    /// | any of these but `*` with `:port`, IPv6 in brackets | only if the URL's port is that one |
    ///
    /// Names are not looked up to compare addresses, and `localhost` is a name like any other. What
    /// cannot be understood exempts nothing.
    ///
    /// # Errors
    /// [`ProxyUrlError`] if the variable that applies does not name a proxy to be used.
    fn from_environment(
        url: &Url,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyUrlError> {
        let first = |names: &[&str]| {
            let value = |name: &&str| lookup(name).filter(|value| !value.is_empty());
            names.iter().find_map(value)
        };
        let names: &[&str] = if url.is_secure() { &FOR_WSS } else { &FOR_WS };
        let Some(proxy) = first(names) else {
            return Ok(None);
        };
        if first(&EXEMPTIONS).is_some_and(|list| exempts(&list, url)) {
            return Ok(None);
        }
        Self::parse(&proxy).map(Some)
    }
}

fn exempts(list: &str, url: &Url) -> bool {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .any(|entry| entry_matches(entry, url))
}

fn entry_matches(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let Some((pattern, port)) = split_port(entry) else {
        return false;
    };
    if port.is_some_and(|port| port != url.port()) {
        return false;
    }
    match url.host() {
        Host::Name(name) => name_matches(pattern, name),
        Host::Ipv4(address) => address_matches(pattern, address.into()),
        Host::Ipv6(address) => address_matches(pattern, address.into()),
    }
}

/// Splits an entry that may end in a port and takes the brackets off an IPv6 address. `None` if it
/// is neither with nor without a port.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']')?;
            if behind.is_empty() {
                return Some((address, None));
            }
            (address, behind.strip_prefix(':')?)
        }
        None => match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, port),
            // No colon, or an IPv6 address without brackets.
            _ => return Some((entry, None)),
        },
    };
    Some((host, Some(port.parse().ok()?)))
}

/// Whether `name` is the pattern or ends in it behind a dot: `notexample.com` is not below
/// `example.com`.
fn name_matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.strip_prefix('*').unwrap_or(pattern);
    let pattern = pattern.strip_prefix('.').unwrap_or(pattern);
    // The dot of the root makes no difference.
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    let name = name.strip_suffix('.').unwrap_or(name);
    let start = name.len().checked_sub(pattern.len());
    let Some((front, tail)) = start.and_then(|start| name.split_at_checked(start)) else {
        return false;
    };
    !pattern.is_empty()
        && tail.eq_ignore_ascii_case(pattern)
        && (front.is_empty() || front.ends_with('.'))
}

/// Bits of an IPv6 address, and of its part in front of a mapped IPv4 address.
const IPV6_BITS: u32 = 128;
const MAPPED_PREFIX_BITS: u32 = 96;

/// Whether `address` is the pattern or lies in the block it names. IPv4 addresses are compared in
/// their mapped form (`::ffff:192.0.2.1`), so that both ways to write one mean the same.
fn address_matches(pattern: &str, address: IpAddr) -> bool {
    let (network, length) = match pattern.split_once('/') {
        Some((network, length)) => (network, Some(length)),
        None => (pattern, None),
    };
    let Ok(network) = network.parse::<IpAddr>() else {
        return false;
    };
    let in_front = if network.is_ipv4() {
        MAPPED_PREFIX_BITS
    } else {
        0
    };
    let length = match length.map(str::parse::<u32>) {
        None => IPV6_BITS,
        Some(Ok(length)) if length <= IPV6_BITS - in_front => in_front + length,
        Some(_) => return false,
    };
    // `::/0` is all of IPv6 and none of IPv4.
    if length < MAPPED_PREFIX_BITS && address.to_canonical().is_ipv4() {
        return false;
    }
    (mapped_bits(network) ^ mapped_bits(address)).leading_zeros() >= length
}

fn mapped_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::url::UrlError;

    /// The proxy for `url` where exactly these variables are set.
    fn found(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, ProxyUrlError> {
        let url = Url::parse(url).unwrap();
        let lookup = |name: &str| {
            let same = variables.iter().find(|(other, _)| *other == name);
            same.map(|(_, value)| (*value).to_owned())
        };
        let proxy = Proxy::from_environment(&url, lookup)?;
        Ok(proxy.map(|proxy| proxy.host().to_owned()))
    }

    /// Every variable names itself; they are taken away one by one, and the next one steps in.
    #[test]
    fn variables_in_their_order() {
        for (url, names) in [("wss://s", &FOR_WSS[..]), ("ws://s", &FOR_WS[..])] {
            let mut variables: Vec<_> = FOR_WSS.iter().chain(&FOR_WS).map(|v| (*v, *v)).collect();
            variables.push(("HTTP_PROXY", "HTTP_PROXY"));
            for name in names {
                let expected = Some(name.to_ascii_lowercase());
                assert_eq!(found(url, &variables), Ok(expected), "{url}");
                // An empty variable counts as not set.
                for (other, value) in &mut variables {
                    if other == name {
                        *value = "";
                    }
                }
            }
            assert_eq!(found(url, &variables), Ok(None), "{url}");
            assert_eq!(found(url, &[]), Ok(None), "{url}");
        }
    }

    #[test]
    fn the_header_proxy_of_a_cgi_request_chooses_nothing() {
        assert_eq!(found("ws://s", &[("HTTP_PROXY", "evil")]), Ok(None));
        assert_eq!(found("wss://s", &[("HTTP_PROXY", "evil")]), Ok(None));
        assert_eq!(found("wss://s", &[("http_proxy", "plain")]), Ok(None));
        assert_eq!(found("ws://s", &[("https_proxy", "secure")]), Ok(None));
    }

    #[test]
    fn values_of_every_form_and_bad_ones() {
        let of = |value: &str| found("wss://s", &[("https_proxy", value)]);
        assert_eq!(of("http://u:p@h:3128/"), Ok(Some("h".to_owned())));
        assert_eq!(of("socks5h://[::1]"), Ok(Some("::1".to_owned())));
        assert_eq!(of("https://h"), Err(ProxyUrlError::TlsToProxy));
        assert_eq!(of("h:x"), Err(UrlError::BadPort.into()));
        // What is not used may be as wrong as it likes.
        let exempt = [("https_proxy", "https://h"), ("no_proxy", "s")];
        assert_eq!(found("wss://s", &exempt), Ok(None));
    }

    #[test]
    fn either_case_of_no_proxy_and_lower_case_first() {
        let exempt = |variables: &[(&str, &str)]| {
            let all = [&[("all_proxy", "h")], variables].concat();
            found("wss://s", &all) == Ok(None)
        };
        assert!(exempt(&[("no_proxy", "s")]));
        assert!(exempt(&[("NO_PROXY", "s")]));
        assert!(exempt(&[("no_proxy", ""), ("NO_PROXY", "s")]));
        assert!(!exempt(&[("no_proxy", "x"), ("NO_PROXY", "s")]));
        assert!(!exempt(&[("No_Proxy", "s")]));
    }

    #[test]
    fn what_no_proxy_exempts() {
        const NAME: &str = "wss://www.example.com";
        const V4: &str = "ws://192.0.2.77";
        const V6: &str = "ws://[2001:db8::1]:8080";
        // list, URL, whether exempt
        let table = [
            ("*", NAME, true),
            ("x , *", V6, true),
            ("**", NAME, false),
            ("*:443", NAME, false),
            // Names: the host itself and what is below it.
            ("www.example.com", NAME, true),
            ("example.com", NAME, true),
            (".example.com", NAME, true),
            ("*.example.com", NAME, true),
            ("EXAMPLE.Com.", NAME, true),
            ("com", NAME, true),
            (".www.example.com", NAME, true),
            ("example.com", "wss://example.com.", true),
            ("example.com", "wss://notexample.com", false),
            (".example.com", "wss://notexample.com", false),
            ("*example.com", "wss://notexample.com", false),
            ("a.www.example.com", NAME, false),
            ("example.co", NAME, false),
            ("..example.com", NAME, false),
            ("ä.com", NAME, false),
            ("", NAME, false),
            (".", NAME, false),
            ("*.", NAME, false),
            (",, ,", NAME, false),
            ("localhost", "ws://localhost:1", true),
            ("x", "ws://localhost:1", false),
            // Lists.
            ("a.b,example.com", NAME, true),
            ("a.b example.com\tc.d", NAME, true),
            (" , a.b ,, example.com , ", NAME, true),
            ("a.b;example.com", NAME, false),
            // Ports.
            ("example.com:443", NAME, true),
            (".example.com:443", NAME, true),
            ("example.com:8443", NAME, false),
            ("example.com:8443", "wss://a.example.com:8443", true),
            ("example.com:", NAME, false),
            ("example.com:x", NAME, false),
            ("example.com:65536", NAME, false),
            ("192.0.2.77:80", V4, true),
            ("192.0.2.77:81", V4, false),
            ("192.0.2.0/24:80", V4, true),
            ("[2001:db8::1]:8080", V6, true),
            ("[2001:db8::1]:80", V6, false),
            ("[2001:db8::1]8080", V6, false),
            // Addresses.
            ("192.0.2.77", V4, true),
            ("192.0.2.7", V4, false),
            ("2.77", V4, false),
            ("::ffff:192.0.2.77", V4, true),
            ("192.0.2.77", "ws://[::ffff:192.0.2.77]", true),
            ("2001:db8::1", V6, true),
            ("2001:DB8:0:0:0:0:0:1", V6, true),
            ("[2001:db8::1]", V6, true),
            ("[2001:db8::1", V6, false),
            ("2001:db8::2", V6, false),
            ("2001:db8::1", "ws://192.0.2.1", false),
            // Blocks.
            ("192.0.2.0/24", V4, true),
            ("192.0.2.64/26", V4, true),
            ("192.0.2.0/26", V4, false),
            ("192.0.2.76/31", V4, true),
            ("192.0.2.76/32", V4, false),
            ("0.0.0.0/0", V4, true),
            ("0.0.0.0/0", V6, false),
            ("128.0.0.0/1", V4, true),
            ("0.0.0.0/1", V4, false),
            ("192.0.2.0/33", V4, false),
            ("192.0.2.0/-1", V4, false),
            ("192.0.2.0/", V4, false),
            ("192.0.2/24", V4, false),
            ("::ffff:192.0.2.0/120", V4, true),
            ("192.0.2.0/24", "ws://[::ffff:192.0.2.77]", true),
            ("2001:db8::/32", V6, true),
            ("2001:db9::/32", V6, false),
            ("2001:db8::/127", V6, true),
            ("2001:db8::/128", V6, false),
            ("2001:db8::/129", V6, false),
            ("::/0", V6, true),
            ("::/0", V4, false),
            ("0.0.0.0/0", NAME, false),
        ];
        for (list, url, expected) in table {
            let outcome = found(url, &[("all_proxy", "h"), ("no_proxy", list)]);
            assert_eq!(outcome.unwrap().is_none(), expected, "{list:?} for {url}");
        }
    }
}
