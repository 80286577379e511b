//! Both renderings of every kind, and of what a hostile peer could put into them.

use super::super::event::Frame;
use super::super::kind::{Callback, Level, Limit, Stage, Timer};
use super::*;

const ID: u64 = 5 | 3 << 32;

/// An event, its `*DBG*` line behind the name, its JSON members behind the common ones.
type Sample = (Event, &'static str, &'static str);

fn frame(opcode: u8, payload: &[u8]) -> Frame<'_> {
    Frame {
        opcode,
        fin: true,
        compressed: false,
        length: payload.len() as u64,
        payload,
    }
}

/// One event of each kind, in the order of the kinds.
fn samples() -> impl Iterator<Item = Sample> {
    connecting()
        .into_iter()
        .chain(per_message())
        .chain(closing())
        .chain(the_rest())
}

fn connecting() -> Vec<Sample> {
    vec![
        (
            Event::connect_queued(1, ID, 12, "example.com:443"),
            "waiting to connect to example.com:443 (number 12 in the queue)",
            r#""waiting":12,"server":"example.com:443""#,
        ),
        (
            Event::connecting(1, ID, 1, "example.com:443"),
            "attempting to connect to example.com:443 (attempt 1)",
            r#""attempt":1,"server":"example.com:443""#,
        ),
        (
            Event::resolved(1, ID, 2, "192.0.2.1:443"),
            "resolved the name to 2 addresses, first 192.0.2.1:443",
            r#""addresses":2,"address":"192.0.2.1:443""#,
        ),
        (
            Event::tcp_connecting(1, ID, "192.0.2.1:443"),
            "opening a TCP connection to 192.0.2.1:443",
            r#""address":"192.0.2.1:443""#,
        ),
        (
            Event::tcp_connected(1, ID, "192.0.2.1:443"),
            "opened the TCP connection to 192.0.2.1:443",
            r#""address":"192.0.2.1:443""#,
        ),
        (
            Event::proxy_connected(1, ID, "proxy:1080"),
            "reached the server through the proxy proxy:1080",
            r#""proxy":"proxy:1080""#,
        ),
        (
            Event::tls_resumed(1, ID, 0x0304, "http/1.1"),
            "resumed TLS 1.3: http/1.1",
            r#""version":"TLS 1.3","resumed":true,"negotiated":"http/1.1""#,
        ),
        (
            Event::tls_alert_received(1, ID, 40, "handshake failure"),
            "received TLS alert 40: handshake failure",
            r#""alert":40,"received":true,"description":"handshake failure""#,
        ),
        (
            Event::upgrading(1, ID, "example.com"),
            "sent the upgrade request to example.com",
            r#""server":"example.com""#,
        ),
        (
            Event::connected(1, ID, 1, "permessage-deflate"),
            "successfully connected (epoch 1): permessage-deflate",
            r#""epoch":1,"agreed":"permessage-deflate""#,
        ),
        (
            Event::connect_failed(1, ID, Stage::Upgrade, Some(429), "refused"),
            "failed to connect at stage upgrade (HTTP 429): refused",
            r#""stage":"upgrade","status":429,"error":"refused""#,
        ),
        (
            Event::reconnect_scheduled(1, ID, 1_500_000_000, "refused"),
            "reconnecting in 1.5s: refused",
            r#""delay_ns":1500000000,"reason":"refused""#,
        ),
        (
            Event::reconnecting(1, ID, 2, "example.com:443"),
            "attempting to reconnect to example.com:443 (attempt 2)",
            r#""attempt":2,"server":"example.com:443""#,
        ),
        (
            Event::reconnected(1, ID, 2, ""),
            "successfully reconnected (epoch 2)",
            r#""epoch":2,"agreed":"""#,
        ),
    ]
}

fn per_message() -> Vec<Sample> {
    vec![
        (
            Event::frame_received(1, ID, frame(1, b"hello")),
            r#"received frame: text (5 B): "hello""#,
            r#""opcode":"text","fin":true,"compressed":false,"length":5,"payload_text":"hello""#,
        ),
        (
            Event::fragmented_completed(1, ID, frame(2, b"\x00\xff")),
            "completed fragmented frame: binary (2 B): 00ff",
            r#""opcode":"binary","fin":true,"compressed":false,"length":2,"payload_hex":"00ff""#,
        ),
        (
            Event::cast_received(1, ID, "subscribe"),
            "received cast msg: subscribe",
            r#""label":"subscribe""#,
        ),
        (
            Event::replying(1, ID, Callback::OnMessage, frame(1, b"ok")),
            r#"replying from on_message with text (2 B): "ok""#,
            r#""callback":"on_message","opcode":"text","fin":true,"compressed":false,"length":2,"payload_text":"ok""#,
        ),
        (
            Event::frame_sent(1, ID, frame(9, b"42")),
            r#"sending frame: ping (2 B): "42""#,
            r#""opcode":"ping","fin":true,"compressed":false,"length":2,"payload_hex":"3432""#,
        ),
        (
            Event::handler_timer_fired(1, ID, 7),
            "fired the handler's timer 7",
            r#""token":7"#,
        ),
    ]
}

fn closing() -> Vec<Sample> {
    vec![
        (
            Event::close_sent(1, ID, Some(1000), "bye"),
            r#"sending close frame: 1000 "bye""#,
            r#""code":1000,"reason":"bye""#,
        ),
        (
            Event::error_close_sent(1, ID, Some(1002), ""),
            "sending error close frame: 1002",
            r#""code":1002,"reason":"""#,
        ),
        (
            Event::close_received(1, ID, Some(1001), "restart"),
            r#"closing with the remote reason: 1001 "restart""#,
            r#""code":1001,"reason":"restart""#,
        ),
        (
            Event::closing_local(1, ID, None, ""),
            "closing with local reason: no code",
            r#""reason":"""#,
        ),
        (
            Event::closing_error(1, ID, Some(1007), "not UTF-8"),
            "closing due to error: not UTF-8 (close code 1007)",
            r#""code":1007,"error":"not UTF-8""#,
        ),
        (
            Event::remote_dropped(1, ID, ""),
            "had the connection closed unexpectedly by the remote server",
            r#""error":"""#,
        ),
        (
            Event::closed_cleanly(1, ID),
            "closed the connection successfully",
            "",
        ),
        (
            Event::forced_closed(1, ID),
            "forcefully closed the connection because the server was taking too long to close.",
            "",
        ),
    ]
}

fn the_rest() -> Vec<Sample> {
    vec![
        (
            Event::timer_fired(1, ID, Timer::PongDeadline),
            "fired pong_deadline",
            r#""timer":"pong_deadline""#,
        ),
        (
            Event::limit_hit(1, ID, Limit::Message, 70, 64),
            "hit the limit message: 70 where 64 is allowed",
            r#""limit":"message","value":70,"allowed":64"#,
        ),
        (
            Event::queue_high_water(1, ID, 70, 64),
            "queued 70 B of output, high-water mark 64 B",
            r#""queued_bytes":70,"mark_bytes":64"#,
        ),
        (Event::queue_drained(1, ID), "drained the output queue", ""),
        (
            Event::send_dropped(1, ID, 1, 9, "queue full"),
            "dropped an outgoing text (9 B): queue full",
            r#""opcode":"text","length":9,"reason":"queue full""#,
        ),
        (Event::reading_paused(1, ID), "paused reading", ""),
        (Event::reading_resumed(1, ID), "resumed reading", ""),
        (Event::handler_replaced(1, ID), "replaced the handler", ""),
        (
            Event::level_changed(1, ID, Level::Frames),
            "changed the trace level to frames",
            r#""level":"frames""#,
        ),
        (
            Event::handler_failed(1, ID, Callback::OnOpen, "no key"),
            "failed in on_open: no key",
            r#""callback":"on_open","error":"no key""#,
        ),
        (
            Event::handler_panicked(1, ID, Callback::OnCast, "index"),
            "panicked in on_cast: index",
            r#""callback":"on_cast","message":"index""#,
        ),
        (
            Event::restarting(1, ID, 1, 3),
            "restarting, 1 of at most 3 times",
            r#""restart":1,"allowed":3"#,
        ),
        (
            Event::abandoned(1, ID, 3, "casts"),
            "dropped 3 that waited: casts",
            r#""count":3,"what":"casts""#,
        ),
        (
            Event::terminated(1, ID, "closed"),
            "terminated: closed",
            r#""reason":"closed""#,
        ),
    ]
}

#[test]
fn every_kind_has_a_sample() {
    // `Kind::ALL` is made from the declaration itself, so a new kind fails here until it is rendered above.
    assert!(
        samples()
            .map(|(event, ..)| event.kind())
            .eq(Kind::ALL.iter().copied())
    );
}

#[test]
fn every_kind_reads_as_a_dbg_line() {
    for (event, sentence, _) in samples() {
        assert_eq!(
            dbg_line(&event, "feed").to_string(),
            format!("*DBG* feed {sentence}")
        );
        assert_eq!(
            dbg_line(&event, "").to_string(),
            format!("*DBG* 5#3 {sentence}")
        );
        assert_eq!(
            format!("{:#}", dbg_line(&event, "feed")),
            format!("*DBG* feed {sentence} [+0.000000001 s]")
        );
    }
}

#[test]
fn every_kind_reads_as_a_json_line() {
    for (event, _, members) in samples() {
        let comma = if members.is_empty() { "" } else { "," };
        let common = r#""time_ns":1,"sequence":0,"ordinal":0,"connection":"5#3","name":"feed""#;
        let kind = event.kind().name();
        let expected = format!(r#"{{{common},"event":"{kind}"{comma}{members}}}"#);
        assert_eq!(json_line(&event, "feed").to_string(), expected);
        assert_eq!(json::parse(&expected), Ok(()), "{expected}");
    }
}

/// The members of an object on a line, by what follows a quotation mark and a comma or the beginning.
fn keys(members: &str) -> Vec<&str> {
    let mut keys: Vec<_> = members
        .split(",\"")
        .map(|member| member.trim_start_matches('"'))
        .filter_map(|member| member.split("\":").next())
        .collect();
    keys.retain(|key| !key.is_empty());
    keys
}

#[test]
fn the_schema_has_the_members_of_every_kind() {
    let source = include_str!("json.rs");
    let row = |kind: &str| {
        let kind = format!("`{kind}`");
        let mut rows = source
            .lines()
            .filter_map(|line| line.strip_prefix("/// | ")?.split_once(" | "));
        let row = rows.find(|(kinds, _)| kinds.split(", ").any(|other| other == kind));
        let (_, members) = row.unwrap_or_else(|| panic!("{kind} is not in the schema"));
        members
    };
    let frame = row("frame_sent");
    for (event, _, members) in samples() {
        let documented = row(event.kind().name()).replace("as `frame_sent`", frame);
        let mut pieces = documented.split('`').skip(1);
        let (mut known, mut keys) = (Vec::new(), keys(members));
        while let (Some(key), Some(rest)) = (pieces.next(), pieces.next()) {
            let optional = rest.starts_with('?');
            assert!(optional || keys.contains(&key), "{:?}: {key}", event.kind());
            known.push(key);
        }
        keys.retain(|key| !known.contains(key));
        assert!(keys.is_empty(), "{:?}: {keys:?}", event.kind());
    }
}

#[test]
fn what_a_kind_leaves_open_reads_well_too() {
    for (event, sentence) in [
        (
            Event::tls_established(0, ID, 0x0303, ""),
            "established TLS 1.2",
        ),
        (
            Event::tls_established(0, ID, 0x0305, ""),
            "established TLS 0x0305",
        ),
        (
            Event::tls_alert_sent(0, ID, 0, "close notify"),
            "sent TLS alert 0: close notify",
        ),
        (
            Event::connect_failed(0, ID, Stage::Tcp, None, "timed out"),
            "failed to connect at stage tcp: timed out",
        ),
        (
            Event::closing_error(0, ID, None, "reset"),
            "closing due to error: reset",
        ),
        (Event::cast_received(0, ID, ""), "received cast msg"),
        (
            Event::close_received(0, ID, None, ""),
            "closing with the remote reason: no code",
        ),
        (
            Event::remote_dropped(0, ID, "reset"),
            "had the connection closed unexpectedly by the remote server: reset",
        ),
    ] {
        assert_eq!(
            dbg_line(&event, "feed").to_string(),
            format!("*DBG* feed {sentence}")
        );
    }
}

#[test]
fn frames_show_opcode_flags_length_and_payload() {
    let headers_only = Frame {
        length: 17,
        ..frame(1, b"")
    };
    let first = Frame {
        fin: false,
        ..frame(1, b"a\xc3")
    };
    let deflated = Frame {
        compressed: true,
        ..frame(1, b"\xf2\x48")
    };
    for (frame, expected) in [
        (headers_only, "text (17 B)"),
        (first, r#"text, not final (2 B): "a\xc3""#),
        (deflated, "text, compressed (2 B): f248"),
        (frame(0, b"rest"), r#"continuation (4 B): "rest""#),
        (frame(0, b"\x00rest"), "continuation (5 B): 0072657374"),
        (frame(2, b"rest"), "binary (4 B): 72657374"),
        (frame(10, b""), "pong (0 B)"),
        (frame(8, b"\x03\xe8"), "close (2 B): 03e8"),
        (frame(11, b""), "opcode 0xb (0 B)"),
    ] {
        let event = Event::frame_received(0, ID, frame);
        assert_eq!(
            dbg_line(&event, "x").to_string(),
            format!("*DBG* x received frame: {expected}")
        );
    }
}

#[test]
fn long_payloads_end_in_an_ellipsis_and_at_a_whole_character() {
    let payload = format!("x{}", "é".repeat(100));
    assert!(!payload.is_char_boundary(Event::DETAIL_CAPACITY));
    let kept = &payload[..Event::DETAIL_CAPACITY - 1];
    let event = Event::frame_received(0, ID, frame(1, payload.as_bytes()));
    assert_eq!(
        dbg_line(&event, "x").to_string(),
        format!("*DBG* x received frame: text (201 B): \"{kept}\"…")
    );
    let json = json_line(&event, "x").to_string();
    assert!(
        json.ends_with(&format!(
            r#","length":201,"payload_text":"{kept}","truncated":true}}"#
        )),
        "{json}"
    );

    let event = Event::frame_sent(0, ID, frame(2, &[0xab; 100]));
    let hex = "ab".repeat(Event::DETAIL_CAPACITY);
    assert_eq!(
        dbg_line(&event, "x").to_string(),
        format!("*DBG* x sending frame: binary (100 B): {hex}…")
    );
}

#[test]
fn long_texts_end_in_an_ellipsis_and_their_length() {
    let (reason, kept) = ("r".repeat(123), "r".repeat(Event::DETAIL_CAPACITY));
    let event = Event::close_received(0, ID, Some(1000), &reason);
    let line = dbg_line(&event, "x").to_string();
    assert_eq!(
        line,
        format!("*DBG* x closing with the remote reason: 1000 \"{kept}\"… (123 B)")
    );
    let event = Event::terminated(0, ID, &reason);
    assert_eq!(
        dbg_line(&event, "x").to_string(),
        format!("*DBG* x terminated: {kept}… (123 B)")
    );
    assert!(
        json_line(&event, "x")
            .to_string()
            .ends_with(r#"","truncated":true}"#)
    );
}

#[test]
fn hostile_text_stays_inside_its_quotation_marks() {
    let event = Event::close_received(0, ID, Some(1000), "\"\n*DBG* x \x1b[2J\u{202e}");
    let expected =
        r#"*DBG* x closing with the remote reason: 1000 "\"\n*DBG* x \u{1b}[2J\u{202e}""#;
    assert_eq!(dbg_line(&event, "x").to_string(), expected);
    let json = json_line(&event, "x").to_string();
    let expected = r#""reason":"\u0022\u000a*DBG* x \u001b[2J\u202e"}"#;
    assert!(json.ends_with(expected), "{json}");
    assert!(
        dbg_line(&event, "a\nb")
            .to_string()
            .starts_with(r"*DBG* a\nb ")
    );
}

/// Any bytes in any place: one line, no control character, and valid JSON.
#[test]
fn random_bytes_never_break_a_line() {
    let mut random = Random(0x5eed);
    for _ in 0..1_000 {
        let bytes: Vec<u8> = (0..random.next() % 120).map(|_| random.byte()).collect();
        let text = String::from_utf8_lossy(&bytes);
        let frame = Frame {
            fin: random.next() & 1 == 0,
            ..frame(random.byte() & 15, &bytes)
        };
        let deflated = Frame {
            compressed: true,
            ..frame
        };
        for event in [
            Event::frame_received(random.next(), random.next(), frame),
            Event::replying(0, ID, Callback::OnPing, deflated),
            Event::close_received(0, ID, Some(1000), &text),
            Event::closing_error(0, ID, None, &text),
            Event::connecting(0, ID, random.next(), &text),
            Event::terminated(0, ID, &text),
        ] {
            let (dbg, json) = (
                format!("{:#}", dbg_line(&event, &text)),
                json_line(&event, &text).to_string(),
            );
            for line in [&dbg, &json] {
                assert!(
                    !line
                        .contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
                    "{line}"
                );
            }
            assert!(dbg.starts_with("*DBG* "));
            assert_eq!(json::parse(&json), Ok(()), "{json}");
        }
    }
}

#[test]
fn a_printed_line_is_one_write() {
    struct Writes(Vec<Vec<u8>>);
    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writes = Writes(Vec::new());
    write_dbg(&mut writes, &Event::closed_cleanly(0, ID), "x").unwrap();
    assert_eq!(writes.0, [b"*DBG* x closed the connection successfully\n"]);
}

/// xorshift64: repeatable noise, weighted towards the bytes that are trouble.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        let [byte, choice, ..] = self.next().to_le_bytes();
        let trouble = b"\n\r\x1b\"\\\0\x7f\xc2\x85\xe2\x80\xa8\xae\xf0\x9f";
        if choice < 128 {
            trouble[usize::from(byte) % trouble.len()]
        } else {
            byte
        }
    }
}

/// Enough of a JSON reader (RFC 8259) to tell that a line is one flat object.
mod json {
    /// `Err` holds what is left where the line stops being an object.
    pub(super) fn parse(line: &str) -> Result<(), &str> {
        let mut rest = line.strip_prefix('{').ok_or(line)?;
        loop {
            rest = string(rest)?.strip_prefix(':').ok_or(rest)?;
            rest = value(rest)?;
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return if rest == "}" { Ok(()) } else { Err(rest) },
            }
        }
    }

    fn value(rest: &str) -> Result<&str, &str> {
        if rest.starts_with('"') {
            return string(rest);
        }
        let end = rest.find([',', '}']).ok_or(rest)?;
        let (word, after) = rest.split_at(end);
        let number = word
            .parse::<u64>()
            .is_ok_and(|number| number.to_string() == word);
        if number || word == "true" || word == "false" {
            Ok(after)
        } else {
            Err(rest)
        }
    }

    fn string(rest: &str) -> Result<&str, &str> {
        let mut inside = rest.strip_prefix('"').ok_or(rest)?;
        loop {
            let character = inside.chars().next().ok_or(inside)?;
            let after = &inside[character.len_utf8()..];
            inside = match character {
                '"' => return Ok(after),
                '\\' => {
                    let digits = after
                        .strip_prefix('u')
                        .and_then(|digits| digits.get(..4))
                        .ok_or(inside)?;
                    u16::from_str_radix(digits, 16).map_err(|_| inside)?;
                    &after[5..]
                }
                '\0'..' ' => return Err(inside),
                _ => after,
            };
        }
    }
}
