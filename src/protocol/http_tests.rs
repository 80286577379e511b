use super::*;

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    connection:keep-alive,\t Upgrade ,,\r\n\
    X-Empty:\r\n\
    X-Colons:  a: b:c \t\r\n\
    Connection: x\r\n\
    \r\n";

type Responses = HeadParser<StatusLine>;

/// Feeds pieces and returns the head, or the first error.
fn feed(pieces: &[&[u8]]) -> Result<Option<Head<StatusLine>>, HeadError> {
    let mut parser = Responses::new(1024);
    for piece in pieces {
        let progress = parser.receive(piece)?;
        if progress.head.is_some() {
            return Ok(progress.head);
        }
    }
    Ok(None)
}

fn check(head: &Head<StatusLine>) {
    assert_eq!((head.start.status, head.start.minor_version), (101, 1));
    assert_eq!(&*head.start.reason, "Switching Protocols");
    let expected = [
        ("Upgrade", "websocket"),
        ("connection", "keep-alive,\t Upgrade ,,"),
        ("X-Empty", ""),
        ("X-Colons", "a: b:c"),
        ("Connection", "x"),
    ];
    assert!(head.headers.iter().eq(expected), "{:?}", head.headers);
    assert_eq!(head.headers.len(), expected.len());
    assert!(
        head.headers
            .all("CONNECTION")
            .eq(["keep-alive,\t Upgrade ,,", "x"])
    );
    assert!(
        head.headers
            .tokens("Connection")
            .eq(["keep-alive", "Upgrade", "x"])
    );
    assert!(head.headers.has_token("connection", "UPGRADE"));
    assert!(!head.headers.has_token("connection", "grade"));
    assert_eq!(head.headers.first("x-empty"), Some(""));
    assert_eq!(head.headers.first("absent"), None);
}

#[test]
fn every_split_into_two_and_three_pieces() {
    let bytes = ANSWER.as_bytes();
    check(&feed(&[bytes]).unwrap().unwrap());
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            check(&feed(&pieces).unwrap().unwrap());
        }
        assert_eq!(
            feed(&[&bytes[..first]]),
            Ok(None),
            "{first} bytes are not enough"
        );
    }
}

#[test]
fn byte_by_byte_and_stopping_behind_the_blank_line() {
    let mut parser = Responses::new(1024);
    for (index, byte) in ANSWER.bytes().enumerate() {
        let progress = parser.receive(&[byte]).unwrap();
        assert_eq!(progress.consumed, 1);
        assert_eq!(progress.head.is_some(), index + 1 == ANSWER.len());
    }
    for behind in ["\u{81}", "\n\n\r\n", "HTTP/1.1 200"] {
        let both = [ANSWER, behind].concat();
        let progress = Responses::new(1024).receive(both.as_bytes()).unwrap();
        assert_eq!(progress.consumed, ANSWER.len());
        check(&progress.head.unwrap());
    }
}

#[test]
fn the_parser_is_ready_for_the_next_head() {
    let mut parser = Responses::new(ANSWER.len());
    for _ in 0..3 {
        check(&parser.receive(ANSWER.as_bytes()).unwrap().head.unwrap());
        assert_eq!(parser.received(), 0);
    }
}

/// A server that speaks TLS, SSH or SMTP may wait for us without ever ending a line.
#[test]
fn another_protocol_is_found_out_before_its_first_line_ends() {
    let error = Err(HeadError::Malformed(MalformedHead::StartLine));
    assert_eq!(feed(&[b"\x15\x03\x01"]), error);
    assert_eq!(feed(&[b"HT", b"T", b"X"]), error);
    assert_eq!(feed(&[b"HT", b"T", b"P"]), Ok(None));
}

#[test]
fn malformed_heads_at_every_split() {
    use MalformedHead as M;
    let table: [(&str, M); 28] = [
        ("SSH-2.0-OpenSSH_9.6\r\n", M::StartLine),
        ("HTTP 1.1\r\n", M::StartLine),
        ("\r\nHTTP/1.1 101 X\r\n", M::StartLine),
        ("http/1.1 101 X\r\n", M::StartLine),
        ("HTTP/1.1\r\n", M::StartLine),
        ("HTTP/1.1 \r\n", M::StartLine),
        ("HTTP/1.1  101 X\r\n", M::StartLine),
        ("HTTP/1.1\t101 X\r\n", M::Version),
        ("HTTP/1.1 1O1 X\r\n", M::StartLine),
        ("HTTP/1.1 +10 X\r\n", M::StartLine),
        ("HTTP/1.1 1010 X\r\n", M::StartLine),
        ("HTTP/1.1 099 X\r\n", M::StartLine),
        ("HTTP/2.0 101 X\r\n", M::Version),
        ("HTTP/1.10 101 X\r\n", M::Version),
        ("HTTP/1. 101 X\r\n", M::Version),
        ("HTTP/1.1 101 X\nA: b\r\n\r\n", M::BareLineFeed),
        ("HTTP/1.1 101 X\r\nA: b\n\n", M::BareLineFeed),
        ("HTTP/1.1 101 X\r\n\n", M::BareLineFeed),
        (
            "HTTP/1.1 101 X\r\nA: b\rC: d\r\n\r\n",
            M::BareCarriageReturn,
        ),
        ("HTTP/1.1 101 X\r\nA: b\r\r\n\r\n", M::BareCarriageReturn),
        ("HTTP/1.1 101 X\r\nA: b\0\r\n\r\n", M::ControlCharacter),
        ("HTTP/1.1 101 \u{1b}[31m\r\n\r\n", M::ControlCharacter),
        ("HTTP/1.1 101 X\r\nA: b\r\n c\r\n\r\n", M::FoldedLine),
        ("HTTP/1.1 101 X\r\n\tA: b\r\n\r\n", M::FoldedLine),
        ("HTTP/1.1 101 X\r\nno colon\r\n\r\n", M::NoColon),
        ("HTTP/1.1 101 X\r\n: b\r\n\r\n", M::EmptyName),
        ("HTTP/1.1 101 X\r\nA : b\r\n\r\n", M::SpaceBeforeColon),
        ("HTTP/1.1 101 X\r\nA b: c\r\n\r\n", M::NameNotToken),
    ];
    for (text, expected) in table {
        let expected = Err(HeadError::Malformed(expected));
        let bytes = text.as_bytes();
        for split in 0..bytes.len() {
            assert_eq!(
                feed(&[&bytes[..split], &bytes[split..]]),
                expected,
                "{text:?} at {split}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(feed(&single), expected, "{text:?} byte by byte");
    }
}

#[test]
fn every_byte_in_names_and_values() {
    for byte in 0..=255u8 {
        let name = [b"HTTP/1.1 101 X\r\nA", &[byte][..], b"B: c\r\n\r\n"].concat();
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(
            feed(&[&name]).is_ok(),
            token || byte == b':',
            "name with {byte:#04x}"
        );
        let value = [b"HTTP/1.1 101 X\r\nA: b", &[byte][..], b"c\r\n\r\n"].concat();
        let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        assert_eq!(feed(&[&value]).is_ok(), allowed, "value with {byte:#04x}");
    }
}

#[test]
fn text_outside_ascii() {
    let utf_8 = feed(&["HTTP/1.1 403 Zugriff verwehrt für dich\r\nA: ü\r\n\r\n".as_bytes()]);
    let head = utf_8.unwrap().unwrap();
    assert_eq!(&*head.start.reason, "Zugriff verwehrt für dich");
    assert_eq!(head.headers.first("a"), Some("ü"));
    let latin_1 = feed(&[b"HTTP/1.1 403 f\xfcr\r\nA: \xfc\r\n\r\n"])
        .unwrap()
        .unwrap();
    assert_eq!(&*latin_1.start.reason, "für");
    assert_eq!(latin_1.headers.first("a"), Some("ü"));
}

#[test]
fn status_lines_in_use() {
    for (line, minor, status, reason) in [
        ("HTTP/1.1 101", 1, 101, ""),
        ("HTTP/1.1 101 ", 1, 101, ""),
        ("HTTP/1.0 200 OK", 0, 200, "OK"),
        ("HTTP/1.2 520  two  spaces ", 2, 520, " two  spaces "),
        ("HTTP/1.1 999 Denied", 1, 999, "Denied"),
    ] {
        let expected = StatusLine {
            minor_version: minor,
            status,
            reason: reason.into(),
        };
        assert_eq!(StatusLine::parse(line), Ok(expected), "{line}");
    }
}

#[test]
fn request_lines() {
    let line = RequestLine::parse("GET /a?b=c HTTP/1.1").unwrap();
    assert_eq!(
        (&*line.method, &*line.target, line.minor_version),
        ("GET", "/a?b=c", 1)
    );
    for bad in [
        "",
        "GET",
        "GET /",
        "GET  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "G(T / HTTP/1.1",
    ] {
        assert_eq!(
            RequestLine::parse(bad),
            Err(MalformedHead::StartLine),
            "{bad:?}"
        );
    }
    assert_eq!(
        RequestLine::parse("GET /ä HTTP/1.1"),
        Err(MalformedHead::StartLine)
    );
    assert_eq!(
        RequestLine::parse("GET / HTTP/2.0"),
        Err(MalformedHead::Version)
    );
}

#[test]
fn the_byte_limit_is_exact_and_independent_of_pieces() {
    let too_long = HeadError::Limit(HeadLimit::HeaderBytes(ANSWER.len() - 1));
    for chunk in 1..=ANSWER.len() {
        let mut exact = Responses::new(ANSWER.len());
        let mut short = Responses::new(ANSWER.len() - 1);
        let mut outcome = Ok(());
        for piece in ANSWER.as_bytes().chunks(chunk) {
            exact.receive(piece).unwrap();
            outcome = short.receive(piece).map(|_| ());
        }
        assert_eq!(outcome, Err(too_long), "pieces of {chunk}");
    }
}

#[test]
fn the_number_of_headers_is_limited() {
    let head = |count: usize| format!("HTTP/1.1 101 X\r\n{}\r\n", "A:\r\n".repeat(count));
    assert!(feed(&[head(MAX_HEADERS).as_bytes()]).unwrap().is_some());
    let error = HeadError::Limit(HeadLimit::HeaderCount(MAX_HEADERS));
    assert_eq!(feed(&[head(MAX_HEADERS + 1).as_bytes()]), Err(error));
}

#[test]
fn memory_grows_only_with_what_arrived() {
    let mut parser = Responses::new(usize::MAX);
    assert_eq!(
        parser.partial.capacity() + parser.headers.text.capacity(),
        0
    );
    parser
        .receive(b"HTTP/1.1 101 X\r\nContent-Length: 18446744073709551615\r\nA")
        .unwrap();
    assert!(parser.partial.capacity() + parser.headers.text.capacity() < 256);
    // What is too long is not even stored.
    let mut parser = Responses::new(100);
    parser
        .receive(&[b"HTTP/1.1 101 ", [b'x'; 1_000_000].as_slice()].concat())
        .unwrap_err();
    assert_eq!(parser.partial.capacity(), 0);
}

/// A head that comes in one piece is read in another way than one that comes in pieces: not otherwise.
#[test]
fn in_one_piece_or_in_many_it_is_the_same_head() {
    let outcome = |head: &[u8], first: usize| {
        let mut parser = Responses::new(256);
        let (one, other) = head.split_at(first);
        for piece in std::iter::once(one).chain(other.chunks(1)) {
            match parser.receive(piece) {
                Ok(Progress { head: None, .. }) => {}
                Ok(Progress { head, consumed }) => return Ok((head, piece.len() - consumed)),
                Err(error) => return Err(error),
            }
        }
        Ok((None, 0))
    };
    for place in 0..ANSWER.len() {
        for byte in [b'\r', b'\n', b':', b' ', b'\t', b',', 0, 0x7f, 0xc3, 0xff] {
            let mut head = ANSWER.as_bytes().to_vec();
            head[place] = byte;
            let (whole, pieces) = (outcome(&head, head.len()), outcome(&head, 0));
            // Only a head in one piece has something behind it.
            let pieces = pieces.map(|(found, _)| found);
            assert_eq!(whole.map(|(found, _)| found), pieces, "{place} {byte:#x}");
        }
    }
    let followed = [ANSWER.as_bytes(), b"\x81\x02\r\n"].concat();
    assert_eq!(
        outcome(&followed, followed.len()).map(|(_, left)| left),
        Ok(4)
    );
    let long = ANSWER.replace("a: b:c", &"c".repeat(256));
    assert_eq!(
        outcome(long.as_bytes(), long.len()),
        outcome(long.as_bytes(), 0)
    );
}

/// The head is fed in single bytes with one long line. Rescanning would look at 2 * 10^12 bytes
/// and not come back within the life of this test run.
#[test]
fn pitfall_07_no_rescan_of_what_already_arrived() {
    const LENGTH: usize = 2_000_000;
    let mut parser = Responses::new(LENGTH + 1024);
    parser.receive(b"HTTP/1.1 101 X\r\nA: ").unwrap();
    for _ in 0..LENGTH {
        parser.receive(b"x").unwrap();
    }
    let head = parser.receive(b"\r\n\r\n").unwrap().head.unwrap();
    assert_eq!(head.headers.first("a").map(str::len), Some(LENGTH));
}
