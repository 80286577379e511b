//! One event: a fixed-size record of two cache lines, with a constructor for each kind in `constructors`.
//!
//! Comes after [`super::kind`], which gives the fields their meaning, and before [`super::ring`], which keeps
//! events. Constructing one never allocates: texts are formatted straight into the record and cut where it ends.

pub(crate) mod address;
mod constructors;

use std::fmt;

use super::kind::{Kind, Subject};

/// What happened on a connection, and when. What the fields mean is documented at each [`Kind`].
///
/// `repr(C)` keeps everything but `detail` in the first cache line, so that walking a ring for one connection
/// touches one line per event.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Event {
    time_ns: u64,
    sequence: u64,
    connection: u64,
    ordinal: u64,
    value: u64,
    limit: u64,
    code: u16,
    /// Length in bytes of the text that `detail` begins, saturating; 0 when it holds payload bytes.
    text_length: u16,
    kind: Kind,
    opcode: u8,
    subject: Subject,
    flags: u8,
    detail_length: u8,
    detail: Detail,
}

/// A cache line of its own: moved in whole, aligned words, none of which straddles another.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Detail([u8; DETAIL_BYTES]);

impl Detail {
    /// Takes what fits of a payload, and says how much that is.
    #[inline(always)]
    fn take(&mut self, payload: &[u8]) -> u8 {
        // The common case copies a constant number of bytes, which compiles to a few wide moves.
        if let Some(first) = payload.first_chunk::<DETAIL_BYTES>() {
            self.0 = *first;
            return DETAIL_LENGTH;
        }
        if !payload.is_empty() {
            self.0[..payload.len()].copy_from_slice(payload);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "shorter than DETAIL_BYTES here"
        )]
        let length = payload.len() as u8;
        length
    }
}

/// What an event about a frame has besides the frame.
#[derive(Clone, Copy)]
pub(crate) struct FrameHead {
    pub(crate) time_ns: u64,
    pub(crate) sequence: u64,
    pub(crate) connection: u64,
    pub(crate) ordinal: u64,
    pub(crate) kind: Kind,
    pub(crate) subject: Subject,
}

#[inline(always)]
fn flags(frame: &Frame<'_>) -> u8 {
    (u8::from(frame.fin) * FIN) | (u8::from(frame.compressed) * COMPRESSED)
}

/// The second of two cache lines.
const DETAIL_BYTES: usize = DETAIL_LENGTH as usize;
const DETAIL_LENGTH: u8 = 64;

// Two cache lines exactly: an event never straddles a third, and a ring of N events is 128 N bytes.
const _: () = assert!(size_of::<Event>() == 128 && align_of::<Event>() == 64);

const FIN: u8 = 1 << 0;
const COMPRESSED: u8 = 1 << 1;
const RESUMED: u8 = 1 << 2;
const RECEIVED: u8 = 1 << 3;

/// A frame, or a whole message, as the trace sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Opcode as on the wire: 1 text, 2 binary, 8 close, 9 ping, 10 pong, 0 continuation.
    pub opcode: u8,
    /// Last (or only) frame of its message.
    pub fin: bool,
    /// `payload` is deflated; it is shown as bytes then, whatever the opcode.
    pub compressed: bool,
    /// Payload length in bytes, as declared.
    pub length: u64,
    /// Payload from its beginning, as far as there is any; the event keeps what fits.
    /// Empty to record the header only, see [`Level::shown`](super::Level::shown).
    pub payload: &'a [u8],
}

impl Event {
    /// How many bytes of a payload or text an event keeps.
    pub const DETAIL_CAPACITY: usize = DETAIL_BYTES;

    /// Fills a place before a frame's event does.
    pub(super) const EMPTY: Event = Event::new(0, 0, Kind::FrameReceived);

    #[inline]
    const fn new(time_ns: u64, connection: u64, kind: Kind) -> Event {
        Event {
            time_ns,
            sequence: 0,
            connection,
            ordinal: 0,
            value: 0,
            limit: 0,
            code: 0,
            text_length: 0,
            kind,
            opcode: 0,
            subject: Subject::None,
            flags: 0,
            detail_length: 0,
            detail: Detail([0; DETAIL_BYTES]),
        }
    }

    // Always: two cache lines are not handed from function to function.
    #[inline(always)]
    fn with_frame(mut self, frame: Frame<'_>) -> Event {
        self.opcode = frame.opcode;
        self.flags = flags(&frame);
        self.value = frame.length;
        self.detail_length = self.detail.take(frame.payload);
        self
    }

    fn with_text(mut self, text: &dyn fmt::Display) -> Event {
        let mut detail = TextWriter { event: &mut self };
        // An error means that the text was longer than can be counted, or that its `Display` gave up:
        // what was written until then is what there is to show.
        let _ = fmt::write(&mut detail, format_args!("{text}"));
        self
    }

    /// Likewise of a text that is there already.
    #[inline]
    fn with_str(mut self, text: &str) -> Event {
        let mut detail = TextWriter { event: &mut self };
        let _ = fmt::Write::write_str(&mut detail, text);
        self
    }

    fn with_close(mut self, code: Option<u16>, reason: &str) -> Event {
        self.code = code.unwrap_or(0);
        self.with_str(reason)
    }

    /// Numbers the event among those of its connection; what is missing shows as a gap then.
    #[inline]
    #[must_use]
    pub fn with_ordinal(mut self, ordinal: u64) -> Event {
        self.set_ordinal(ordinal);
        self
    }

    // In place: two cache lines are not copied for one number.
    #[inline]
    pub(crate) fn set_ordinal(&mut self, ordinal: u64) {
        self.ordinal = ordinal;
    }

    /// Becomes an event about a frame, where it lies: what such an event does not use is not written, and without
    /// payload the second cache line is not touched, which is half of the memory traffic of a busy connection.
    #[inline(always)]
    pub(super) fn become_frame(&mut self, head: FrameHead, frame: &Frame<'_>) {
        self.time_ns = head.time_ns;
        self.sequence = head.sequence;
        self.connection = head.connection;
        self.ordinal = head.ordinal;
        self.value = frame.length;
        self.limit = 0;
        self.code = 0;
        self.text_length = 0;
        self.kind = head.kind;
        self.opcode = frame.opcode;
        self.subject = head.subject;
        self.flags = flags(frame);
        self.detail_length = self.detail.take(frame.payload);
    }

    #[inline]
    pub(super) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }
}

/// What an event holds.
impl Event {
    /// Nanoseconds since the reactor's start.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// Place among all events of the ring, from 0, without gaps; assigned when the event is recorded.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The connection's id: slot in the low 32 bits, generation in the high 32. Only rendering takes it apart.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Place among the events recorded of its connection, from 0, without gaps; where some are missing, they
    /// were overwritten or dropped since.
    #[must_use]
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The event's number: a length, count, delay or token, see [`Kind`].
    #[must_use]
    pub fn value(&self) -> u64 {
        self.value
    }

    /// What [`value`](Event::value) is measured against, see [`Kind`].
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Close code, HTTP status, TLS version or alert number, see [`Kind`]; 0 for none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Opcode of the frame, as on the wire.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.opcode
    }

    /// Stage, callback, timer, limit or level the event is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The frame was the last of its message.
    #[must_use]
    pub fn fin(&self) -> bool {
        self.flags & FIN != 0
    }

    /// The frame's payload is deflated.
    #[must_use]
    pub fn compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }

    /// The TLS session was resumed.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.flags & RESUMED != 0
    }

    /// The TLS alert came from the peer.
    #[must_use]
    pub fn received(&self) -> bool {
        self.flags & RECEIVED != 0
    }

    /// First bytes of the payload, or a text cut at a character boundary, see [`Kind`].
    #[must_use]
    pub fn detail(&self) -> &[u8] {
        &self.detail.0[..usize::from(self.detail_length)]
    }

    /// Length in bytes of what [`detail`](Event::detail) begins: the payload for frames, else the text,
    /// of which no more than 65,535 bytes are counted.
    #[must_use]
    pub fn detail_total(&self) -> u64 {
        match self.kind {
            Kind::FrameReceived | Kind::FragmentedCompleted | Kind::Replying | Kind::FrameSent => {
                self.value
            }
            _ => u64::from(self.text_length),
        }
    }
}

/// What lies behind the end of the detail is nobody's business.
impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        let fields = |event: &Self| {
            let Event {
                time_ns,
                sequence,
                connection,
                ordinal,
                value,
                limit,
                code,
                text_length,
                kind,
                opcode,
                subject,
                flags,
                detail_length: _,
                detail: _,
            } = *event;
            let numbers = (time_ns, sequence, connection, ordinal, value, limit);
            (numbers, code, text_length, kind, opcode, subject, flags)
        };
        fields(self) == fields(other) && self.detail() == other.detail()
    }
}

impl Eq for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("time_ns", &self.time_ns)
            .field("sequence", &self.sequence)
            .field("connection", &self.connection)
            .field("ordinal", &self.ordinal)
            .field("kind", &self.kind)
            .field("subject", &self.subject)
            .field("value", &self.value)
            .field("limit", &self.limit)
            .field("code", &self.code)
            .field("opcode", &self.opcode)
            .field("flags", &self.flags)
            .field(
                "detail",
                &format_args!("\"{}\"", self.detail().escape_ascii()),
            )
            .finish()
    }
}

/// Formats a text into an event's detail: keeps what fits, up to a character boundary, and counts the rest.
struct TextWriter<'a> {
    event: &'a mut Event,
}

impl fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let event = &mut *self.event;
        let start = usize::from(event.detail_length);
        // Once a piece was cut, nothing may follow it: the text would have a hole.
        let room = if start == usize::from(event.text_length) {
            DETAIL_BYTES - start
        } else {
            0
        };
        let mut kept = piece.len().min(room);
        while !piece.is_char_boundary(kept) {
            kept -= 1;
        }
        event.detail.0[start..start + kept].copy_from_slice(&piece.as_bytes()[..kept]);
        #[expect(clippy::cast_possible_truncation, reason = "at most DETAIL_BYTES")]
        let end = (start + kept) as u8;
        event.detail_length = end;
        let counted = u16::try_from(piece.len())
            .ok()
            .and_then(|length| event.text_length.checked_add(length));
        event.text_length = counted.unwrap_or(u16::MAX);
        // A text that is past counting is not formatted any further.
        counted.map(|_| ()).ok_or(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::Callback;
    use super::*;

    fn text(payload: &[u8]) -> Frame<'_> {
        Frame {
            opcode: 1,
            fin: true,
            compressed: false,
            length: payload.len() as u64,
            payload,
        }
    }

    #[test]
    fn is_two_cache_lines() {
        assert_eq!(size_of::<Event>(), 128);
        assert_eq!(align_of::<Event>(), 64);
        assert_eq!(
            std::mem::offset_of!(Event, detail) + Event::DETAIL_CAPACITY,
            128
        );
    }

    #[test]
    fn keeps_the_first_payload_bytes_of_every_length() {
        let payload: Vec<u8> = (0..200).collect();
        for length in 0..=payload.len() {
            let event = Event::frame_received(1, 2, text(&payload[..length]));
            assert_eq!(
                event.detail(),
                &payload[..length.min(Event::DETAIL_CAPACITY)]
            );
            assert_eq!(
                (event.value(), event.detail_total()),
                (length as u64, length as u64)
            );
        }
    }

    #[test]
    fn texts_are_cut_at_a_character_boundary() {
        let long = "é".repeat(100);
        for lead in ["", "x"] {
            let event = Event::terminated(0, 0, format_args!("{lead}{long}"));
            let kept = std::str::from_utf8(event.detail()).unwrap();
            assert!(format!("{lead}{long}").starts_with(kept));
            assert!(
                Event::DETAIL_CAPACITY - kept.len() < 'é'.len_utf8(),
                "{lead}"
            );
            assert_eq!(event.detail_total(), (lead.len() + long.len()) as u64);
        }
    }

    #[test]
    fn a_cut_text_has_no_hole() {
        // The second piece does not fit by one byte; the third would, but must not close the gap.
        let first = "a".repeat(Event::DETAIL_CAPACITY - 1);
        let event = Event::terminated(0, 0, format_args!("{first}{}{}", 'é', 'b'));
        assert_eq!(event.detail(), first.as_bytes());
        assert_eq!(event.detail_total(), first.len() as u64 + 3);
    }

    #[test]
    fn a_text_that_fits_exactly_is_whole() {
        let exact = "a".repeat(Event::DETAIL_CAPACITY);
        let event = Event::terminated(0, 0, &exact);
        assert_eq!(event.detail(), exact.as_bytes());
        assert_eq!(event.detail_total(), exact.len() as u64);
    }

    #[test]
    fn an_endless_text_stops() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("again ")?;
                }
            }
        }
        let event = Event::handler_failed(0, 0, Callback::OnMessage, Endless);
        assert_eq!(event.detail().len(), Event::DETAIL_CAPACITY);
        assert_eq!(event.detail_total(), u64::from(u16::MAX));
    }

    #[test]
    fn flags_and_codes_are_told_apart() {
        let frame = Frame {
            fin: false,
            compressed: true,
            ..text(b"")
        };
        let event = Event::frame_sent(0, 0, frame);
        assert!(!event.fin() && event.compressed() && !event.resumed() && !event.received());
        assert!(Event::tls_resumed(0, 0, 0x0304, "").resumed());
        assert!(!Event::tls_established(0, 0, 0x0304, "").resumed());
        assert!(Event::tls_alert_received(0, 0, 40, "").received());
        assert!(!Event::tls_alert_sent(0, 0, 40, "").received());
        assert_eq!(Event::close_sent(0, 0, None, "").code(), 0);
        assert_eq!(Event::close_sent(0, 0, Some(1000), "bye").detail(), b"bye");
    }
}
