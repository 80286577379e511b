//! What is to be sent, but not yet: messages that are held for the next open. They are kept as they
//! were given and encoded when they leave, because what was negotiated may differ by then.

use super::life::{Life, Stage};
use super::outbound::{Compression, Output};
use crate::error::{DisconnectReason, SendError};
use crate::protocol::frame::OpCode;
use crate::trace::event::Event;
use crate::trace::kind::{Kind, Limit};
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

/// A message that waits.
pub(super) struct Waiting {
    /// Which one it is of all that this connection has put aside.
    ordinal: u64,
    opcode: OpCode,
    compression: Compression,
    payload: Box<[u8]>,
}

/// Messages that wait, in order.
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

    pub(super) fn has(&self, ordinal: u64) -> bool {
        self.waiting
            .iter()
            .any(|waiting| waiting.ordinal == ordinal)
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.payload.len();
        self.waiting.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
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
        let ends = matches!(self.ending.as_deref(), Some(DisconnectReason::Local { .. }));
        if ends || matches!(self.stage, Stage::Open | Stage::Ended) {
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
            if !self.dropping {
                self.dropping = true;
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
        self.dropping = false;
        let aside = self.aside();
        aside.entered += 1;
        aside.held.push(Waiting {
            ordinal: aside.entered,
            opcode,
            compression,
            payload: payload.into(),
        });
        Ok(())
    }

    /// The connection is open, and the handler has sent what comes first: sends what was held.
    pub(crate) fn release(&mut self, output: &mut Output<'_>) {
        while self.stage == Stage::Open
            && let Some(aside) = &mut self.aside
            && let Some(waiting) = aside.held.pop()
        {
            let Waiting {
                opcode,
                compression,
                payload,
                ..
            } = waiting;
            if let Err(error) = self.send(output, None, compression, opcode, &payload) {
                output.tally.drops += u64::from(!matches!(error, SendError::Full { .. }));
                let length = payload.len() as u64;
                self.record(output, Kind::SendDropped, |time, id| {
                    Event::send_dropped(time, id, opcode as u8, length, error)
                });
            }
        }
        self.tidy();
    }

    /// How many messages were put aside so far: the number of the last of them.
    pub(crate) fn entered(&self) -> u64 {
        self.aside.as_ref().map_or(0, |aside| aside.entered)
    }

    /// Does the message with this number still wait?
    pub(crate) fn is_waiting(&self, ordinal: u64) -> bool {
        self.aside
            .as_ref()
            .is_some_and(|aside| aside.held.has(ordinal))
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
