//! Faults that other clients shipped, by the numbers of our list of them.

use super::*;

#[test]
fn pitfall_07_an_answer_in_single_bytes_costs_one_look_at_each() {
    // Four megabytes of head: rescanning from the start would look at 8 * 10^12 bytes.
    const LENGTH: usize = 4_000_000;
    let mut lines = USUAL.to_vec();
    let long = format!("X: {}", "x".repeat(LENGTH));
    lines.insert(1, &long);
    let limits = HandshakeLimits {
        max_header_bytes: 2 * LENGTH,
        ..HandshakeLimits::default()
    };
    let (response, _) = answer_in_pieces(NOTHING, limits, &head(&lines), 1).unwrap();
    assert_eq!(response.header("x").map(str::len), Some(LENGTH));
}

#[test]
fn pitfall_17_accept_is_checked_and_connection_is_a_list_of_tokens() {
    // Every single character of the right value matters.
    for index in 0..ACCEPT.len() {
        let mut wrong = ACCEPT.as_bytes().to_vec();
        wrong[index] = if wrong[index] == b'A' { b'B' } else { b'A' };
        let line = format!("Sec-WebSocket-Accept: {}", str::from_utf8(&wrong).unwrap());
        let outcome = answer(NOTHING, &head(&[STATUS, UPGRADE, CONNECTION, &line]));
        assert_eq!(outcome, Err(Misbehaviour::AcceptWrong.into()), "{line}");
    }
    // And the value depends on the nonce.
    let url = Url::parse("ws://h").unwrap();
    let request = RequestHead::new(&url);
    let limits = HandshakeLimits::default();
    let mut other = ClientHandshake::new(&request, [0; 16], limits, &mut Vec::new()).unwrap();
    assert_eq!(
        other.receive(&head(USUAL)),
        Err(Misbehaviour::AcceptWrong.into())
    );
    for connection in [
        "keep-alive, Upgrade",
        "UPGRADE",
        "upgrade,close",
        "a ,\tuPgRaDe\t, b",
    ] {
        let line = format!("Connection: {connection}");
        assert!(
            answer(NOTHING, &head(&[STATUS, UPGRADE, &line, PROOF])).is_ok(),
            "{line}"
        );
    }
}

#[test]
fn pitfall_18_nothing_the_user_supplies_breaks_out_of_its_line() {
    let url = Url::parse("ws://h").unwrap();
    let evil = ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "\u{7f}", "a\u{85}b"];
    for text in evil {
        assert!(Url::parse(&format!("ws://h/{text}")).is_err());
        assert_eq!(
            validate_header("X", text),
            Err(HeaderError::Value),
            "{text:?}"
        );
        assert_eq!(
            validate_header(text, "x"),
            Err(HeaderError::Name),
            "{text:?}"
        );
        let headers = pairs(&[("Host", text)]);
        let subprotocols = strings(&[text]);
        let plain = RequestHead::new(&url);
        for (request, expected) in [
            (
                RequestHead {
                    headers: &headers,
                    ..plain
                },
                HeaderError::Value,
            ),
            (
                RequestHead {
                    origin: Some(text),
                    ..plain
                },
                HeaderError::Value,
            ),
            (
                RequestHead {
                    subprotocols: &subprotocols,
                    ..plain
                },
                HeaderError::Subprotocols,
            ),
            (
                RequestHead {
                    extensions: Some(text),
                    ..plain
                },
                HeaderError::Extensions,
            ),
        ] {
            let mut out = Vec::new();
            let limits = HandshakeLimits::default();
            let outcome = ClientHandshake::new(&request, NONCE, limits, &mut out);
            assert_eq!(outcome.err(), Some(expected), "{text:?}");
            assert!(out.is_empty(), "nothing is written when something is wrong");
        }
    }
    for name in ["", " ", "a b", "a:", "ä", "(a)"] {
        assert_eq!(
            validate_header(name, "x"),
            Err(HeaderError::Name),
            "{name:?}"
        );
    }
    for name in [
        "Connection",
        "UPGRADE",
        "Content-Length",
        "transfer-encoding",
        "Sec-WebSocket-Key",
        "sec-websocket-anything",
    ] {
        assert_eq!(
            validate_header(name, "x"),
            Err(HeaderError::Owned),
            "{name}"
        );
    }
    for (name, value) in [
        ("Host", "a:1"),
        ("Cookie", "a=b; c"),
        ("X", ""),
        ("X", "\ta ü"),
        ("Sec-Other", "x"),
    ] {
        assert_eq!(validate_header(name, value), Ok(()), "{name}: {value}");
    }
    for bad in [&["a b"][..], &[""], &["a", "a"], &["a,b"]] {
        let subprotocols = strings(bad);
        let request = RequestHead {
            subprotocols: &subprotocols,
            ..RequestHead::new(&url)
        };
        assert_eq!(
            request.validate(),
            Err(HeaderError::Subprotocols),
            "{bad:?}"
        );
    }
}

#[test]
fn pitfall_19_a_subprotocol_must_be_offered_and_single() {
    for (answers, expected) in [
        (
            &["Sec-WebSocket-Protocol: mqtt"][..],
            Misbehaviour::SubprotocolNotOffered,
        ),
        (
            &["Sec-WebSocket-Protocol: chat, superchat"],
            Misbehaviour::SubprotocolRepeated,
        ),
        (
            &[
                "Sec-WebSocket-Protocol: chat",
                "Sec-WebSocket-Protocol: chat",
            ],
            Misbehaviour::SubprotocolRepeated,
        ),
        (
            &[
                "Sec-WebSocket-Protocol: chat",
                "Sec-WebSocket-Protocol: superchat",
            ],
            Misbehaviour::SubprotocolRepeated,
        ),
    ] {
        let lines = [USUAL, answers].concat();
        assert_eq!(
            answer(CHAT, &head(&lines)).unwrap_err(),
            expected.into(),
            "{answers:?}"
        );
    }
    let lines = [USUAL, &["Sec-WebSocket-Protocol: chat"]].concat();
    let (response, _) = answer(CHAT, &head(&lines)).unwrap();
    assert_eq!(response.subprotocol(), Some("chat"));
}

#[test]
fn pitfall_20_frames_right_behind_the_head_neither_count_nor_get_lost() {
    let mut bytes = head(USUAL);
    let length = bytes.len();
    bytes.extend_from_slice(&[b'\n'; 100_000]);
    let limits = HandshakeLimits {
        max_header_bytes: length,
        ..HandshakeLimits::default()
    };
    for chunk in [1, length - 1, length, length + 1, bytes.len()] {
        let (_, consumed) = answer_in_pieces(NOTHING, limits, &bytes, chunk).unwrap();
        assert_eq!(consumed, length, "pieces of {chunk}");
    }
    // A head without its end is limited all the same, in whatever pieces it arrives.
    let endless = [STATUS.as_bytes(), [b'x'; 100_000].as_slice()].concat();
    let error = HandshakeError::Limit(HeadLimit::HeaderBytes(length));
    for chunk in [1, length, length + 1, endless.len()] {
        let outcome = answer_in_pieces(NOTHING, limits, &endless, chunk);
        assert_eq!(outcome, Err(error.clone()), "pieces of {chunk}");
    }
}
