//! Servers with random scripts.

use super::super::peer::{End, Line};
use super::super::random::Random;
use super::super::server::{Audience, Play, Server, Welcome};
use super::payload::{Received, payload};
use super::session::Totals;
use crate::protocol::close::CloseFrame;
use crate::protocol::frame::OpCode;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Longer than what a socket takes at once.
const LARGE: usize = 100_000;

/// Checks what the client sends.
#[derive(Default)]
struct Listener {
    received: Received,
}

impl Audience for Listener {
    fn message(&mut self, line: &mut Line<'_>, _opcode: OpCode, payload: &[u8]) {
        // The heartbeat, and what is sent from outside, are not numbered.
        if matches!(payload, b"?" | b"from outside") {
            return;
        }
        if let Err(error) = self.received.take(payload) {
            let number = line.number;
            line.log.violation(format!("server {number} got {error}"));
        }
    }

    /// A handler that closes says how many messages it has sent.
    fn close(&mut self, line: &mut Line<'_>, close: Option<CloseFrame<'_>>) {
        let said = close.and_then(|close| close.reason.parse::<u64>().ok());
        if let Some(said) = said
            && said != self.received.count
        {
            let (number, count) = (line.number, self.received.count);
            let violation = format!("server {number} got {count} messages of {said}");
            line.log.violation(violation);
        }
    }
}

pub(super) fn random_server(random: &mut Random, totals: &Rc<RefCell<Totals>>) -> Server {
    let mut server = Server::new(random_welcome(random), Box::new(Listener::default()));
    if random.chance(10) {
        server = server.ignoring_pings();
    }
    if random.chance(10) {
        server = server.ignoring_close();
    }
    let sender = random.next();
    let mut sent = 0;
    for _ in 0..random.within(0..10) {
        let delay = match random.chance(50) {
            true => Duration::ZERO,
            false => random.milliseconds(0..1500),
        };
        let play = match random.within(0..20) {
            0 => Play::Ping,
            1 => Play::Read(false),
            2..5 => Play::Read(true),
            _ => {
                sent += 1;
                random_message(random, sender, sent - 1)
            }
        };
        server = server.then(delay, play);
    }
    let last = match random.within(0..8) {
        0..3 => Play::Close(*random.choose(&[1000, 1001, 1011]), sent.to_string()),
        3 | 4 => {
            totals.borrow_mut().finished.insert(sender, sent);
            Play::End(End::Finished)
        }
        5 => Play::End(End::Reset),
        6 => random_garbage(random),
        // Silence.
        _ => return server,
    };
    let delay = random.milliseconds(0..1500);
    server.then(delay, last)
}

fn random_welcome(random: &mut Random) -> Welcome {
    let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
    match random.within(0..40) {
        0 => Welcome::Nothing,
        1..3 => Welcome::Raw(busy.to_vec(), Some(End::Finished)),
        // A body that does not end.
        3 => Welcome::Raw(busy[..busy.len() - 2].to_vec(), None),
        4 => Welcome::Raw(Vec::new(), Some(End::Finished)),
        5 => Welcome::Raw(Vec::new(), Some(End::Reset)),
        6 => {
            let Play::Raw(garbage) = random_garbage(random) else {
                unreachable!("it is nothing else");
            };
            Welcome::Raw(garbage, Some(End::Finished))
        }
        _ => Welcome::Open,
    }
}

fn random_message(random: &mut Random, sender: u64, number: u64) -> Play {
    let length = match random.within(0..40) {
        0 => random.length(0..LARGE),
        1..10 => random.length(0..5_000),
        _ => random.length(0..200),
    };
    let text = payload(sender, number, length);
    let opcode = *random.choose(&[OpCode::Text, OpCode::Binary]);
    // Now and then so short that there are many, otherwise so long that there are few.
    let size = random.length(1..length / 4 + 2);
    let size = if random.chance(30) { size } else { text.len() };
    Play::Fragments(opcode, text.into_bytes(), size.max(length / 100))
}

/// Bytes that no client can take for something sensible: the first asks for an opcode, or a bit, that
/// there is not, or declares a length with its first bit set, or a Close frame of one byte.
fn random_garbage(random: &mut Random) -> Play {
    let beginnings: [&[u8]; 5] = [
        &[0x83, 0x01],
        &[0xf2, 0x05],
        &[0x82, 0x7f, 0xff],
        &[0x88, 0x01],
        &[0x80, 0x01],
    ];
    let mut bytes = random.choose(&beginnings).to_vec();
    let start = bytes.len();
    bytes.resize(start + random.length(0..100), 0);
    random.fill(&mut bytes[start..]);
    Play::Raw(bytes)
}
