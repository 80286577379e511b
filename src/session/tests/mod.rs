//! Whole lives in virtual time: a [`Rig`] plays the reactor and the server for one connection.

mod admission;
mod closing;
mod holding;
mod pacing;
mod proxies;
mod refresh;
mod returning;
mod sending;

use super::entropy::Entropy;
use super::life::{Life, Stage, Step};
use super::options::Target;
use super::outbound::Output;
use super::{Inbound, Options, Time};
use crate::error::DisconnectReason;
use crate::protocol::Role;
use crate::protocol::buffer::Buffer;
use crate::protocol::decoder::{Decoder, Event, Limits, Pool};
use crate::protocol::deflate::Deflaters;
use crate::protocol::handshake::{Answer, HandshakeLimits, ServerHandshake};
use crate::protocol::mask;
use crate::protocol::url::Url;
use crate::stats::tally::Tally;
use crate::trace::Kind;
use crate::trace::kind::Level;
use crate::trace::recorder::Recorder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// One connection, its clock, and what it has written.
pub(super) struct Rig {
    pub(super) life: Life,
    pub(super) inbound: Inbound,
    pub(super) now: Time,
    frames: Buffer,
    entropy: Entropy,
    trace: Recorder,
    pub(super) tally: Tally,
    deflaters: Deflaters,
}

impl Rig {
    pub(super) fn new(configure: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        configure(&mut options);
        let target = Target {
            url: Url::parse("ws://192.0.2.1/feed?old=1").expect("a URL"),
            options: Arc::new(options),
        };
        let mut number = 0_u8;
        let source = move |bytes: &mut [u8]| {
            for byte in bytes {
                number = number.wrapping_add(1);
                *byte = number;
            }
            Ok(())
        };
        Self {
            life: Life::new(1, target, Level::Frames, Time::ZERO),
            inbound: Inbound::Nobody,
            now: Time::ZERO,
            frames: Buffer::new(),
            entropy: Entropy::new(Box::new(source)).expect("entropy"),
            trace: Recorder::new(1 << 10, false, SystemTime::UNIX_EPOCH),
            tally: Tally::default(),
            deflaters: Deflaters::default(),
        }
    }

    /// Does something as the reactor does it: with an output.
    pub(super) fn with<R>(&mut self, run: impl FnOnce(&mut Life, &mut Output<'_>) -> R) -> R {
        let mut output = Output {
            now: self.now,
            seen: self.now,
            frames: &mut self.frames,
            entropy: &mut self.entropy,
            masking: mask::Implementation::for_copies(),
            trace: &mut self.trace,
            tally: &mut self.tally,
            deflaters: &mut self.deflaters,
            wire: None,
        };
        run(&mut self.life, &mut output)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Time has come to the connection's next deadline, which is there.
    pub(super) fn pass_to_deadline(&mut self) -> Step {
        let next = self.life.next_deadline().expect("it waits for something");
        self.now = self.now.max(next);
        self.handle_deadline()
    }

    /// An attempt that is due is admitted at once.
    pub(super) fn handle_deadline(&mut self) -> Step {
        match self.handle_time() {
            Step::Admit => self.with(|life, output| life.begin_attempt(output, Duration::ZERO)),
            step => step,
        }
    }

    pub(super) fn handle_time(&mut self) -> Step {
        let mut inbound = std::mem::replace(&mut self.inbound, Inbound::Nobody);
        let step = self.with(|life, output| life.handle_deadline(output, &mut inbound));
        self.inbound = inbound;
        step
    }

    /// The attempt that is due leads to an open connection.
    pub(super) fn open(&mut self) {
        let Step::Connect(address) = self.pass_to_deadline() else {
            panic!("no attempt at {:?}", self.life.stage);
        };
        self.upgrade(address);
    }

    /// The server that was reached at `address` upgrades.
    pub(super) fn upgrade(&mut self, address: SocketAddr) {
        let request = self.request(address);
        let mut answer = Vec::new();
        let received = ServerHandshake::new(HandshakeLimits::default()).receive(&request);
        let request = received.expect("a good request").request;
        let request = request.expect("all of it");
        request
            .write_response(&Answer::default(), &mut answer)
            .expect("an answer");
        let Inbound::Upgrading(mut handshake) =
            std::mem::replace(&mut self.inbound, Inbound::Nobody)
        else {
            panic!("it does not upgrade");
        };
        let response = handshake.receive(&answer).expect("a good answer").response;
        let response = response.expect("all of it");
        let opened = self.with(|life, output| life.handle_upgraded(output, &response));
        self.inbound = opened.expect("nothing else was offered");
        assert_eq!(self.life.stage, Stage::Open);
    }

    /// The request that the server at `address` gets.
    pub(super) fn request(&mut self, address: SocketAddr) -> Vec<u8> {
        self.with(|life, output| life.handle_connected(output, address));
        let inbound = self.with(Life::begin_upgrade);
        self.inbound = inbound.expect("a request that can be written");
        self.written()
    }

    /// It has ended, and comes back after a second.
    pub(super) fn lose(&mut self, step: super::aside::Comeback) -> DisconnectReason {
        assert_eq!(self.life.stage, Stage::Over);
        let reason = self.life.take_reason();
        let told = DisconnectReason::Local {
            code: None,
            reason: reason.to_string(),
        };
        self.with(|life, output| {
            life.end_attempt();
            life.plan(output, Some(SECOND), step, reason);
        });
        told
    }

    /// Bytes that were written since this was last asked; the socket takes them unless it has left
    /// others.
    pub(super) fn written(&mut self) -> Vec<u8> {
        let written = self.frames.as_slice().to_vec();
        self.frames.clear();
        if self.life.queued == 0 {
            self.life.handle_handed(self.now, 0, 0);
        }
        written
    }

    /// Likewise, the frames in it: texts as they are, others by what they are.
    pub(super) fn frames(&mut self) -> Vec<String> {
        let written = self.written();
        let mut input = &written[..];
        let mut decoder = Decoder::new(Role::Server, Limits::default());
        let mut pool = Pool::default();
        let mut frames = Vec::new();
        while let Some(event) = decoder
            .decode(&mut input, &mut pool, &mut ())
            .expect("good frames")
        {
            frames.push(match event {
                Event::Text(text) => text.to_owned(),
                Event::Binary(bytes) => format!("binary {}", bytes.len()),
                Event::Ping(payload) => format!("ping {}", payload.escape_ascii()),
                Event::Pong(payload) => format!("pong {}", payload.escape_ascii()),
                Event::Close(close) => {
                    format!("close {}", close.map_or(0, |close| close.code.value()))
                }
            });
        }
        frames
    }

    /// How many events of `kind` were recorded.
    pub(super) fn traced(&self, kind: Kind) -> usize {
        let events = self.trace.ring().iter();
        events.filter(|event| event.kind() == kind).count()
    }
}
