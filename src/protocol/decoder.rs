//! Inbound: bytes from the socket (or from TLS) in, messages and control frames out.
//!
//! Before this comes the read; after it, the session looks at control frames and the handler gets
//! the messages. The decoder works in the caller's buffer: a message that lies in it whole, which
//! is nearly every one, is handed out as a slice of it. What is cut by the end of the buffer,
//! or spread over several frames, is gathered in an `assembly`, which comes from a [`Pool`] and
//! returns to it as soon as the message was delivered, so that an idle connection owns no buffer.
//!
//! [`Decoder::decode`] always takes all of its input: `None` means that everything was taken and more is
//! needed. A caller that can bring the beginning of a message once more, with its rest behind it, may
//! ask and keep it (`may_come_again`). A good message in front of a bad frame is delivered first; the
//! error comes with the next call, and sticks.

use super::Role;
use super::assembly::{Assembly, MessageKind, PartialFrame, rotated};
use super::close::CloseFrame;
use super::deflate::{Agreed, Inflater};
use super::error::ProtocolError;
use super::frame::{
    BEGINS_BINARY, BEGINS_TEXT, FrameHeader, LEAST_FRAME, MAX_CONTROL_PAYLOAD, OpCode,
    WHOLE_BINARY, WHOLE_TEXT, length_if_cut, split_plain,
};
use super::mask;
use super::utf8;

pub use super::assembly::Pool;
use std::marker::PhantomData;

/// What arrived: a complete message, or a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A Ping with its payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A Pong with its payload, at most 125 bytes.
    Pong(&'a [u8]),
    /// A Close frame, with its code and reason if it has them. Nothing is decoded behind it.
    Close(Option<CloseFrame<'a>>),
}

/// Limits on what a peer may send, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload of one frame.
    pub max_frame: u64,
    /// Longest message, all its frames together.
    pub max_message: u64,
}

impl Default for Limits {
    /// 64 MiB for both.
    fn default() -> Self {
        Self {
            max_frame: 64 << 20,
            max_message: 64 << 20,
        }
    }
}

impl Limits {
    /// Longest message in one frame.
    #[inline(always)]
    fn longest(&self) -> u64 {
        self.max_frame.min(self.max_message)
    }
}

/// Sees every frame header as it is decoded, with as much of the payload as lies behind it in the
/// same buffer (still masked if it was). For the trace; `()` looks away.
pub trait Observer {
    /// A frame begins.
    fn frame(&mut self, header: &FrameHeader, payload: &[u8]);
    /// A message in several frames is complete.
    fn completed(&mut self, opcode: OpCode, message: &[u8]);
}

impl Observer for () {
    #[inline(always)]
    fn frame(&mut self, _: &FrameHeader, _: &[u8]) {}
    #[inline(always)]
    fn completed(&mut self, _: OpCode, _: &[u8]) {}
}

/// Frames in, events out; the inbound half of a connection.
pub struct Decoder {
    /// What is incomplete. `None` between messages, when nothing is cut.
    assembly: Option<Box<Assembly>>,
    sender: Sender,
    limits: Limits,
    inflation: Inflation,
    /// Boxed, because most connections never have one.
    error: Option<Box<ProtocolError>>,
}

/// Whose frames are decoded. Not an `Option<Role>`: what is asked for every message is one
/// comparison of this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Server,
    Client,
    /// After a Close frame or an error there are no more frames.
    Nobody,
}

/// How many frames a message came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    One,
    Several,
}

/// Why there is an assembly when a frame is complete.
const TAKEN: &str = "the frame was taken into it";

/// How compressed messages are inflated (RFC 7692).
enum Inflation {
    /// The extension was not negotiated.
    Off,
    /// Each message by itself, with an inflater from the pool.
    Shared,
    /// With a window of its own, of 2^`bits` bytes, made when the first compressed message comes.
    /// While such a message is under way, the inflater is with its assembly.
    Own {
        bits: u8,
        inflater: Option<Box<Inflater>>,
    },
}

impl Inflation {
    /// An inflater for a message that begins.
    fn begin(&mut self, pool: &mut Pool) -> Box<Inflater> {
        match self {
            Self::Own { bits, inflater } => inflater
                .take()
                .unwrap_or_else(|| Box::new(Inflater::with_context(*bits))),
            Self::Shared | Self::Off => pool.take_inflater(),
        }
    }
}

impl Decoder {
    /// A decoder for the frames that the peer of a `role` sends.
    pub const fn new(role: Role, limits: Limits) -> Self {
        Self {
            assembly: None,
            sender: match role {
                Role::Client => Sender::Server,
                Role::Server => Sender::Client,
            },
            limits,
            inflation: Inflation::Off,
            error: None,
        }
    }

    /// The same decoder, for messages that may be compressed as `agreed` (RFC 7692). The role of a
    /// server inflates with what the client may use.
    #[must_use]
    pub fn with_deflate(mut self, agreed: &Agreed) -> Self {
        self.inflation = match (self.sender, agreed.server_context_takeover) {
            (Sender::Server, true) => Inflation::Own {
                bits: agreed.server_window_bits,
                inflater: None,
            },
            _ => Inflation::Shared,
        };
        self
    }

    /// Decodes the next event from `input`, which is moved behind what was taken.
    ///
    /// `None` means that all of `input` was taken and more is needed. Bytes behind a Close frame
    /// are taken and dropped (RFC 6455 §1.4: "any further data received" is discarded).
    ///
    /// # Errors
    /// The first violation of the protocol or of a limit. It sticks: every later call returns it.
    #[inline]
    pub fn decode<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        pool: &mut Pool,
        observer: &mut impl Observer,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        if self.is_between_messages(input, pool) {
            let mut rest = *input;
            let message = match take_whole(&mut rest) {
                Some(Event::Text(text)) => Some((OpCode::Text, text.as_bytes(), Event::Text(text))),
                Some(Event::Binary(bytes)) => Some((OpCode::Binary, bytes, Event::Binary(bytes))),
                _ => None,
            };
            if let Some((opcode, payload, event)) = message
                && payload.len() as u64 <= self.limits.longest()
            {
                *input = rest;
                let header = FrameHeader::plain(true, opcode, payload.len() as u64);
                observer.frame(&header, payload);
                return Ok(Some(event));
            }
        }
        self.decode_any(input, pool, observer)
    }

    /// The messages that `input` begins with, as far as they are what a feed consists of. `None`
    /// when something else comes first: the rest of a message under way, or nothing ever again.
    #[inline(always)]
    pub(crate) fn whole_messages<'i>(
        &mut self,
        input: &'i [u8],
        pool: &mut Pool,
    ) -> Option<WholeMessages<'_, 'i>> {
        if !self.is_between_messages(input, pool) {
            return None;
        }
        let longest = usize::try_from(self.limits.longest()).unwrap_or(usize::MAX);
        Some(WholeMessages {
            window: &input[..input.len().min(longest)],
            decoder: PhantomData,
        })
    }

    /// Is `input`, of which [`whole_messages`](Self::whole_messages) has taken nothing, the beginning of a
    /// binary message in one frame of at most `longest` bytes? Then it need not be taken: it can come
    /// again, with its rest behind it, and nothing of it is gathered. Text is taken in any case, so that
    /// what is wrong with it is found when it arrives and not when it is complete.
    pub(crate) fn may_come_again(&self, input: &[u8], longest: usize) -> bool {
        let longest = self.limits.longest().min(longest as u64);
        input.first() == Some(&WHOLE_BINARY)
            && length_if_cut(input)
                .is_some_and(|length| length >= LEAST_ROOM && length as u64 <= longest)
    }

    /// Of a server, and with none of its messages under way? The assembly of one that was handed out is
    /// returned first, unless `input` goes on with fragments, which would only take it again: then it
    /// stays, and this is false.
    #[inline(always)]
    fn is_between_messages(&mut self, input: &[u8], pool: &mut Pool) -> bool {
        if let Some(assembly) = &mut self.assembly {
            if begins_fragments(input) && assembly.begin_anew() {
                return false;
            }
            self.recycle(pool);
        }
        self.assembly.is_none() && self.sender == Sender::Server
    }

    /// Everything that [`whole_messages`](Self::whole_messages) leaves.
    pub(crate) fn decode_any<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        pool: &mut Pool,
        observer: &mut impl Observer,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        loop {
            match self.take_fragments(input, pool, observer) {
                Ok(true) => return self.finish_message(Frames::Several, observer),
                Ok(false) => {}
                Err(error) => return Err(self.fail(error)),
            }
            match self.take_frame(input, pool, observer)? {
                Some((false, _)) => {}
                Some((true, opcode)) => return self.finish_frame(opcode, observer),
                None => return Ok(None),
            }
        }
    }

    /// Takes what lies whole in `input` of a server's message in fragments; true when it is complete.
    #[inline(always)]
    fn take_fragments(
        &mut self,
        input: &mut &[u8],
        pool: &mut Pool,
        observer: &mut impl Observer,
    ) -> Result<bool, ProtocolError> {
        if self.sender != Sender::Server {
            return Ok(false);
        }
        let assembly = match &mut self.assembly {
            Some(assembly) => assembly,
            None if begins_fragments(input) => self.assembly.insert(pool.take()),
            None => return Ok(false),
        };
        assembly.take_fragments(input, &self.limits, observer)
    }

    /// Returns the assembly of a message that was handed out.
    #[inline(never)]
    fn recycle(&mut self, pool: &mut Pool) {
        let Some(assembly) = &mut self.assembly else {
            return;
        };
        if assembly.delivered {
            assembly.clear();
            if let Some(used) = assembly.inflater.take() {
                match &mut self.inflation {
                    Inflation::Own { inflater, .. } => *inflater = Some(used),
                    Inflation::Shared | Inflation::Off => pool.give_inflater(used),
                }
            }
        }
        if assembly.frame.is_none() {
            // A control frame that was handed out.
            assembly.control_length = 0;
        }
        if assembly.is_idle() {
            pool.give(self.assembly.take().expect("is some"));
        }
    }

    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.sender = Sender::Nobody;
        self.error = Some(Box::new(error));
        error
    }

    /// Takes what `input` has of one frame, whatever it is. When it is complete, says whether it ends
    /// an event, and its opcode. `None` when it is not, and more is needed.
    #[inline(never)]
    fn take_frame(
        &mut self,
        input: &mut &[u8],
        pool: &mut Pool,
        observer: &mut impl Observer,
    ) -> Result<Option<(bool, OpCode)>, ProtocolError> {
        if let Some(error) = &self.error {
            return Err(**error);
        }
        if self.sender == Sender::Nobody {
            *input = &[];
            return Ok(None);
        }
        let taken = self.advance(input, pool, observer);
        if let Ok(None) = taken
            && self.assembly.as_ref().is_some_and(|a| a.is_idle())
        {
            pool.give(self.assembly.take().expect("is some"));
        }
        taken.map_err(|error| self.fail(error))
    }

    /// [`take_frame`](Self::take_frame) while there are frames; its caller looks after the assembly and
    /// the error.
    fn advance(
        &mut self,
        input: &mut &[u8],
        pool: &mut Pool,
        observer: &mut impl Observer,
    ) -> Result<Option<(bool, OpCode)>, ProtocolError> {
        let (sender, limits) = (self.sender, self.limits);
        let deflate = !matches!(self.inflation, Inflation::Off);
        if input.is_empty() && self.assembly.is_none() {
            return Ok(None);
        }
        let assembly = self.assembly.get_or_insert_with(|| pool.take());
        let mut frame = match assembly.frame.take() {
            Some(frame) => frame,
            None => match assembly.take_header(input)? {
                None => return Ok(None),
                Some(header) => {
                    check(&header, sender, &limits, deflate, assembly)?;
                    let length = header.payload_length.min(input.len() as u64);
                    // Exact: not more than `input` has.
                    #[allow(clippy::cast_possible_truncation)]
                    observer.frame(&header, &input[..length as usize]);
                    match header.opcode {
                        OpCode::Text => assembly.kind = Some(MessageKind::Text),
                        OpCode::Binary => assembly.kind = Some(MessageKind::Binary),
                        _ => {}
                    }
                    if header.rsv1 {
                        assembly.inflater = Some(self.inflation.begin(pool));
                    }
                    PartialFrame {
                        header,
                        received: 0,
                    }
                }
            },
        };
        if !assembly.take_payload(&mut frame, input, &limits)? {
            assembly.frame = Some(frame);
            return Ok(None);
        }
        let FrameHeader { fin, opcode, .. } = frame.header;
        if fin && !opcode.is_control() {
            assembly.finish_inflating(&limits)?;
        }
        Ok(Some((fin, opcode)))
    }

    /// The event that a complete, final frame makes.
    #[inline(never)]
    fn finish_frame(
        &mut self,
        opcode: OpCode,
        observer: &mut impl Observer,
    ) -> Result<Option<Event<'_>>, ProtocolError> {
        match opcode {
            OpCode::Text | OpCode::Binary => return self.finish_message(Frames::One, observer),
            OpCode::Continuation => return self.finish_message(Frames::Several, observer),
            OpCode::Ping | OpCode::Pong | OpCode::Close => {}
        }
        let Self {
            assembly,
            sender,
            error,
            ..
        } = self;
        let assembly = assembly.as_ref().expect(TAKEN);
        let control = &assembly.control[..assembly.control_length];
        let event = match opcode {
            OpCode::Ping => Event::Ping(control),
            OpCode::Pong => Event::Pong(control),
            _ => {
                *sender = Sender::Nobody;
                let close = CloseFrame::parse(control);
                Event::Close(close.inspect_err(|first| *error = Some(Box::new(*first)))?)
            }
        };
        Ok(Some(event))
    }

    /// The event that a complete message makes.
    #[inline(always)]
    fn finish_message(
        &mut self,
        frames: Frames,
        observer: &mut impl Observer,
    ) -> Result<Option<Event<'_>>, ProtocolError> {
        let assembly = self.assembly.as_mut().expect(TAKEN);
        assembly.delivered = true;
        let (opcode, bytes, event) = if assembly.kind == Some(MessageKind::Text) {
            match assembly.message.as_str() {
                Ok(text) => (OpCode::Text, text.as_bytes(), Event::Text(text)),
                Err(error) => {
                    let error = ProtocolError::InvalidUtf8(error);
                    self.sender = Sender::Nobody;
                    self.error = Some(Box::new(error));
                    return Err(error);
                }
            }
        } else {
            let bytes = assembly.message.as_slice();
            (OpCode::Binary, bytes, Event::Binary(bytes))
        };
        if frames == Frames::Several {
            observer.completed(opcode, bytes);
        }
        Ok(Some(event))
    }

    /// Room in the message under way, when so much of a frame is missing that receiving straight
    /// into it saves a copy: the socket may write there, and [`received`](Self::received) says how
    /// much it wrote. Never longer than what the frame lacks.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        let assembly = self.assembly.as_mut()?;
        let frame = assembly.frame.as_ref()?;
        if self.sender == Sender::Nobody
            || frame.header.opcode.is_control()
            || assembly.inflater.is_some()
        {
            return None;
        }
        let missing = frame.header.payload_length - frame.received;
        if missing < LEAST_ROOM as u64 {
            return None;
        }
        // Memory grows with what arrived, never with what the header declares (pitfall 1): the room
        // is what the buffer owns already, or as large as its content, so that it doubles.
        let (length, owned) = (assembly.message.len(), assembly.message.capacity());
        let room = (owned - length).max(length).clamp(LEAST_ROOM, MOST_ROOM);
        let room = usize::try_from(missing).map_or(room, |missing| missing.min(room));
        Some(&mut assembly.message.room(room)[..room])
    }

    /// Bytes of the frame's payload under way that are still to come.
    pub(crate) fn missing(&self) -> u64 {
        let assembly = self.assembly.as_ref();
        let frame = assembly.and_then(|assembly| assembly.frame.as_ref());
        frame.map_or(0, |frame| frame.header.payload_length - frame.received)
    }

    /// Takes `length` bytes that were written into [`room`](Self::room) as payload. If they
    /// complete a message, the next [`decode`](Self::decode) returns it, with whatever input.
    ///
    /// # Errors
    /// Text that is not UTF-8.
    ///
    /// # Panics
    /// When there was no room of that length.
    pub fn received(&mut self, length: usize) -> Result<(), ProtocolError> {
        let assembly = self.assembly.as_mut().expect("there was room");
        let frame = assembly.frame.as_mut().expect("there was room");
        let start = assembly.message.len();
        assembly.message.advance(length);
        if let Some(key) = frame.header.mask {
            let payload = assembly.message.unvalidated_from(start);
            mask::apply(payload, rotated(key, frame.received));
        }
        frame.received += length as u64;
        assert!(frame.received <= frame.header.payload_length);
        if assembly.kind == Some(MessageKind::Text)
            && let Err(error) = assembly.message.validate()
        {
            return Err(self.fail(ProtocolError::InvalidUtf8(error)));
        }
        Ok(())
    }

    /// Bytes of memory held for what is incomplete.
    pub fn memory(&self) -> usize {
        self.assembly
            .as_ref()
            .map_or(0, |assembly| assembly.memory())
    }
}

/// Whole data messages, each in a single frame of a server, one behind the other in one read: what a
/// feed consists of. While they are taken, nothing about the decoder changes, so that it is asked
/// once for all of them.
pub(crate) struct WholeMessages<'d, 'i> {
    /// Of the input no more than the limits of frame and message, so that what lies within is within
    /// them too.
    window: &'i [u8],
    decoder: PhantomData<&'d mut Decoder>,
}

impl<'i> WholeMessages<'_, 'i> {
    /// Takes the next message. `None` says only that nothing was taken:
    /// [`decode_any`](Decoder::decode_any) has to look, or, if something was taken before,
    /// [`whole_messages`](Decoder::whole_messages) once more.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Event<'i>> {
        take_whole(&mut self.window)
    }

    /// The same, for those to whom a call more is nothing.
    #[inline(never)]
    pub(crate) fn next_apart(&mut self) -> Option<Event<'i>> {
        self.next()
    }

    /// Bytes that were not taken; what this lessens by was.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.window.len()
    }
}

/// Does `input` begin with the first fragment of an uncompressed message?
#[inline(always)]
fn begins_fragments(input: &[u8]) -> bool {
    matches!(input, [BEGINS_TEXT | BEGINS_BINARY, ..])
}

/// Takes a whole data message in one frame of a server from the start of `input`. `None` says only
/// that nothing was taken.
#[inline(always)]
fn take_whole<'i>(input: &mut &'i [u8]) -> Option<Event<'i>> {
    // The two kinds have nothing in common here, so that neither asks again which it is.
    match input.first_chunk::<LEAST_FRAME>()?[0] {
        WHOLE_TEXT => {
            let (payload, rest) = split_plain(input)?;
            // What is wrong with bad text is found out on the long way.
            let text = utf8::validate(payload).ok()?;
            *input = rest;
            Some(Event::Text(text))
        }
        WHOLE_BINARY => {
            let (payload, rest) = split_plain(input)?;
            *input = rest;
            Some(Event::Binary(payload))
        }
        _ => None,
    }
}

/// With less of a frame missing than this, in bytes, it goes through the shared buffer: the copy is
/// cheaper than a read of its own. And shorter messages are gathered when they are cut: the copy is cheaper
/// than what it takes to go without.
const LEAST_ROOM: usize = 4096;

/// So much is received into a message at a time, in bytes, that it is still in the cache when it is
/// validated.
const MOST_ROOM: usize = 256 * 1024;

/// Is this frame allowed here?
fn check(
    header: &FrameHeader,
    sender: Sender,
    limits: &Limits,
    deflate: bool,
    assembly: &Assembly,
) -> Result<(), ProtocolError> {
    // RFC 6455 §5.1: "A client MUST close a connection if it detects a masked frame." and "The
    // server MUST close the connection upon receiving a frame that is not masked."
    match (sender, header.mask) {
        (Sender::Server, Some(_)) => return Err(ProtocolError::MaskedFrame),
        (Sender::Client, None) => return Err(ProtocolError::UnmaskedFrame),
        _ => {}
    }
    // RFC 6455 §5.2: RSV1 "MUST be 0 unless an extension is negotiated that defines meanings".
    // RFC 7692 §6.1: it is set on the first frame of a compressed message and on no other.
    let first = matches!(header.opcode, OpCode::Text | OpCode::Binary);
    if header.rsv1 && !(deflate && first) {
        return Err(ProtocolError::ReservedBits(4));
    }
    let length = header.payload_length;
    if header.opcode.is_control() {
        // RFC 6455 §5.5: "All control frames MUST have a payload length of 125 bytes or less and
        // MUST NOT be fragmented."
        if !header.fin {
            return Err(ProtocolError::FragmentedControl);
        }
        if length > MAX_CONTROL_PAYLOAD as u64 {
            return Err(ProtocolError::ControlTooLong);
        }
        return Ok(());
    }
    // RFC 6455 §5.4: "The fragments of one message MUST NOT be interleaved between the fragments
    // of another message".
    match (header.opcode, assembly.kind) {
        (OpCode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
        (OpCode::Text | OpCode::Binary, Some(_)) => return Err(ProtocolError::InterruptedMessage),
        _ => {}
    }
    if length > limits.max_frame {
        let limit = limits.max_frame;
        return Err(ProtocolError::FrameTooLarge { length, limit });
    }
    // Of a compressed message only the inflated bytes count, and the inflater counts them: what does
    // not compress is longer on the wire than it is.
    if header.rsv1 || assembly.inflater.is_some() {
        return Ok(());
    }
    // Compared as 64-bit numbers that cannot overflow: a length has 63 bits.
    let length = length + assembly.message.len() as u64;
    if length > limits.max_message {
        let limit = limits.max_message;
        return Err(ProtocolError::MessageTooLarge { length, limit });
    }
    Ok(())
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
