//! What is to be sent, but not yet: messages that are held for the next open, and frames that wait for
//! their [`pace`](super::pace). They are kept as they were given and encoded when they leave: what was
//! negotiated may differ by then.

use super::life::{Life, Stage};
use super::outbound::{Compression, Output, Sends};
use crate::error::{DisconnectReason, SendError};
use crate::protocol::frame::OpCode;
use crate::trace::event::Event;
use crate::trace::kind::{Callback, Kind, Limit};
use std::collections::VecDeque;

/// How much may be held for the next open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HoldLimit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Can something be held?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The request does not ask for it, or the connection does not come back.
    Never,
    /// There is room.
    Room,
    /// As much is held as may be.
    Full,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// A whole message.
    Message {
        opcode: OpCode,
        compression: Compression,
        callback: Option<Callback>,
    },
    /// A piece of one, as on the wire.
    Fragment {
        opcode: OpCode,
        fin: bool,
        callback: Option<Callback>,
    },
    /// A Ping.
    Ping { callback: Option<Callback> },
}

impl Entry {
    pub(super) fn opcode(self) -> OpCode {
        match self {
            Self::Message { opcode, .. } | Self::Fragment { opcode, .. } => opcode,
            Self::Ping { .. } => OpCode::Ping,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Ping { .. })
    }
}

/// Something that waits.
pub(super) struct Waiting {
    /// Which one it is of all that this connection has put aside.
    ordinal: u64,
    entry: Entry,
    payload: Box<[u8]>,
}

impl Waiting {
    pub(super) fn new(ordinal: u64, entry: Entry, payload: &[u8]) -> Self {
        Self {
            ordinal,
            entry,
            payload: payload.into(),
        }
    }

    /// What one with this payload counts: its memory, so that empty ones are not free.
    pub(super) fn size(payload: &[u8]) -> usize {
        size_of::<Self>() + payload.len()
    }

    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    pub(super) fn into_parts(self) -> (Entry, Box<[u8]>) {
        (self.entry, self.payload)
    }
}

/// What waits, in order.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<Waiting>,
    /// Of their payloads.
    bytes: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.payload.len();
        self.waiting.push_back(waiting);
    }

    /// A control frame goes ahead of messages, and behind other control frames.
    pub(super) fn push_ahead(&mut self, waiting: Waiting) {
        self.bytes += waiting.payload.len();
        let others = self.waiting.iter();
        let at = others.take_while(|other| other.entry.is_control()).count();
        self.waiting.insert(at, waiting);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.payload.len();
        Some(waiting)
    }
}

impl Life {
    /// Can a message be held now for the next open?
    pub(crate) fn can_hold(&self) -> Hold {
        let Some(limit) = self.target.options.hold else {
            return Hold::Never;
        };
        let ends = matches!(self.ending(), Some(DisconnectReason::Local { .. }));
        if ends || self.unwanted || matches!(self.stage, Stage::Open | Stage::Ended) {
            return Hold::Never;
        }
        let held = self.aside.as_ref().map(|aside| &aside.held);
        let full = held
            .is_some_and(|held| held.waiting.len() >= limit.messages || held.bytes >= limit.bytes);
        if full { Hold::Full } else { Hold::Room }
    }

    /// Holds a message that cannot be sent now because of `error`, if the request asks for that.
    #[cold]
    pub(super) fn hold(
        &mut self,
        output: &mut Output<'_>,
        compression: Compression,
        (opcode, payload): (OpCode, &[u8]),
        error: SendError,
    ) -> Result<(), SendError> {
        let (Some(limit), true) = (self.target.options.hold, self.can_hold() != Hold::Never) else {
            return Err(error);
        };
        let held = &self.aside().held;
        let (messages, bytes) = (held.waiting.len() + 1, held.bytes + payload.len());
        if messages > limit.messages || bytes > limit.bytes {
            output.tally.drops += 1;
            if !self.sends.drop_one() {
                let (asked, allowed) = if messages > limit.messages {
                    (messages, limit.messages)
                } else {
                    (bytes, limit.bytes)
                };
                self.record(output, Kind::LimitHit, |time, id| {
                    Event::limit_hit(time, id, Limit::HeldSends, asked as u64, allowed as u64)
                });
            }
            self.tidy();
            return Err(SendError::HoldFull);
        }
        self.sends = Sends::Unknown;
        let aside = self.aside();
        aside.entered += 1;
        let entry = Entry::Message {
            opcode,
            compression,
            callback: None,
        };
        let waiting = Waiting::new(aside.entered, entry, payload);
        aside.held.push(waiting);
        Ok(())
    }

    /// The connection is open, and the handler has sent what comes first: sends what was held.
    pub(crate) fn release(&mut self, output: &mut Output<'_>) {
        while self.stage == Stage::Open
            && let Some(aside) = &mut self.aside
            && let Some(waiting) = aside.held.pop()
        {
            let (opcode, length) = (waiting.entry.opcode(), waiting.payload.len());
            // It fits beside what waits for its pace, or not at all.
            let outcome = if self.sending.is_some() {
                Err(SendError::FragmentOrder)
            } else {
                self.check_room(output, opcode, self.waiting_bytes() + length)
            };
            let error = match outcome {
                Ok(()) if self.target.options.pacer.is_some() && !self.take_turn(output.now) => {
                    // Its number stays, for whoever waits for it.
                    self.aside().paced.backlog.push(waiting);
                    continue;
                }
                Ok(()) => {
                    self.aside().note(&waiting, Ok(()));
                    let (entry, payload) = waiting.into_parts();
                    self.write_entry(output, entry, &payload);
                    continue;
                }
                Err(error) => error,
            };
            self.aside().note(&waiting, Err(error));
            self.note_drop(output, opcode, length, error);
        }
        if self.waiting_bytes() > 0 {
            // What waits for its pace counts for the high-water mark from here on.
            self.handle_queued(output, self.queued);
        }
        self.tidy();
    }

    /// Bytes that wait for their pace, with what keeping them takes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let backlog = self.aside.as_ref().map(|aside| &aside.paced.backlog);
        backlog.map_or(0, |backlog| {
            backlog.bytes + backlog.len() * Waiting::size(&[])
        })
    }

    /// How many messages were put aside so far: the number of the last of them.
    pub(crate) fn entered(&self) -> u64 {
        self.aside.as_ref().map_or(0, |aside| aside.entered)
    }

    /// The end: what is held goes to a successor, if there is one.
    pub(crate) fn take_held(&mut self) -> Backlog {
        let held = self
            .aside
            .as_mut()
            .map(|aside| std::mem::take(&mut aside.held));
        self.tidy();
        held.unwrap_or_default()
    }

    /// The end, without a successor: what is held is dropped, and said to be. Returns how much it was.
    pub(crate) fn abandon_held(&mut self, output: &mut Output<'_>) -> usize {
        let count = self.take_held().waiting.len();
        if count > 0 {
            output.tally.drops += count as u64;
            self.record(output, Kind::Abandoned, |time, id| {
                Event::abandoned(time, id, count as u64, "sends")
            });
        }
        count
    }
}
