//! Whole exchanges with proxies, each at every split point and byte by byte.

use super::*;
use crate::error::{SocksReply, SocksViolation};
use crate::protocol::handshake::MAX_INTERIM_HEADS;
use crate::protocol::http::{HeadLimit, MAX_HEADERS, MalformedHead};
use connect::MAX_HEAD_BYTES;

/// The server's first bytes, behind the proxy's last ones. They look like what a proxy could say.
const BEHIND: &[u8] = b"\x05\x00HTTP/1.1 403 X\r\n\r\n";

fn proxy(text: &str) -> Proxy {
    Proxy::parse(text).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// What a tunnel writes at first, and the tunnel.
fn start(proxy_url: &str, server: &str) -> (Tunnel, Vec<u8>) {
    let mut out = Vec::new();
    let tunnel = Tunnel::new(&proxy(proxy_url), TunnelTarget::Url(&url(server)), &mut out);
    (tunnel, out)
}

/// What came of an exchange.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// What the tunnel wrote after its first request.
    written: Vec<u8>,
    result: Result<(), ProxyError>,
}

/// Feeds pieces until the tunnel is open or has failed. Bytes of the server are never consumed.
fn feed(proxy_url: &str, pieces: &[&[u8]], answer_bytes: usize) -> Outcome {
    let (mut tunnel, _) = start(proxy_url, "wss://server.example");
    let mut written = Vec::new();
    let mut total = 0;
    for piece in pieces {
        match tunnel.receive(piece, &mut written) {
            Ok(received) if received.done => {
                assert_eq!(total + received.consumed, answer_bytes);
                let result = Ok(());
                return Outcome { written, result };
            }
            Ok(received) => {
                assert_eq!(received.consumed, piece.len(), "all of it is the proxy's");
                total += piece.len();
            }
            Err(error) => {
                assert_eq!(
                    tunnel.receive(b"x", &mut written).as_ref(),
                    Err(&error),
                    "it sticks"
                );
                assert_eq!(tunnel.finish(), error);
                let result = Err(error);
                return Outcome { written, result };
            }
        }
    }
    let result = Err(tunnel.finish());
    Outcome { written, result }
}

/// Feeds an answer in one piece with the server's bytes behind it, in every two and byte by byte.
/// All of it has to come to the same.
fn exchange(proxy_url: &str, answer: &[u8]) -> Outcome {
    let all = [answer, BEHIND].concat();
    let whole = feed(proxy_url, &[&all], answer.len());
    for split in 0..all.len() {
        let pieces = [&all[..split], &all[split..]];
        assert_eq!(
            feed(proxy_url, &pieces, answer.len()),
            whole,
            "split at {split}"
        );
    }
    let single: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(
        feed(proxy_url, &single, answer.len()),
        whole,
        "byte by byte"
    );
    whole
}

/// The outcome of an exchange that fails, without what was written.
fn failure(proxy_url: &str, answer: &[u8]) -> ProxyError {
    let error = exchange(proxy_url, answer).result.unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.len() > 15 && !sentence.ends_with('.'),
        "{sentence}"
    );
    assert!(!sentence.contains(char::is_control), "{sentence:?}");
    error
}

mod http {
    use super::*;

    const PROXY: &str = "http://h:3128";

    /// A CONNECT for `target`, through the proxy of this URL.
    fn request(proxy_url: &str, target: TunnelTarget<'_>) -> String {
        let mut out = b"before ".to_vec();
        Tunnel::new(&proxy(proxy_url), target, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("before ").unwrap().to_owned()
    }

    #[test]
    fn requests_name_host_and_port() {
        let cases = [
            ("wss://Server.Example/path?query", "server.example:443"),
            ("ws://user:secret@server.example", "server.example:80"),
            ("ws://server.example.:8080", "server.example.:8080"),
            ("ws://192.0.2.1", "192.0.2.1:80"),
            ("wss://[2001:DB8::1]", "[2001:db8::1]:443"),
        ];
        for (server, authority) in cases {
            let expected = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            assert_eq!(request(PROXY, TunnelTarget::Url(&url(server))), expected);
        }
        // The scope of a link-local address means nothing to the proxy.
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 7, 3);
        let text = request(PROXY, TunnelTarget::Address(scoped.into()));
        assert!(
            text.starts_with("CONNECT [fe80::1]:443 HTTP/1.1\r\n"),
            "{text}"
        );
        let text = request(PROXY, TunnelTarget::Address(([192, 0, 2, 1], 80).into()));
        assert!(
            text.starts_with("CONNECT 192.0.2.1:80 HTTP/1.1\r\n"),
            "{text}"
        );
    }

    #[test]
    fn credentials_go_to_the_proxy_and_the_servers_do_not() {
        let server = url("ws://user:secret@s");
        let text = request("http://Aladdin:open%20sesame@h", TunnelTarget::Url(&server));
        let expected = "CONNECT s:80 HTTP/1.1\r\n\
            Host: s:80\r\n\
            Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\
            \r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn any_2xx_opens_the_tunnel_whatever_its_headers_say() {
        for answer in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n",
            "HTTP/1.1 299\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            let outcome = exchange(PROXY, answer.as_bytes());
            assert_eq!(outcome.result, Ok(()), "{answer}");
            assert!(outcome.written.is_empty());
        }
    }

    #[test]
    fn an_open_tunnel_consumes_nothing() {
        let (mut tunnel, mut out) = start(PROXY, "ws://s");
        let written = out.len();
        tunnel
            .receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut out)
            .unwrap();
        for input in [BEHIND, b""] {
            let received = tunnel.receive(input, &mut out).unwrap();
            assert_eq!((received.consumed, received.done), (0, true));
        }
        assert_eq!(out.len(), written);
    }

    #[test]
    fn other_answers_are_refusals_with_all_they_say() {
        for status in [
            101, 300, 302, 400, 403, 404, 405, 429, 500, 502, 503, 504, 999,
        ] {
            let answer = format!(
                "HTTP/1.1 {status} Not \u{9b}today\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"
            );
            match failure(PROXY, answer.as_bytes()) {
                ProxyError::Refused(refusal) => {
                    assert_eq!(refusal.status, status);
                    assert_eq!(&*refusal.reason, "Not \u{9b}today");
                    assert_eq!(refusal.headers.first("retry-after"), Some("7"));
                }
                other => panic!("{status}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_proxy_that_wants_credentials_is_told_apart() {
        let answer = b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        for proxy_url in [PROXY, "http://u:p@h"] {
            match failure(proxy_url, answer) {
                ProxyError::AuthenticationRequired(refusal) => {
                    assert_eq!(refusal.status, 407);
                    let challenge = refusal.headers.first("Proxy-Authenticate");
                    assert_eq!(challenge, Some("Basic realm=\"x\""));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn malformed_answers() {
        let table = [
            ("SSH-2.0-OpenSSH_9.6\r\n", MalformedHead::StartLine),
            ("\x05\x00", MalformedHead::StartLine),
            ("\x15\x03\x01", MalformedHead::StartLine),
            ("HTTP/2.0 200 OK\r\n\r\n", MalformedHead::Version),
            ("HTTP/1.1 200 OK\n\n", MalformedHead::BareLineFeed),
            ("HTTP/1.1 200 OK\r\nA b\r\n\r\n", MalformedHead::NoColon),
        ];
        for (answer, expected) in table {
            let error = failure(PROXY, answer.as_bytes());
            assert_eq!(error, ProxyError::Malformed(expected), "{answer:?}");
        }
    }

    #[test]
    fn pitfall_07_an_endless_head_meets_its_limit() {
        let limit = |answer: &str| feed(PROXY, &[answer.as_bytes()], 0).result.unwrap_err();
        let long = format!("HTTP/1.1 200 {}", "x".repeat(MAX_HEAD_BYTES));
        let too_long = HeadLimit::HeaderBytes(MAX_HEAD_BYTES);
        assert_eq!(limit(&long), ProxyError::Limit(too_long));
        let many = format!("HTTP/1.1 200 X\r\n{}", "A:\r\n".repeat(MAX_HEADERS + 1));
        let too_many = HeadLimit::HeaderCount(MAX_HEADERS);
        assert_eq!(limit(&many), ProxyError::Limit(too_many));
        let interim = "HTTP/1.1 102 X\r\n\r\n".repeat(MAX_INTERIM_HEADS);
        let opens = format!("{interim}HTTP/1.1 200 X\r\n\r\n");
        assert_eq!(exchange(PROXY, opens.as_bytes()).result, Ok(()));
        let endless = format!("{interim}HTTP/1.1 102 X\r\n\r\n");
        let too_many = HeadLimit::InterimHeads(MAX_INTERIM_HEADS);
        assert_eq!(limit(&endless), ProxyError::Limit(too_many));
    }

    #[test]
    fn an_answer_that_breaks_off() {
        let answer = b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        for received in 0..answer.len() {
            for chunk in [1, 20, 100] {
                let pieces: Vec<&[u8]> = answer[..received].chunks(chunk).collect();
                let outcome = feed(PROXY, &pieces, 0);
                assert_eq!(outcome.result, Err(ProxyError::Incomplete { received }));
            }
        }
    }
}

mod socks {
    use super::*;

    const OPEN: &str = "socks5h://h";
    const LOGIN: &str = "socks5h://me:pass@h";

    /// What is written once the proxy is content: connect to server.example, port 443.
    const REQUEST: &[u8] = b"\x05\x01\x00\x03\x0eserver.example\x01\xbb";
    const CREDENTIALS: &[u8] = b"\x01\x02me\x04pass";
    /// A reply of success with an IPv4 address.
    const SUCCESS: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";

    /// The request for the connection as it leaves.
    fn request(target: TunnelTarget<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut tunnel = Tunnel::new(&proxy(OPEN), target, &mut out);
        assert_eq!(out, b"\x05\x01\x00");
        out.clear();
        tunnel.receive(b"\x05\x00", &mut out).unwrap();
        out
    }

    #[test]
    fn requests_for_names_and_addresses() {
        let name = format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "b".repeat(61));
        assert_eq!(name.len(), 254, "the longest that a URL takes");
        let long = [b"\x05\x01\x00\x03\xfe", name.as_bytes(), b"\x1f\x90"].concat();
        let server = url(&format!("ws://{name}:8080"));
        assert_eq!(request(TunnelTarget::Url(&server)), long);

        let v4 = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50";
        assert_eq!(request(TunnelTarget::Url(&url("ws://192.0.2.1"))), v4);
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(request(TunnelTarget::Address(address)), v4);

        let v6 = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb";
        assert_eq!(request(TunnelTarget::Url(&url("wss://[2001:db8::1]"))), v6);
        let address = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(request(TunnelTarget::Address(address)), v6);
    }

    #[test]
    fn greetings_offer_what_there_are_credentials_for() {
        assert_eq!(start(OPEN, "ws://s").1, b"\x05\x01\x00");
        assert_eq!(start(LOGIN, "ws://s").1, b"\x05\x02\x00\x02");
    }

    #[test]
    fn tunnels_with_every_type_of_bound_address() {
        let name = |length: u8| {
            let name = vec![b'x'; usize::from(length)];
            [&[3, length], name.as_slice()].concat()
        };
        let addresses = [
            b"\x01\x7f\x00\x00\x01".to_vec(),
            [b"\x04".as_slice(), &[0xff; 16]].concat(),
            name(0),
            name(1),
            name(14),
            name(255),
        ];
        for address in addresses {
            let reply = [b"\x05\x00\x00".as_slice(), &address, b"\x04\x38"].concat();
            let plain = [b"\x05\x00", reply.as_slice()].concat();
            for proxy_url in [OPEN, LOGIN] {
                let outcome = exchange(proxy_url, &plain);
                assert_eq!(
                    (outcome.written.as_slice(), outcome.result),
                    (REQUEST, Ok(()))
                );
            }
            let with_login = [b"\x05\x02\x01\x00", reply.as_slice()].concat();
            let outcome = exchange(LOGIN, &with_login);
            assert_eq!(outcome.written, [CREDENTIALS, REQUEST].concat());
            assert_eq!(outcome.result, Ok(()));
        }
    }

    /// Each message leaves as soon as the byte before it has come, and no earlier.
    #[test]
    fn messages_in_their_turn() {
        let (mut tunnel, _) = start(LOGIN, "wss://server.example");
        let answers = [b"\x05\x02\x01\x00", SUCCESS].concat();
        for (index, byte) in answers.iter().enumerate() {
            let mut out = Vec::new();
            let received = tunnel.receive(&[*byte], &mut out).unwrap();
            let expected: &[u8] = match index {
                1 => CREDENTIALS,
                3 => REQUEST,
                _ => b"",
            };
            assert_eq!(out, expected, "after byte {index}");
            assert_eq!(received.done, index + 1 == answers.len());
        }
        let mut out = Vec::new();
        let received = tunnel.receive(BEHIND, &mut out).unwrap();
        assert_eq!((received.consumed, received.done, out.len()), (0, true, 0));
    }

    #[test]
    fn every_reply_code() {
        let named = [
            SocksReply::GeneralFailure,
            SocksReply::NotAllowed,
            SocksReply::NetworkUnreachable,
            SocksReply::HostUnreachable,
            SocksReply::ConnectionRefused,
            SocksReply::TtlExpired,
            SocksReply::CommandNotSupported,
            SocksReply::AddressTypeNotSupported,
        ];
        for code in 1..=255u8 {
            let expected = match named.get(usize::from(code) - 1) {
                Some(reply) => *reply,
                None => SocksReply::Unassigned(code),
            };
            // With and without the rest of the reply.
            for rest in [b"\x00\x01\0\0\0\0\0\0".as_slice(), b""] {
                let answer = [b"\x05\x00\x05", [code].as_slice(), rest].concat();
                assert_eq!(
                    failure(OPEN, &answer),
                    ProxyError::Socks(expected),
                    "{code}"
                );
            }
        }
    }

    #[test]
    fn methods_of_authentication() {
        for method in 0..=255u8 {
            let answer = [&[5, method], SUCCESS].concat();
            for (proxy_url, offered) in [(OPEN, &[0][..]), (LOGIN, &[0, 2])] {
                if offered.contains(&method) {
                    continue;
                }
                let expected = match method {
                    0xff => ProxyError::NoAcceptableMethod,
                    _ => SocksViolation::MethodNotOffered(method).into(),
                };
                let outcome = exchange(proxy_url, &answer);
                assert_eq!(outcome.result, Err(expected));
                assert!(
                    outcome.written.is_empty(),
                    "no credentials for method {method}"
                );
            }
        }
    }

    #[test]
    fn credentials_that_are_not_accepted() {
        for status in 1..=255u8 {
            let outcome = exchange(LOGIN, &[5, 2, 1, status]);
            assert_eq!(outcome.result, Err(ProxyError::LoginFailed { status }));
            assert_eq!(outcome.written, CREDENTIALS, "and no request");
        }
    }

    /// Every value of every byte that has one right value or a few.
    #[test]
    fn malformed_answers() {
        use SocksViolation as V;
        /// Stands for the byte in question.
        type Case<'a> = (&'a [u8], &'a [u8], fn(u8) -> V);
        let cases: [Case<'_>; 5] = [
            (b"", &[5], V::Version),
            (b"\x05\x02", &[1], V::LoginVersion),
            (b"\x05\x00", &[5], V::Version),
            (b"\x05\x00\x05\x00", &[0], V::Reserved),
            (b"\x05\x00\x05\x00\x00", &[1, 3, 4], V::AddressType),
        ];
        for (before, right, violation) in cases {
            for byte in (0..=255u8).filter(|byte| !right.contains(byte)) {
                let answer = [before, &[byte]].concat();
                let expected = ProxyError::Misbehaved(violation(byte));
                assert_eq!(failure(LOGIN, &answer), expected, "{answer:?}");
            }
        }
    }

    #[test]
    fn an_answer_that_breaks_off() {
        let answer = [b"\x05\x02\x01\x00", SUCCESS].concat();
        for received in 0..answer.len() {
            let pieces: Vec<&[u8]> = answer[..received].chunks(3).collect();
            let outcome = feed(LOGIN, &pieces, 0);
            let error = ProxyError::Incomplete { received };
            assert!(!error.to_string().is_empty());
            assert_eq!(outcome.result, Err(error));
        }
    }
}

#[test]
fn secrets_stay_out_of_sight() {
    for proxy_url in ["http://Aladdin:sesame@h", "socks5://Aladdin:sesame@h"] {
        let (tunnel, _) = start(proxy_url, "ws://s");
        let shown = format!("{tunnel:?}");
        for secret in ["Aladdin", "sesame", "QWxh", "65, 108, 97", "81, 87, 120"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
