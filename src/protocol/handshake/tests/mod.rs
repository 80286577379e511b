//! The whole handshake: both sides against each other at every split point, refusals, limits.
//! The table of unusual and hostile answers is in `answers`, faults of other clients in `pitfalls`.

mod answers;
mod pitfalls;

use super::*;
use crate::protocol::http::{HeadLimit, MAX_HEADERS, MalformedHead};
use crate::protocol::url::Url;

/// RFC 6455 §1.3: this nonce, its key and the accept value belong together.
const NONCE: [u8; 16] = *b"the sample nonce";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const STATUS: &str = "HTTP/1.1 101 Switching Protocols";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const PROOF: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const USUAL: &[&str] = &[STATUS, UPGRADE, CONNECTION, PROOF];

/// A head of these lines, each ended with CRLF, and the blank line.
fn head(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\r\n");
    text.push_str("\r\n\r\n");
    text.into_bytes()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a client offers in these tests.
#[derive(Clone, Copy, Default)]
struct Offer {
    subprotocols: &'static [&'static str],
    extensions: Option<&'static str>,
}

const NOTHING: Offer = Offer {
    subprotocols: &[],
    extensions: None,
};
const CHAT: Offer = Offer {
    subprotocols: &["chat", "superchat"],
    extensions: None,
};
const DEFLATE: Offer = Offer {
    subprotocols: &[],
    extensions: Some("permessage-deflate; client_max_window_bits"),
};

fn client(offer: Offer, limits: HandshakeLimits) -> ClientHandshake {
    let url = Url::parse("ws://server.example.com/chat").unwrap();
    let subprotocols = strings(offer.subprotocols);
    let request = RequestHead {
        subprotocols: &subprotocols,
        extensions: offer.extensions,
        ..RequestHead::new(&url)
    };
    ClientHandshake::new(&request, NONCE, limits, &mut Vec::new()).unwrap()
}

/// Feeds the bytes in pieces and ends the stream behind them. Returns the response with the number
/// of bytes consumed, or the error.
fn answer_in_pieces(
    offer: Offer,
    limits: HandshakeLimits,
    bytes: &[u8],
    chunk: usize,
) -> Result<(Response, usize), HandshakeError> {
    let mut handshake = client(offer, limits);
    let mut consumed = 0;
    for piece in bytes.chunks(chunk) {
        let received = match handshake.receive(piece) {
            Ok(received) => received,
            Err(error) => {
                assert_eq!(
                    handshake.receive(b"more"),
                    Err(error.clone()),
                    "the first error sticks"
                );
                assert_eq!(handshake.finish(), error);
                return Err(error);
            }
        };
        consumed += received.consumed;
        if let Some(response) = received.response {
            let after = handshake.receive(b"frames").unwrap();
            assert_eq!(
                after,
                Received {
                    consumed: 0,
                    response: None
                }
            );
            return Ok((response, consumed));
        }
        assert_eq!(received.consumed, piece.len());
    }
    Err(handshake.finish())
}

/// Feeds the bytes at once, and checks that the pieces they arrive in make no difference.
fn answer(offer: Offer, bytes: &[u8]) -> Result<(Response, usize), HandshakeError> {
    let limits = HandshakeLimits::default();
    let at_once = answer_in_pieces(offer, limits, bytes, bytes.len().max(1));
    for chunk in [1, 2, 3, 7, 64] {
        assert_eq!(
            answer_in_pieces(offer, limits, bytes, chunk),
            at_once,
            "pieces of {chunk}"
        );
    }
    at_once
}

#[test]
fn refusals_are_reported_whole() {
    let rejection = |lines: &[&str], body: &str| {
        let bytes = [head(lines), body.as_bytes().to_vec()].concat();
        match answer(NOTHING, &bytes) {
            Err(HandshakeError::Rejected(rejection)) => *rejection,
            other => panic!("{lines:?}: {other:?}"),
        }
    };
    let moved = rejection(
        &[
            "HTTP/1.1 301 Moved Permanently",
            "Location: wss://new.example/ws",
            "Content-Length: 0",
        ],
        "",
    );
    assert_eq!(
        moved.headers.first("location"),
        Some("wss://new.example/ws")
    );
    assert_eq!(
        (moved.status, &*moved.reason, moved.body.len()),
        (301, "Moved Permanently", 0)
    );

    let challenge = rejection(
        &[
            "HTTP/1.1 401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"a, b\"",
            "WWW-Authenticate: Bearer",
        ],
        "who are you",
    );
    assert!(
        challenge
            .headers
            .all("www-authenticate")
            .eq(["Basic realm=\"a, b\"", "Bearer"])
    );
    assert_eq!(challenge.body, b"who are you");

    let slow_down = rejection(
        &[
            "HTTP/1.1 429 Too Many Requests",
            "Retry-After: 17",
            "Content-Length: 4",
        ],
        "slow and more than declared",
    );
    assert_eq!(slow_down.headers.first("Retry-After"), Some("17"));
    assert_eq!(slow_down.body, b"slow");

    let chunked = rejection(
        &[
            "HTTP/1.1 503 Service Unavailable",
            "Transfer-Encoding: chunked",
        ],
        "4\r\nback\r\n5;a=b\r\n soon\r\n0\r\n\r\n",
    );
    assert_eq!(chunked.body, b"back soon");

    let upgrade_required = rejection(
        &[
            "HTTP/1.1 426 Upgrade Required",
            "Sec-WebSocket-Version: 13, 8",
        ],
        "",
    );
    assert!(
        upgrade_required
            .headers
            .tokens("Sec-WebSocket-Version")
            .eq(["13", "8"])
    );
}

/// A refusal comes out with the byte that completes it; it does not wait for the connection to end.
#[test]
fn refusals_do_not_wait_for_more_than_they_need() {
    let declared = b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy";
    let mut handshake = client(NOTHING, HandshakeLimits::default());
    let (last, before) = declared.split_last().unwrap();
    assert!(handshake.receive(before).is_ok());
    assert!(matches!(
        handshake.receive(&[*last]),
        Err(HandshakeError::Rejected(_))
    ));

    let limits = HandshakeLimits {
        max_rejection_body: 10,
        ..HandshakeLimits::default()
    };
    let mut handshake = client(NOTHING, limits);
    let endless = [b"HTTP/1.1 403 No\r\n\r\n", [b'x'; 100_000].as_slice()].concat();
    let Err(HandshakeError::Rejected(rejection)) = handshake.receive(&endless) else {
        panic!("the limit on the body was reached");
    };
    assert_eq!(rejection.body, [b'x'; 10]);
}

#[test]
fn what_the_peer_says_cannot_steer_a_terminal() {
    let bytes = "HTTP/1.1 403 \u{9b}31mred\u{85}\r\nContent-Length: 0\r\n\r\n".as_bytes();
    let error = answer(NOTHING, bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server answered 403 (31mred) instead of 101 (RFC 6455 §4.1)"
    );
}

#[test]
fn limits_of_the_answer() {
    let limited = |limit: usize, bytes: &[u8], chunk: usize| {
        let limits = HandshakeLimits {
            max_header_bytes: limit,
            ..HandshakeLimits::default()
        };
        answer_in_pieces(NOTHING, limits, bytes, chunk).map(|(_, consumed)| consumed)
    };
    let usual = head(USUAL);
    for chunk in 1..=usual.len() {
        assert_eq!(limited(usual.len(), &usual, chunk), Ok(usual.len()));
        let error = HandshakeError::Limit(HeadLimit::HeaderBytes(usual.len() - 1));
        assert_eq!(limited(usual.len() - 1, &usual, chunk), Err(error));
    }
    // One endless line, and endlessly many lines.
    let limits = HandshakeLimits::default();
    let line = [STATUS.as_bytes(), b"\r\nX: ", [b'x'; 20_000].as_slice()].concat();
    let error = HandshakeError::Limit(HeadLimit::HeaderBytes(limits.max_header_bytes));
    assert_eq!(answer(NOTHING, &line), Err(error));
    let mut lines = vec!["X:"; MAX_HEADERS + 2];
    lines[0] = STATUS;
    let error = HandshakeError::Limit(HeadLimit::HeaderCount(MAX_HEADERS));
    assert_eq!(answer(NOTHING, &head(&lines)), Err(error));
    // Each interim head is short; their number is limited.
    let interim = |count: usize| [b"HTTP/1.1 100 X\r\n\r\n".repeat(count), head(USUAL)].concat();
    assert!(answer(NOTHING, &interim(MAX_INTERIM_HEADS)).is_ok());
    let error = HandshakeError::Limit(HeadLimit::InterimHeads(MAX_INTERIM_HEADS));
    assert_eq!(answer(NOTHING, &interim(MAX_INTERIM_HEADS + 1)), Err(error));
}

#[test]
fn an_end_before_the_head_is_complete() {
    let bytes = head(USUAL);
    for length in 0..bytes.len() {
        let outcome = answer(NOTHING, &bytes[..length]);
        assert_eq!(
            outcome,
            Err(HandshakeError::Incomplete { received: length })
        );
    }
}

/// Every byte of a good answer replaced, removed or doubled. Nothing panics, the pieces the bytes
/// arrive in make no difference, and what still opens the connection still has the right proof.
#[test]
fn every_single_damage_to_an_answer() {
    let lines = [USUAL, &["Sec-WebSocket-Protocol: chat"]].concat();
    let bytes = head(&lines);
    let (mut opened, mut failed) = (0, 0);
    for index in 0..bytes.len() {
        let (before, behind) = (&bytes[..index], &bytes[index + 1..]);
        let byte = bytes[index];
        let damages: [&[u8]; 12] = [
            b"",
            &[byte, byte],
            &[byte ^ 0x20],
            &[byte ^ 0x80],
            b"\0",
            b"\r",
            b"\n",
            b"\r\n",
            b" ",
            b":",
            b",",
            b"\xff",
        ];
        for damage in damages {
            let damaged = [before, damage, behind].concat();
            match answer(CHAT, &damaged) {
                Ok((response, _)) => {
                    assert_eq!(response.header("Sec-WebSocket-Accept"), Some(ACCEPT));
                    assert!(response.subprotocol().is_none_or(|chosen| chosen == "chat"));
                    opened += 1;
                }
                Err(_) => failed += 1,
            }
        }
    }
    // Both happen: the case of a name may change, the proof may not.
    assert!(
        opened > 100 && failed > 1000,
        "{opened} opened, {failed} failed"
    );
}

#[test]
fn every_error_is_a_sentence() {
    use HandshakeError as E;
    use Misbehaviour as M;
    let silent = E::Incomplete { received: 0 }.to_string();
    assert_eq!(silent, "the peer did not answer the handshake");
    let errors: Vec<E> = vec![
        E::Malformed(MalformedHead::FoldedLine),
        M::AcceptWrong.into(),
        M::ExtensionsMalformed(ExtensionError::TooManyParameters).into(),
        E::Limit(HeadLimit::HeaderBytes(9)),
        E::Incomplete { received: 3 },
    ];
    let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "malformed handshake: a header line is folded (RFC 9112 §5.2)",
            "Sec-WebSocket-Accept does not match the key (RFC 6455 §4.1)",
            "Sec-WebSocket-Extensions is malformed: more than 16 parameters of one extension (RFC 6455 §9.1)",
            "the HTTP head is longer than 9 bytes",
            "the handshake broke off after 3 bytes of its head",
        ]
    );
}

fn written(request: &RequestHead<'_>) -> String {
    let mut out = b"before".to_vec();
    ClientHandshake::new(request, NONCE, HandshakeLimits::default(), &mut out).unwrap();
    String::from_utf8(out)
        .unwrap()
        .strip_prefix("before")
        .unwrap()
        .to_owned()
}

#[test]
fn the_request_stands_in_the_order_of_the_rfc() {
    let url = Url::parse("wss://Aladdin:open%20sesame@[::1]:8443/a?b=c").unwrap();
    let expected = "GET /a?b=c HTTP/1.1\r\n\
        Host: [::1]:8443\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n";
    let authorization = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    let plain = written(&RequestHead::new(&url));
    assert_eq!(plain, format!("{expected}{authorization}\r\n"));

    let headers = pairs(&[
        ("X-Api-Key", "k"),
        ("User-Agent", "me/1.0 \u{fc}"),
        ("X-Api-Key", "l"),
    ]);
    let subprotocols = strings(&["chat", "superchat"]);
    let full = RequestHead {
        headers: &headers,
        subprotocols: &subprotocols,
        origin: Some("https://example.com"),
        extensions: Some("permessage-deflate"),
        ..RequestHead::new(&url)
    };
    let rest = format!(
        "Origin: https://example.com\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\
         {authorization}\
         X-Api-Key: k\r\nUser-Agent: me/1.0 \u{fc}\r\nX-Api-Key: l\r\n\r\n"
    );
    assert_eq!(written(&full), format!("{expected}{rest}"));
}

#[test]
fn host_origin_and_authorization_may_be_replaced() {
    let url = Url::parse("ws://u:p@10.0.0.1/").unwrap();
    let headers = pairs(&[
        ("authorization", "Bearer t"),
        ("host", "h.example"),
        ("ORIGIN", "null"),
    ]);
    let request = RequestHead {
        headers: &headers,
        origin: Some("http://o"),
        ..RequestHead::new(&url)
    };
    let text = written(&request);
    assert!(
        text.starts_with("GET / HTTP/1.1\r\nHost: h.example\r\nUpgrade"),
        "{text}"
    );
    for (name, line) in [
        ("host:", "Host: h.example"),
        ("origin:", "Origin: null"),
        ("authorization:", "Authorization: Bearer t"),
    ] {
        assert_eq!(text.to_ascii_lowercase().matches(name).count(), 1, "{text}");
        assert!(text.contains(line), "{text}");
    }
    let twice = pairs(&[("Host", "a"), ("host", "b")]);
    let request = RequestHead {
        headers: &twice,
        ..RequestHead::new(&url)
    };
    assert_eq!(request.validate(), Err(HeaderError::Repeated("Host")));
}

#[test]
fn both_sides_agree_at_every_split() {
    let url = Url::parse("ws://server.example.com:81/chat?x=1").unwrap();
    let subprotocols = strings(&["chat", "superchat"]);
    let headers = pairs(&[("Cookie", "a=b")]);
    let request = RequestHead {
        headers: &headers,
        subprotocols: &subprotocols,
        origin: Some("http://example.com"),
        extensions: DEFLATE.extensions,
        ..RequestHead::new(&url)
    };
    let limits = HandshakeLimits::default();
    let mut wire = Vec::new();
    ClientHandshake::new(&request, NONCE, limits, &mut wire).unwrap();
    let length = wire.len();
    wire.extend_from_slice(b"frame");

    let mut answers = Vec::new();
    for split in 0..=length {
        let mut server = ServerHandshake::new(limits);
        let first = server.receive(&wire[..split]).unwrap();
        assert_eq!(
            (first.consumed, first.request.is_some()),
            (split, split == length)
        );
        let request = match first.request {
            Some(request) => request,
            None => {
                let second = server.receive(&wire[split..]).unwrap();
                assert_eq!(first.consumed + second.consumed, length);
                second.request.unwrap()
            }
        };
        assert_eq!(request.target(), "/chat?x=1");
        assert_eq!(
            request.headers().first("Host"),
            Some("server.example.com:81")
        );
        assert_eq!(request.headers().first("cookie"), Some("a=b"));
        assert!(request.subprotocols().eq(["chat", "superchat"]));
        assert!(request.extensions().eq(DEFLATE.extensions));
        let mut out = Vec::new();
        let answer = Answer {
            subprotocol: Some("superchat"),
            extensions: Some("permessage-deflate"),
            headers: &pairs(&[("X-Served-By", "a")]),
        };
        request.write_response(&answer, &mut out).unwrap();
        answers.push(out);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));

    let bytes = &answers[0];
    for split in 0..bytes.len() {
        let mut handshake = ClientHandshake::new(&request, NONCE, limits, &mut Vec::new()).unwrap();
        let first = handshake.receive(&bytes[..split]).unwrap();
        assert_eq!(
            first,
            Received {
                consumed: split,
                response: None
            }
        );
        let response = handshake
            .receive(&bytes[split..])
            .unwrap()
            .response
            .unwrap();
        assert_eq!(
            (response.status(), response.reason()),
            (101, "Switching Protocols")
        );
        assert_eq!(response.subprotocol(), Some("superchat"));
        assert_eq!(response.extensions(), Some("permessage-deflate"));
        assert_eq!(response.header("x-served-by"), Some("a"));
        assert_eq!(response.headers().len(), 6);
    }
}

#[test]
fn the_server_refuses_what_is_no_upgrade() {
    use Misbehaviour as M;
    let right = [
        "GET / HTTP/1.1",
        "Host: h",
        "Upgrade: h2c, WebSocket",
        "Connection: keep-alive, upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Extensions: x",
        "Sec-WebSocket-Extensions: y",
    ];
    let receive = |lines: &[&str]| {
        ServerHandshake::new(HandshakeLimits::default())
            .receive(&head(lines))
            .map(|_| ())
    };
    assert_eq!(receive(&right), Ok(()));
    // Which line is replaced, by what, and the outcome. Replaced by "A: b" it is missing.
    let table = [
        (0, "POST / HTTP/1.1", M::MethodNotGet),
        (0, "get / HTTP/1.1", M::MethodNotGet),
        (0, "GET / HTTP/1.0", M::HttpVersion),
        (1, "A: b", M::HostMissing),
        (7, "Host: h", M::HostMissing),
        (2, "A: b", M::UpgradeMissing),
        (2, "Upgrade: h2c", M::UpgradeNotWebsocket),
        (3, "A: b", M::ConnectionNotUpgrade),
        (3, "Connection: close", M::ConnectionNotUpgrade),
        (4, "A: b", M::KeyInvalid),
        (
            7,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            M::KeyInvalid,
        ),
        (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", M::KeyInvalid),
        (
            4,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSEh",
            M::KeyInvalid,
        ),
        (
            4,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==",
            M::KeyInvalid,
        ),
        (4, "Sec-WebSocket-Key: ....", M::KeyInvalid),
        (5, "A: b", M::VersionUnsupported),
        (5, "Sec-WebSocket-Version: 8", M::VersionUnsupported),
        (5, "Sec-WebSocket-Version: 13, 8", M::VersionUnsupported),
        (6, "Sec-WebSocket-Protocol: a, a", M::SubprotocolsInvalid),
        (6, "Sec-WebSocket-Protocol: ,", M::SubprotocolsInvalid),
        (6, "Sec-WebSocket-Protocol: a b", M::SubprotocolsInvalid),
        (
            8,
            "Sec-WebSocket-Extensions: y;",
            M::ExtensionsMalformed(ExtensionError::NotToken),
        ),
    ];
    for (index, line, expected) in table {
        let mut lines = right;
        lines[index] = line;
        assert_eq!(receive(&lines), Err(expected.into()), "{line}");
    }
    let mut lines = right;
    lines[0] = "GET / HTTP/2.0";
    assert_eq!(
        receive(&lines),
        Err(HandshakeError::Malformed(MalformedHead::Version))
    );
}

#[test]
fn a_refusal_by_our_server_reaches_our_client() {
    let mut out = Vec::new();
    let headers = pairs(&[("Retry-After", "5")]);
    write_rejection(503, "Busy", &headers, b"later", &mut out).unwrap();
    let Err(HandshakeError::Rejected(rejection)) = answer(NOTHING, &out) else {
        panic!("a refusal is an error");
    };
    assert_eq!((rejection.status, &*rejection.reason), (503, "Busy"));
    assert_eq!(rejection.headers.first("retry-after"), Some("5"));
    assert_eq!(rejection.body, b"later");
    for (reason, headers) in [
        ("a\r\nb", pairs(&[])),
        ("a", pairs(&[("Content-Length", "9")])),
    ] {
        let before = out.len();
        assert!(write_rejection(503, reason, &headers, b"", &mut out).is_err());
        assert_eq!(out.len(), before);
    }
}

/// The memory test of the parser, seen from outside: what a handshake holds before anything arrives.
#[test]
fn a_waiting_handshake_is_small() {
    assert!(
        size_of::<ClientHandshake>() <= 256,
        "{}",
        size_of::<ClientHandshake>()
    );
    assert!(
        size_of::<HandshakeError>() <= 32,
        "{}",
        size_of::<HandshakeError>()
    );
}

#[test]
fn the_sample_of_the_rfc() {
    assert_eq!(
        accept_for(KEY.as_bytes().try_into().unwrap()),
        *ACCEPT.as_bytes()
    );
}
