//! The outbound half of a session: what may be sent when, and the way of a frame into the turn's
//! output.
//!
//! Before this comes the handler's [`Context`](crate::Context) or a command from another thread;
//! after it the reactor's link to the socket. All frames of one turn gather in one buffer and leave
//! in one write; only what the socket does not take stays with the connection.

use super::backlog::Entry;
use super::life::{Life, Stage};
use super::{Entropy, Time};
use crate::error::SendError;
use crate::protocol::Role;
use crate::protocol::buffer::Buffer;
use crate::protocol::deflate::Deflaters;
use crate::protocol::encoder::{self, FrameWriter, PIECE};
use crate::protocol::frame::{MAX_CONTROL_PAYLOAD, MAX_HEADER_LENGTH, OpCode};
use crate::protocol::mask;
use crate::stats::tally::Tally;
use crate::trace::event::{Event, Frame};
use crate::trace::kind::{Callback, Kind, Limit, Subject};
use crate::trace::recorder::Recorder;

/// Where frames go: the socket, through TLS or not. What it does not take at once it keeps.
pub(crate) trait Wire {
    /// Takes all of `frames`. An error sticks and shows at the end of the turn.
    fn write(&mut self, frames: &[u8]);
    /// Bytes that wait for the socket.
    fn queued(&self) -> usize;
}

/// What a turn gives a session to write with.
pub(crate) struct Output<'a> {
    pub(crate) now: Time,
    /// What had arrived until then has been read, or is known to be there: nobody is silent, and no
    /// answer late, for what came in after it.
    pub(crate) seen: Time,
    /// Frames of this turn.
    pub(crate) frames: &'a mut Buffer,
    pub(crate) entropy: &'a mut Entropy,
    /// What short messages are masked with.
    pub(crate) masking: mask::Implementation,
    pub(crate) trace: &'a mut Recorder,
    pub(crate) tally: &'a mut Tally,
    pub(crate) deflaters: &'a mut Deflaters,
    /// Absent while the TLS layer is lent to the inbound side; frames then wait in `frames`.
    pub(crate) wire: Option<&'a mut dyn Wire>,
}

/// Pongs where the socket does not take everything at once. RFC 6455 §5.5.3: "If an endpoint receives a
/// Ping frame and has not yet sent Pong frame(s) in response to previous Ping frame(s), the endpoint MAY
/// elect to send a Pong frame for only the most recently processed Ping frame." So there is one in the
/// queue at most, and one that waits until the socket has it.
pub(super) struct WaitingPong {
    payload: [u8; MAX_CONTROL_PAYLOAD],
    /// `None` when no pong waits; the memory is kept.
    length: Option<u8>,
    /// One is in the queue, until the socket has taken so many bytes in all: [`THIS_TURN`] until the
    /// turn ends and that is known.
    underway: Option<u64>,
}

const THIS_TURN: u64 = u64::MAX;

/// Is a message to be deflated, where permessage-deflate was negotiated?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// If it is at least as long as `Deflate::compress_from` says.
    #[default]
    BySize,
    /// Yes, unless that makes it longer.
    Always,
    /// No.
    Never,
}

/// Which part of a fragmented message a piece is (RFC 6455 §5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The first of several.
    First,
    /// Neither the first nor the last.
    Middle,
    /// The last.
    Last,
}

/// What the last sends say of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    /// Nothing: what it comes to has to be found out.
    Unknown,
    /// A message goes as it is, nobody but the peer has an interest in it, and none waits before it. One
    /// comparison instead of seven.
    Ordinary,
    /// They were refused, and that was recorded.
    Dropping,
}

impl Sends {
    /// Something has changed that may make messages other than ordinary.
    pub(super) fn doubt(&mut self) {
        if *self == Self::Ordinary {
            *self = Self::Unknown;
        }
    }

    /// A send is refused: was the one before it, too?
    pub(super) fn drop_one(&mut self) -> bool {
        std::mem::replace(self, Self::Dropping) == Self::Dropping
    }
}

impl Life {
    /// Sends a message of at most [`SHORT`](encoder::SHORT) bytes if it is an
    /// [ordinary](Self::is_ordinary) one. False, and nothing has happened, if [`send`](Self::send) has to.
    ///
    /// Most messages go here, and so there is nothing in it that could be done once for many of them.
    #[inline(always)]
    pub(crate) fn send_short(
        &mut self,
        output: &mut Output<'_>,
        opcode: OpCode,
        payload: &[u8],
    ) -> bool {
        // Not the frame's length, but that of the longest one: the room then needs one check less.
        let end = PIECE - encoder::SHORT_FRAME;
        if !self.is_ordinary() || output.frames.len() >= end {
            return false;
        }
        let Some(room) = output.frames.spare() else {
            return false;
        };
        let Some(key) = output.entropy.take_fetched() else {
            return false;
        };
        encoder::encode_short(opcode, payload, key, room);
        let tally = &mut output.tally.outbound;
        tally.whole(opcode, payload.len() as u64);
        true
    }

    /// Likewise a message of any length.
    #[inline(always)]
    pub(crate) fn send_ordinary(
        &mut self,
        output: &mut Output<'_>,
        opcode: OpCode,
        payload: &[u8],
    ) -> bool {
        let end = output.frames.len() + payload.len();
        if !self.is_ordinary() || end >= PIECE - MAX_HEADER_LENGTH {
            return false;
        }
        let key = output.entropy.take();
        encoder::encode(Role::Client, true, opcode, payload, key, output.frames);
        let tally = &mut output.tally.outbound;
        tally.whole(opcode, payload.len() as u64);
        true
    }

    /// A message may go as it is, and nobody but the peer has an interest in it. So it is ordinary, unless
    /// the turn's output has to be passed on for it.
    #[inline(always)]
    fn is_ordinary(&self) -> bool {
        self.stage == Stage::Open && self.sends == Sends::Ordinary
    }

    /// Are messages ordinary as things stand? Whoever changes one of them while the connection is open
    /// [doubts](Sends::doubt) it.
    fn finds_ordinary(&self) -> bool {
        let options = &*self.target.options;
        self.stage == Stage::Open
            && self.queued == 0
            && self.sending.is_none()
            && self.deflate.is_none()
            && !self.level.records(Kind::FrameSent)
            && options.pacer.is_none()
            && options.max_queued >= PIECE
    }

    /// Sends a whole message.
    #[inline]
    pub(crate) fn send(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        compression: Compression,
        opcode: OpCode,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if let Err(error) = self.check_open() {
            return self.hold(output, compression, (opcode, payload), error);
        }
        self.check_room(output, opcode, payload.len())?;
        if self.sending.is_some() {
            return Err(SendError::FragmentOrder);
        }
        if self.target.options.pacer.is_some() {
            let entry = Entry::Message {
                opcode,
                compression,
                callback,
            };
            return self.send_paced(output, entry, payload);
        }
        self.write_message(output, callback, compression, opcode, payload);
        if self.sends == Sends::Unknown && self.finds_ordinary() {
            self.sends = Sends::Ordinary;
        }
        Ok(())
    }

    #[inline]
    fn write_message(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        compression: Compression,
        opcode: OpCode,
        payload: &[u8],
    ) {
        if self.deflate.is_some()
            && self.write_deflated(output, callback, compression, opcode, payload)
        {
            output.tally.outbound.message(payload.len());
            return;
        }
        let tally = &mut output.tally.outbound;
        tally.whole(opcode, payload.len() as u64);
        self.encode(output, callback, true, opcode, payload);
    }

    /// Writes what had been put aside.
    pub(super) fn write_entry(&mut self, output: &mut Output<'_>, entry: Entry, payload: &[u8]) {
        match entry {
            Entry::Message {
                opcode,
                compression,
                callback,
            } => self.write_message(output, callback, compression, opcode, payload),
            Entry::Fragment {
                opcode,
                fin,
                callback,
            } => {
                self.write_frame(output, callback, fin, opcode, payload);
                output.tally.outbound.fragment(fin, payload.len());
            }
            Entry::Ping { callback } => {
                self.write_frame(output, callback, true, OpCode::Ping, payload);
            }
        }
    }

    /// Deflates a message into the turn's output; false if it had better go as it is.
    fn write_deflated(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        compression: Compression,
        opcode: OpCode,
        payload: &[u8],
    ) -> bool {
        let Some(agreed) = self.deflate.as_deref().copied() else {
            return false;
        };
        let wanted = match compression {
            Compression::Always => true,
            Compression::Never => false,
            Compression::BySize => agreed.threshold.is_some_and(|least| payload.len() >= least),
        };
        if !wanted {
            return false;
        }
        let Output {
            now,
            frames,
            entropy,
            trace,
            tally,
            deflaters,
            ..
        } = &mut *output;
        let Some(deflated) = deflaters.deflate(&agreed, payload) else {
            return false;
        };
        let key = entropy.take();
        let mut frame = FrameWriter::begin_deflated(Role::Client, opcode, deflated, key, frames);
        while frame.write_piece(frames) {}
        tally.outbound.frame(opcode as u8, deflated.len() as u64);
        if self.level.records(Kind::FrameSent) {
            let frame = Frame {
                opcode: opcode as u8,
                fin: true,
                compressed: true,
                length: deflated.len() as u64,
                payload: self.level.shown(deflated),
            };
            self.trace_sent(trace, *now, callback, frame);
        }
        if output.frames.len() >= PIECE {
            self.pass_on(output);
        }
        true
    }

    /// Sends a piece of a message.
    pub(crate) fn send_fragment(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        kind: OpCode,
        fragment: Fragment,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.check_open()?;
        self.check_room(output, kind, payload.len())?;
        let opcode = match (fragment, self.sending) {
            (Fragment::First, None) => kind,
            (Fragment::Middle | Fragment::Last, Some(first)) if first == kind => {
                OpCode::Continuation
            }
            _ => return Err(SendError::FragmentOrder),
        };
        let fin = fragment == Fragment::Last;
        let entry = Entry::Fragment {
            opcode,
            fin,
            callback,
        };
        if self.target.options.pacer.is_some() {
            self.send_paced(output, entry, payload)?;
        } else {
            self.write_entry(output, entry, payload);
        }
        self.sending = if fin { None } else { Some(kind) };
        self.sends.doubt();
        Ok(())
    }

    /// Sends a Ping or Pong. A Pong that finds another in the queue replaces the one that waits.
    pub(crate) fn send_control(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        opcode: OpCode,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::ControlTooLong(payload.len()));
        }
        self.check_open()?;
        let paced = self.target.options.pacer.is_some();
        if opcode == OpCode::Pong && paced {
            self.pace_pong(output, payload);
            return Ok(());
        }
        if opcode == OpCode::Pong && self.queued > 0 {
            self.send_pong_behind(output, payload);
            return Ok(());
        }
        self.check_room(output, opcode, payload.len())?;
        if paced {
            return self.send_paced(output, Entry::Ping { callback }, payload);
        }
        self.write_frame(output, callback, true, opcode, payload);
        Ok(())
    }

    #[inline]
    fn check_open(&self) -> Result<(), SendError> {
        match self.stage {
            Stage::Open => Ok(()),
            Stage::Closing | Stage::Closed | Stage::Failing => Err(SendError::Closing),
            Stage::Over => Err(SendError::Gone),
            _ => Err(SendError::NotOpen),
        }
    }

    /// Pitfall 6: the queue has a limit, and whoever hits it is told.
    #[inline]
    pub(super) fn check_room(
        &mut self,
        output: &mut Output<'_>,
        opcode: OpCode,
        length: usize,
    ) -> Result<(), SendError> {
        let queued = self.queued + output.frames.len();
        let limit = self.target.options.max_queued;
        if queued.saturating_add(length) <= limit {
            self.sends = Sends::Unknown;
            return Ok(());
        }
        Err(self.refuse_full(output, queued, opcode, length))
    }

    /// Counts and says that the queue is full.
    #[cold]
    pub(super) fn refuse_full(
        &mut self,
        output: &mut Output<'_>,
        queued: usize,
        opcode: OpCode,
        length: usize,
    ) -> SendError {
        let limit = self.target.options.max_queued;
        let error = SendError::Full { queued, limit };
        output.tally.drops += 1;
        if !self.sends.drop_one() {
            self.record(output, Kind::LimitHit, |time, id| {
                let wanted = (queued + length) as u64;
                Event::limit_hit(time, id, Limit::QueuedOutput, wanted, limit as u64)
            });
            self.record(output, Kind::SendDropped, |time, id| {
                Event::send_dropped(time, id, opcode as u8, length as u64, error)
            });
        }
        error
    }

    /// A message that was accepted cannot be sent after all: counts it, and says so, but of a run of
    /// them only once.
    pub(crate) fn note_drop(
        &mut self,
        output: &mut Output<'_>,
        opcode: OpCode,
        length: usize,
        error: SendError,
    ) {
        // A limit that was hit has counted it.
        if matches!(error, SendError::Full { .. } | SendError::HoldFull) {
            return;
        }
        output.tally.drops += 1;
        if !self.sends.drop_one() {
            self.record(output, Kind::SendDropped, |time, id| {
                Event::send_dropped(time, id, opcode as u8, length as u64, error)
            });
        }
    }

    /// So much waits for the socket now.
    fn set_queued(&mut self, queued: usize) {
        if queued != self.queued {
            self.queued = queued;
            self.sends.doubt();
        }
    }

    /// Writes a frame that is no whole message, or none of the application's.
    #[inline]
    pub(super) fn write_frame(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        fin: bool,
        opcode: OpCode,
        payload: &[u8],
    ) {
        let tally = &mut output.tally.outbound;
        tally.frame(opcode as u8, payload.len() as u64);
        self.encode(output, callback, fin, opcode, payload);
    }

    /// Encodes a frame into the turn's output. A large one goes to the socket piece by piece, while
    /// each piece is in the cache.
    #[inline]
    fn encode(
        &mut self,
        output: &mut Output<'_>,
        callback: Option<Callback>,
        fin: bool,
        opcode: OpCode,
        payload: &[u8],
    ) {
        if self.level.records(Kind::FrameSent) {
            let frame = Frame {
                opcode: opcode as u8,
                fin,
                compressed: false,
                length: payload.len() as u64,
                payload: self.level.shown(payload),
            };
            self.trace_sent(output.trace, output.now, callback, frame);
        }
        let key = output.entropy.take();
        if payload.len() < PIECE {
            encoder::encode(Role::Client, fin, opcode, payload, key, output.frames);
            if output.frames.len() >= PIECE {
                self.pass_on(output);
            }
            return;
        }
        let mut frame = FrameWriter::begin(Role::Client, fin, opcode, payload, key, output.frames);
        loop {
            let more = frame.write_piece(output.frames);
            if output.frames.len() >= PIECE {
                self.pass_on(output);
            }
            if !more {
                break;
            }
        }
    }

    /// Hands the frames gathered so far to the wire, if it is there.
    pub(crate) fn pass_on(&mut self, output: &mut Output<'_>) {
        if let Some(wire) = &mut output.wire {
            if !output.frames.is_empty() {
                wire.write(output.frames.as_slice());
                output.frames.clear();
            }
            let queued = wire.queued();
            self.set_queued(queued);
        }
    }

    #[cold]
    fn trace_sent(
        &self,
        trace: &mut Recorder,
        now: Time,
        callback: Option<Callback>,
        frame: Frame<'_>,
    ) {
        if let Some(callback) = callback {
            let subject = Subject::Callback(callback);
            self.trace_frame(trace, now, Kind::Replying, subject, &frame);
        }
        self.trace_frame(trace, now, Kind::FrameSent, Subject::None, &frame);
    }

    /// A pong for a socket that does not take everything: into the queue, unless there is one.
    #[cold]
    fn send_pong_behind(&mut self, output: &mut Output<'_>, payload: &[u8]) {
        self.hold_pong(payload);
        if self.may_pong() {
            self.write_pong(output);
        }
    }

    /// Keeps the newest pong, and only that (pitfall 5).
    pub(super) fn hold_pong(&mut self, payload: &[u8]) {
        let waiting = self.pong.get_or_insert_with(|| {
            Box::new(WaitingPong {
                payload: [0; MAX_CONTROL_PAYLOAD],
                length: None,
                underway: None,
            })
        });
        waiting.payload[..payload.len()].copy_from_slice(payload);
        waiting.length = u8::try_from(payload.len()).ok();
    }

    /// So much waits for the socket now. True if the high-water mark was reached and the queue has
    /// fallen to the low one again.
    pub(crate) fn handle_queued(&mut self, output: &mut Output<'_>, queued: usize) -> bool {
        self.set_queued(queued);
        let queued = queued + self.waiting_bytes();
        let (low, high) = self.target.options.water_marks;
        if !self.high_water && queued >= high {
            self.high_water = true;
            self.record(output, Kind::QueueHighWater, |time, id| {
                Event::queue_high_water(time, id, queued as u64, high as u64)
            });
        } else if self.high_water && queued <= low {
            self.high_water = false;
            self.record(output, Kind::QueueDrained, Event::queue_drained);
            return true;
        }
        false
    }

    /// The socket has taken `handed` bytes in all, more than before: a pong that waited for another
    /// may go.
    pub(crate) fn handle_flushed(&mut self, output: &mut Output<'_>, handed: u64) {
        let Some(pong) = &mut self.pong else {
            return;
        };
        if pong.underway.is_some_and(|end| end <= handed) {
            pong.underway = None;
        }
        if self.stage != Stage::Open || !self.has_pong() || !self.may_pong() {
            return;
        }
        if self.target.options.pacer.is_none() || self.take_turn(output.now) {
            self.write_pong(output);
        }
    }

    /// The turn's output is in the link: a pong among it ends at `end`, or before.
    pub(super) fn place_pong(&mut self, end: u64, handed: u64) {
        if let Some(pong) = &mut self.pong
            && pong.underway == Some(THIS_TURN)
        {
            pong.underway = (end > handed).then_some(end);
        }
    }

    /// May a pong go into the queue?
    pub(crate) fn may_pong(&self) -> bool {
        let pong = self.pong.as_ref();
        pong.is_none_or(|pong| pong.underway.is_none())
    }

    /// Does a pong wait?
    pub(crate) fn has_pong(&self) -> bool {
        let pong = self.pong.as_ref();
        pong.is_some_and(|waiting| waiting.length.is_some())
    }

    pub(super) fn write_pong(&mut self, output: &mut Output<'_>) {
        if let Some(mut waiting) = self.pong.take() {
            if let Some(length) = waiting.length.take() {
                let payload = &waiting.payload[..usize::from(length)];
                self.write_frame(output, None, true, OpCode::Pong, payload);
                waiting.underway = Some(THIS_TURN);
            }
            self.pong = Some(waiting);
        }
    }
}
