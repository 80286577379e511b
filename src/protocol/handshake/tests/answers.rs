//! Unusual and hostile answers, each with the sentence that decides about it.

use super::{CHAT, CONNECTION, DEFLATE, NOTHING, Offer, PROOF, STATUS, UPGRADE, answer, head};
use crate::protocol::handshake::{ExtensionError, HandshakeError, Misbehaviour};
use crate::protocol::http::MalformedHead;

/// What is expected of an answer.
#[derive(Clone, Copy)]
enum Expected {
    Open,
    Malformed(MalformedHead),
    Misbehaved(Misbehaviour),
    Rejected(u16),
    Incomplete,
}

use Expected::{Incomplete, Malformed, Misbehaved, Open, Rejected};

/// One row of a table: the sentence it stands on (of RFC 6455 unless it names another), the offer,
/// the answer, the outcome. Lines of the answer are separated by `|`; `S`, `U`, `C` and `P` stand
/// for the usual status line, `Upgrade`, `Connection` and `Sec-WebSocket-Accept`.
type Row<'a> = (&'a str, Offer, &'a str, Expected);

fn lines_of(short: &str) -> Vec<&str> {
    let long = |line| match line {
        "S" => STATUS,
        "U" => UPGRADE,
        "C" => CONNECTION,
        "P" => PROOF,
        other => other,
    };
    short.split('|').map(long).collect()
}

fn check_rows(rows: &[Row<'_>]) {
    for &(sentence, offer, lines, expected) in rows {
        let outcome = answer(offer, &head(&lines_of(lines))).map(|_| ());
        let correct = match expected {
            Open => outcome == Ok(()),
            Malformed(what) => outcome == Err(HandshakeError::Malformed(what)),
            Misbehaved(what) => outcome == Err(HandshakeError::Misbehaved(what)),
            Incomplete => matches!(outcome, Err(HandshakeError::Incomplete { .. })),
            Rejected(status) => {
                matches!(&outcome, Err(HandshakeError::Rejected(r)) if r.status == status)
            }
        };
        assert!(correct, "{sentence}\n{lines}\n{outcome:?}");
    }
}

#[test]
fn answers_that_are_unusual_and_right() {
    check_rows(&[
        ("§1.3: the sample", NOTHING, "S|U|C|P", Open),
        (
            "RFC 9110 §5.1: field names are case-insensitive",
            NOTHING,
            "S|uPGRADE: websocket|CONNECTION: Upgrade|sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            Open,
        ),
        (
            "§4.1: Upgrade is an ASCII case-insensitive match",
            NOTHING,
            "S|Upgrade: WebSocket|C|P",
            Open,
        ),
        (
            "§4.1: Connection holds a token, matched without regard to case",
            NOTHING,
            "S|U|Connection: keep-alive, UPGRADE|P",
            Open,
        ),
        (
            "RFC 9110 §5.3: a list may be spread over several lines",
            NOTHING,
            "S|U|Connection: keep-alive|Connection: upgrade|P",
            Open,
        ),
        (
            "RFC 9110 §5.6.1.2: empty list elements are ignored",
            NOTHING,
            "S|U|Connection: ,, upgrade ,|P",
            Open,
        ),
        (
            "§4.1: Accept is compared ignoring leading and trailing whitespace",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept: \t s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t",
            Open,
        ),
        (
            "RFC 9112 §5: white space behind the colon is optional",
            NOTHING,
            "S|Upgrade:websocket|Connection:Upgrade|Sec-WebSocket-Accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            Open,
        ),
        (
            "RFC 9112 §4: clients ignore the reason phrase",
            NOTHING,
            "HTTP/1.1 101 Web Socket Protocol Handshake, \u{fc}|U|C|P",
            Open,
        ),
        (
            "RFC 9112 §4: the reason phrase may be absent",
            NOTHING,
            "HTTP/1.1 101 |U|C|P",
            Open,
        ),
        (
            "RFC 9112 §4: and its space is often forgotten",
            NOTHING,
            "HTTP/1.1 101|U|C|P",
            Open,
        ),
        (
            "RFC 9112 §6.3: 1xx ends with the blank line, whatever it declares",
            NOTHING,
            "S|U|C|P|Content-Length: 5|Transfer-Encoding: chunked",
            Open,
        ),
        (
            "§4.2.2: other headers may follow, cookies for example",
            NOTHING,
            "S|U|C|P|Set-Cookie: a=b|Set-Cookie: c=d|X:",
            Open,
        ),
        (
            "§4.1: a subprotocol that was offered",
            CHAT,
            "S|U|C|P|Sec-WebSocket-Protocol: superchat",
            Open,
        ),
        ("§4.2.2: the server may choose none", CHAT, "S|U|C|P", Open),
        (
            "§4.1: an extension that was offered",
            DEFLATE,
            "S|U|C|P|Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\"10\"",
            Open,
        ),
        (
            "§4.2.2: the server may accept none",
            DEFLATE,
            "S|U|C|P",
            Open,
        ),
        (
            "RFC 9110 §15.2: 1xx answers may come before the final one",
            NOTHING,
            "HTTP/1.1 100 Continue||HTTP/1.1 103 Early Hints|Link: </a>||S|U|C|P",
            Open,
        ),
    ]);
}

#[test]
fn answers_that_break_the_handshake() {
    use Misbehaviour as M;
    check_rows(&[
        (
            "§4.1: lacks Upgrade",
            NOTHING,
            "S|C|P",
            Misbehaved(M::UpgradeMissing),
        ),
        (
            "§4.1: Upgrade is a value, not a list",
            NOTHING,
            "S|Upgrade: h2c, websocket|C|P",
            Misbehaved(M::UpgradeNotWebsocket),
        ),
        (
            "§4.1: the same in two lines",
            NOTHING,
            "S|U|U|C|P",
            Misbehaved(M::UpgradeNotWebsocket),
        ),
        (
            "§4.1: Upgrade is matched as a whole",
            NOTHING,
            "S|Upgrade: websocket/13|C|P",
            Misbehaved(M::UpgradeNotWebsocket),
        ),
        (
            "§4.1: the match folds ASCII only, not the Kelvin sign",
            NOTHING,
            "S|Upgrade: websoc\u{212a}et|C|P",
            Misbehaved(M::UpgradeNotWebsocket),
        ),
        (
            "§4.1: Upgrade is empty",
            NOTHING,
            "S|Upgrade:|C|P",
            Misbehaved(M::UpgradeNotWebsocket),
        ),
        (
            "§4.1: lacks Connection",
            NOTHING,
            "S|U|P",
            Misbehaved(M::ConnectionNotUpgrade),
        ),
        (
            "§4.1: Connection without the token",
            NOTHING,
            "S|U|Connection: close, upgrades|P",
            Misbehaved(M::ConnectionNotUpgrade),
        ),
        (
            "§4.1: the token stands in the wrong header",
            NOTHING,
            "S|U|Proxy-Connection: upgrade|P",
            Misbehaved(M::ConnectionNotUpgrade),
        ),
        (
            "§4.1: lacks Accept",
            NOTHING,
            "S|U|C",
            Misbehaved(M::AcceptMissing),
        ),
        (
            "§4.1: Accept is empty",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept:",
            Misbehaved(M::AcceptWrong),
        ),
        (
            "§4.1: Accept is base64, which has upper and lower case",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            Misbehaved(M::AcceptWrong),
        ),
        (
            "§4.1: Accept without padding is another value",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
            Misbehaved(M::AcceptWrong),
        ),
        (
            "§4.1: the key sent back proves nothing",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==",
            Misbehaved(M::AcceptWrong),
        ),
        (
            "§11.3.3: Accept must not appear more than once, even the same",
            NOTHING,
            "S|U|C|P|P",
            Misbehaved(M::AcceptRepeated),
        ),
        (
            "§11.3.3: nor a right one behind a wrong one",
            NOTHING,
            "S|U|C|Sec-WebSocket-Accept: x|P",
            Misbehaved(M::AcceptRepeated),
        ),
        (
            "§4.1: a subprotocol although none was offered",
            NOTHING,
            "S|U|C|P|Sec-WebSocket-Protocol: chat",
            Misbehaved(M::SubprotocolNotOffered),
        ),
        (
            "§4.1: another subprotocol than those offered",
            CHAT,
            "S|U|C|P|Sec-WebSocket-Protocol: chat2",
            Misbehaved(M::SubprotocolNotOffered),
        ),
        (
            "§4.1: subprotocols have upper and lower case",
            CHAT,
            "S|U|C|P|Sec-WebSocket-Protocol: Chat",
            Misbehaved(M::SubprotocolNotOffered),
        ),
        (
            "§4.1: an empty subprotocol was not offered",
            CHAT,
            "S|U|C|P|Sec-WebSocket-Protocol:",
            Misbehaved(M::SubprotocolNotOffered),
        ),
        (
            "§4.1: an extension although none was offered",
            NOTHING,
            "S|U|C|P|Sec-WebSocket-Extensions: permessage-deflate",
            Misbehaved(M::ExtensionNotOffered),
        ),
        (
            "§4.1: another extension beside the one offered",
            DEFLATE,
            "S|U|C|P|Sec-WebSocket-Extensions: permessage-deflate, x-mux",
            Misbehaved(M::ExtensionNotOffered),
        ),
        (
            "§11.3.2: Extensions must not appear more than once in a response",
            DEFLATE,
            "S|U|C|P|Sec-WebSocket-Extensions: permessage-deflate|Sec-WebSocket-Extensions:",
            Misbehaved(M::ExtensionsRepeated),
        ),
        (
            "§9.1: the grammar of extensions",
            DEFLATE,
            "S|U|C|P|Sec-WebSocket-Extensions: permessage-deflate;",
            Misbehaved(M::ExtensionsMalformed(ExtensionError::NotToken)),
        ),
        (
            "§9.1: which requires at least one element",
            DEFLATE,
            "S|U|C|P|Sec-WebSocket-Extensions: ,",
            Misbehaved(M::ExtensionsMalformed(ExtensionError::Empty)),
        ),
        (
            "RFC 9110 §15.2: HTTP/1.0 has no 101",
            NOTHING,
            "HTTP/1.0 101 Switching Protocols|U|C|P",
            Misbehaved(M::HttpVersion),
        ),
        (
            "RFC 9110 §15.2: nor 100",
            NOTHING,
            "HTTP/1.0 100 Continue||S|U|C|P",
            Misbehaved(M::HttpVersion),
        ),
    ]);
}

#[test]
fn answers_that_are_malformed() {
    use MalformedHead as M;
    check_rows(&[
        (
            "RFC 9112 §2.1: not HTTP",
            NOTHING,
            "SSH-2.0-OpenSSH_9.6",
            Malformed(M::StartLine),
        ),
        (
            "RFC 9112 §2.1: a TLS alert",
            NOTHING,
            "\u{15}\u{3}\u{1}",
            Malformed(M::StartLine),
        ),
        (
            "RFC 9112 §2.3: another major version",
            NOTHING,
            "HTTP/2 101 Switching Protocols|U|C|P",
            Malformed(M::Version),
        ),
        (
            "RFC 9112 §2.2: an empty line before the status line",
            NOTHING,
            "|S|U|C|P",
            Malformed(M::StartLine),
        ),
        (
            "RFC 9112 §2.2: lines end with CRLF",
            NOTHING,
            "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket|C|P",
            Malformed(M::BareLineFeed),
        ),
        (
            "RFC 9112 §2.2: no bare CR",
            NOTHING,
            "S|U|C|X: a\rb|P",
            Malformed(M::BareCarriageReturn),
        ),
        (
            "RFC 9110 §5.5: no NUL",
            NOTHING,
            "S|U|C|P|X: a\0b",
            Malformed(M::ControlCharacter),
        ),
        (
            "RFC 9112 §5.2: folding is obsolete",
            NOTHING,
            "S|Upgrade:| websocket|C|P",
            Malformed(M::FoldedLine),
        ),
        (
            "RFC 9112 §5.1: no white space before the colon",
            NOTHING,
            "S|Upgrade : websocket|C|P",
            Malformed(M::SpaceBeforeColon),
        ),
        (
            "RFC 9112 §5: a header has a colon",
            NOTHING,
            "S|U|C|P|Upgrade",
            Malformed(M::NoColon),
        ),
        (
            "RFC 9110 §5.1: a header has a name",
            NOTHING,
            "S|U|C|P|: x",
            Malformed(M::EmptyName),
        ),
        (
            "RFC 9110 §5.1: which is a token",
            NOTHING,
            "S|U|C|P|(X): x",
            Malformed(M::NameNotToken),
        ),
        (
            "the stream ends after an interim answer",
            NOTHING,
            "HTTP/1.1 100 Continue",
            Incomplete,
        ),
    ]);
}

#[test]
fn answers_that_refuse() {
    check_rows(&[
        (
            "§4.1: status 200 is no upgrade, whatever else it has",
            NOTHING,
            "HTTP/1.1 200 OK|U|C|P",
            Rejected(200),
        ),
        (
            "HTTP/1.0 may refuse",
            NOTHING,
            "HTTP/1.0 403 Forbidden",
            Rejected(403),
        ),
        (
            "after an interim answer too",
            NOTHING,
            "HTTP/1.1 100 Continue||HTTP/1.1 500 X",
            Rejected(500),
        ),
    ]);
}
