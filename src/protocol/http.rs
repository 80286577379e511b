//! Heads of HTTP/1.1 messages (RFC 9112), parsed while they arrive.
//!
//! Bytes come in as the socket delivers them, one at a time if need be. A head that is there whole, as
//! nearly every one, is checked in one go. Otherwise complete lines are parsed and put away, and of an
//! incomplete line only the part that just arrived is searched for its end. The parser stops right behind the blank
//! line, so that whatever follows (frames, in a `101` answer) is left untouched for the next layer.
//! [`super::handshake`] decides what a head means; here it only has to be well-formed.
//!
//! The rules are stricter than what RFC 9112 lets a lenient recipient do: lines end with CRLF and
//! nothing else, there is no line folding, no space before a colon and no control character. Where
//! two readers could disagree about a head, it is refused.

use std::error::Error;
use std::fmt;

/// Most header lines in one head. Real answers have about ten; the limit keeps the bookkeeping of
/// a head in proportion to its text.
pub const MAX_HEADERS: usize = 128;

/// The first line of a head: [`StatusLine`] or [`RequestLine`].
pub trait StartLine: Sized {
    /// What every such line begins with; empty if that is not fixed. A peer that speaks another
    /// protocol is found out with its first byte, even if it never sends a line break.
    const PREFIX: &'static [u8];

    /// Parses the line, which comes without its CRLF and holds no control character but HTAB.
    ///
    /// # Errors
    /// [`MalformedHead::StartLine`] or [`MalformedHead::Version`].
    fn parse(line: &str) -> Result<Self, MalformedHead>;
}

/// `HTTP/1.1 101 Switching Protocols`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// The `x` of `HTTP/1.x`.
    pub minor_version: u8,
    /// Three digits, 100 to 999.
    pub status: u16,
    /// The reason phrase, often empty; the peer's words.
    pub reason: Box<str>,
}

/// `GET /path?query HTTP/1.1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// A token, by convention in upper case.
    pub method: Box<str>,
    /// The request target: printable ASCII, never empty.
    pub target: Box<str>,
    /// The `x` of `HTTP/1.x`.
    pub minor_version: u8,
}

impl StartLine for StatusLine {
    const PREFIX: &'static [u8] = b"HTTP/";

    fn parse(line: &str) -> Result<Self, MalformedHead> {
        let (version, rest) = split_at_byte(line, b' ').ok_or(MalformedHead::StartLine)?;
        let minor_version = parse_version(version)?;
        // RFC 9112 §4: "A server MUST send the space that separates the status-code from the
        // reason-phrase even when the reason-phrase is absent". Many do not; nothing is ambiguous
        // about it, so this one is forgiven.
        let (status, reason) = split_at_byte(rest, b' ').unwrap_or((rest, ""));
        let [
            hundreds @ b'1'..=b'9',
            tens @ b'0'..=b'9',
            units @ b'0'..=b'9',
        ] = status.as_bytes()
        else {
            return Err(MalformedHead::StartLine);
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        let status = 100 * digit(hundreds) + 10 * digit(tens) + digit(units);
        Ok(Self {
            minor_version,
            status,
            reason: reason.into(),
        })
    }
}

impl StartLine for RequestLine {
    const PREFIX: &'static [u8] = b"";

    fn parse(line: &str) -> Result<Self, MalformedHead> {
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedHead::StartLine);
        };
        if !is_token(method) || target.is_empty() || !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(MalformedHead::StartLine);
        }
        let minor_version = parse_version(version)?;
        Ok(Self {
            method: method.into(),
            target: target.into(),
            minor_version,
        })
    }
}

/// RFC 9112 §2.3: `HTTP/` digit `.` digit, case-sensitive. A higher minor version is understood as
/// HTTP/1.1 would be; another major version is another protocol.
fn parse_version(text: &str) -> Result<u8, MalformedHead> {
    match text.as_bytes() {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
        ] => Ok(minor - b'0'),
        [b'H', b'T', b'T', b'P', b'/', ..] => Err(MalformedHead::Version),
        _ => Err(MalformedHead::StartLine),
    }
}

/// RFC 9110 §5.6.2: the characters of header names, methods and subprotocols. At least one of them.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| IS_TCHAR[usize::from(byte)])
}

/// By byte: is it a `tchar`?
const IS_TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"!#$%&'*+-.^_`|~";
    while let [byte, rest @ ..] = others {
        table[*byte as usize] = true;
        others = rest;
    }
    table
};

/// Where `byte` stands first.
fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let pattern = ONES * u64::from(byte);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // The lowest byte that is zero here has its upper bit set there, and none below it has.
        let differences = u64::from_le_bytes(*word) ^ pattern;
        let zeros = differences.wrapping_sub(ONES) & !differences & (ONES << 7);
        if zeros != 0 {
            return Some(8 * index + zeros.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|other| *other == byte)?;
    Some(8 * words.len() + found)
}

/// What stands before the first `byte`, which is ASCII, and what stands behind it.
fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    let place = find(text.as_bytes(), byte)?;
    Some((&text[..place], &text[place + 1..]))
}

/// RFC 9110 §5.6.3: optional white space is SP and HTAB, nothing else.
pub(crate) fn trim_whitespace(text: &str) -> &str {
    let is_black = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let bytes = text.as_bytes();
    let Some(start) = bytes.iter().position(is_black) else {
        return "";
    };
    let end = bytes
        .iter()
        .rposition(is_black)
        .map_or(start, |last| last + 1);
    &text[start..end]
}

/// The header lines of a head in the order they came: one text, and where each name and value ends.
///
/// Names keep their case and are compared without it. Values come without the white space around
/// them. A line that is not UTF-8 is read as ISO-8859-1, which is what RFC 9110 §5.5 says such
/// bytes once meant.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Name, value, name, value, with nothing between them.
    text: String,
    fields: Vec<Field>,
}

/// What the answer to an opening handshake has at most, if the server adds no cookies and the like.
const USUAL_TEXT: usize = 192;
const USUAL_FIELDS: usize = 8;

/// Where a field ends; it starts where the one before it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    name_end: usize,
    value_end: usize,
}

impl Headers {
    /// How many header lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Names and values in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.fields.iter().map(move |field| {
            let pair = (
                &self.text[start..field.name_end],
                &self.text[field.name_end..field.value_end],
            );
            start = field.value_end;
            pair
        })
    }

    /// The values of every header line of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        let value = move |field| self.value_if(&mut start, field, name);
        self.fields.iter().filter_map(value)
    }

    /// The value of the first header line of this name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        let mut start = 0;
        let value = |field| self.value_if(&mut start, field, name);
        self.fields.iter().find_map(value)
    }

    /// The value of the field that begins at `start`, if this is its name; the next one begins at `start`
    /// then.
    fn value_if(&self, start: &mut usize, field: &Field, name: &str) -> Option<&str> {
        let begin = std::mem::replace(start, field.value_end);
        // Most differ in their lengths already.
        if field.name_end - begin != name.len() {
            return None;
        }
        let other = &self.text[begin..field.name_end];
        // Nearly all servers write the names as the RFC does.
        let is_it = other == name || other.eq_ignore_ascii_case(name);
        is_it.then(|| &self.text[field.name_end..field.value_end])
    }

    /// The elements of a comma-separated list of tokens, over all header lines of this name.
    /// Not for lists whose elements may be quoted.
    ///
    /// RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list
    /// elements".
    pub fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(split_list)
    }

    /// Whether [`tokens`](Self::tokens) has this one, compared without regard to ASCII case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name)
            .any(|other| other.eq_ignore_ascii_case(token))
    }

    fn push(&mut self, name: &str, value: &str) {
        if self.fields.is_empty() {
            // So that the usual answer is not moved from one allocation to the next as it grows.
            self.text = String::with_capacity(USUAL_TEXT.max(name.len() + value.len()));
            self.fields = Vec::with_capacity(USUAL_FIELDS);
        }
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.fields.push(Field {
            name_end,
            value_end: self.text.len(),
        });
    }
}

/// The elements of a comma-separated list, without white space around them and without empty ones.
pub(crate) fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    let pieces = std::iter::from_fn(move || {
        let list = rest?;
        let (piece, behind) = match split_at_byte(list, b',') {
            Some((piece, behind)) => (piece, Some(behind)),
            None => (list, None),
        };
        rest = behind;
        Some(piece)
    });
    pieces
        .map(trim_whitespace)
        .filter(|element| !element.is_empty())
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A complete head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<L> {
    /// The first line.
    pub start: L,
    /// The lines after it.
    pub headers: Headers,
}

/// What [`HeadParser::receive`] did with its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<L> {
    /// So many bytes of the input belong to the head; the rest was not touched.
    pub consumed: usize,
    /// The head, once its blank line has come.
    pub head: Option<Head<L>>,
}

/// Parses one head after the other out of a stream of bytes.
#[derive(Debug)]
pub struct HeadParser<L> {
    limit: usize,
    /// Bytes of this head so far.
    received: usize,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    start: Option<L>,
    headers: Headers,
}

/// A head in one piece: text, and where each of its lines ends.
struct Whole<'a> {
    text: &'a str,
    ends: [usize; LINES_AT_ONCE],
    lines: usize,
}

/// So many lines do the heads of most servers not have.
const LINES_AT_ONCE: usize = 16;

impl<L: StartLine> HeadParser<L> {
    /// A parser for heads of at most `limit` bytes each, blank line included. It allocates only
    /// for what arrives.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            received: 0,
            partial: Vec::new(),
            start: None,
            headers: Headers::default(),
        }
    }

    /// Takes the next bytes of the stream. When the head is complete the parser is ready for
    /// another one, starting with the bytes that were not consumed.
    ///
    /// # Errors
    /// The head is malformed or exceeds a limit. The stream is beyond repair; do not go on with it.
    pub fn receive(&mut self, input: &[u8]) -> Result<Progress<L>, HeadError> {
        if let Some(head) = self.whole(input) {
            return self.receive_whole(&head);
        }
        let mut rest = input;
        while let Some(length) = find(rest, b'\n') {
            let (piece, behind) = rest.split_at(length + 1);
            rest = behind;
            self.count(piece.len())?;
            let blank = if self.partial.is_empty() {
                self.handle_line(piece)?
            } else {
                self.partial.extend_from_slice(piece);
                let line = std::mem::take(&mut self.partial);
                let blank = self.handle_line(&line)?;
                // The allocation is good for the next line that arrives in pieces.
                self.partial = line;
                self.partial.clear();
                blank
            };
            if blank {
                return Ok(self.finish(input.len() - rest.len()));
            }
        }
        self.count(rest.len())?;
        self.partial.extend_from_slice(rest);
        if self.start.is_none() {
            check_prefix::<L>(&self.partial)?;
        }
        Ok(Progress {
            consumed: input.len(),
            head: None,
        })
    }

    /// A head that has come in one piece, as most do, and has nothing in it that [`Self::handle_line`] might
    /// object to before it knows what the line says.
    fn whole<'a>(&self, input: &'a [u8]) -> Option<Whole<'a>> {
        if self.received > 0 {
            return None;
        }
        let (mut lines, mut end) = (0, 0);
        let mut ends = [0; LINES_AT_ONCE];
        loop {
            let length = find(&input[end..], b'\n')? + 1;
            end += length;
            if end > self.limit || length < 2 || input[end - 2] != b'\r' {
                return None;
            }
            *ends.get_mut(lines)? = end;
            lines += 1;
            if length == 2 {
                break;
            }
        }
        let head = &input[..end];
        // Counted in bytes, so that it is done many at a time.
        let is_control = |byte: &u8| u8::from(byte.is_ascii_control() && *byte != b'\t');
        let controls: usize = head
            .chunks(255)
            .map(|chunk| usize::from(chunk.iter().map(is_control).sum::<u8>()))
            .sum();
        // Those of the line ends, and no other.
        let is_clean = controls == 2 * lines;
        let text = str::from_utf8(head).ok().filter(|_| is_clean)?;
        Some(Whole { text, ends, lines })
    }

    fn receive_whole(&mut self, head: &Whole<'_>) -> Result<Progress<L>, HeadError> {
        let mut start = 0;
        for &end in &head.ends[..head.lines] {
            self.handle_text(&head.text[start..end - 2])?;
            start = end;
        }
        Ok(self.finish(head.text.len()))
    }

    /// The blank line has come.
    fn finish(&mut self, consumed: usize) -> Progress<L> {
        self.received = 0;
        let headers = std::mem::take(&mut self.headers);
        Progress {
            consumed,
            head: self.start.take().map(|start| Head { start, headers }),
        }
    }

    /// Bytes received of a head that is not complete.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received
    }

    fn count(&mut self, bytes: usize) -> Result<(), HeadError> {
        self.received = self.received.saturating_add(bytes);
        if self.received > self.limit {
            return Err(HeadError::Limit(HeadLimit::HeaderBytes(self.limit)));
        }
        Ok(())
    }

    /// Takes a line with its LF. Returns whether it was the blank one that ends the head.
    fn handle_line(&mut self, line: &[u8]) -> Result<bool, HeadError> {
        if self.start.is_none() {
            check_prefix::<L>(line)?;
        }
        let line = strip_line_end(line)?;
        let is_forbidden = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        // All of them, so that it is done many at a time; which one it was, is asked seldom.
        if line
            .iter()
            .fold(false, |any, byte| any | is_forbidden(byte))
            && let Some(&byte) = line.iter().find(|byte| is_forbidden(byte))
        {
            return Err(HeadError::Malformed(match byte {
                // RFC 9112 §2.2: "A sender MUST NOT generate a bare CR (a CR character not
                // immediately followed by LF) within any protocol elements other than the content."
                b'\r' => MalformedHead::BareCarriageReturn,
                // RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid
                // and dangerous"; the other control characters are "also invalid".
                _ => MalformedHead::ControlCharacter,
            }));
        }
        let latin_1: String;
        let line = match str::from_utf8(line) {
            Ok(line) => line,
            Err(_) => {
                latin_1 = line.iter().copied().map(char::from).collect();
                &latin_1
            }
        };
        self.handle_text(line)
    }

    /// Takes a line without its end. Returns whether it was the blank one that ends the head.
    fn handle_text(&mut self, line: &str) -> Result<bool, HeadError> {
        if self.start.is_none() {
            self.start = Some(L::parse(line).map_err(HeadError::Malformed)?);
            return Ok(false);
        }
        if line.is_empty() {
            return Ok(true);
        }
        if self.headers.len() == MAX_HEADERS {
            return Err(HeadError::Limit(HeadLimit::HeaderCount(MAX_HEADERS)));
        }
        let (name, value) = parse_field(line).map_err(HeadError::Malformed)?;
        self.headers.push(name, value);
        Ok(false)
    }
}

/// Compares as much of the prefix as has arrived.
fn check_prefix<L: StartLine>(line: &[u8]) -> Result<(), HeadError> {
    let length = line.len().min(L::PREFIX.len());
    if line[..length] == L::PREFIX[..length] {
        Ok(())
    } else {
        Err(HeadError::Malformed(MalformedHead::StartLine))
    }
}

fn strip_line_end(line: &[u8]) -> Result<&[u8], HeadError> {
    // RFC 9112 §2.2: "Although the line terminator for the start-line and fields is the sequence
    // CRLF, a recipient MAY recognize a single LF as a line terminator". This one does not: what
    // one reader takes for a line end and another for part of a value is how heads are smuggled.
    line.strip_suffix(b"\r\n")
        .ok_or(HeadError::Malformed(MalformedHead::BareLineFeed))
}

fn parse_field(line: &str) -> Result<(&str, &str), MalformedHead> {
    // RFC 9112 §5.2: "A user agent that receives an obs-fold in a response message [...] MUST
    // replace each received obs-fold with one or more SP octets". No WebSocket server needs it, and
    // it lets one header hide inside another.
    if line.starts_with([' ', '\t']) {
        return Err(MalformedHead::FoldedLine);
    }
    let (name, value) = split_at_byte(line, b':').ok_or(MalformedHead::NoColon)?;
    if name.is_empty() {
        return Err(MalformedHead::EmptyName);
    }
    // RFC 9112 §5.1: "No whitespace is allowed between the field name and colon."
    if name.ends_with([' ', '\t']) {
        return Err(MalformedHead::SpaceBeforeColon);
    }
    if !is_token(name) {
        return Err(MalformedHead::NameNotToken);
    }
    // RFC 9112 §5.1: "OWS occurring before the first non-whitespace octet of the field line value,
    // or after the last [...], is excluded by parsers when extracting the field line value".
    Ok((name, trim_whitespace(value)))
}

/// Why a head was refused: the peer's bytes are wrong, or there are too many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Bytes that are not a well-formed HTTP/1.1 head.
    Malformed(MalformedHead),
    /// Our limits do not allow more.
    Limit(HeadLimit),
}

/// What is malformed about a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedHead {
    /// The first line is not the one of an HTTP message; the peer may speak another protocol.
    StartLine,
    /// An HTTP version other than 1.x.
    Version,
    /// A line that ends with LF alone.
    BareLineFeed,
    /// A CR without LF behind it.
    BareCarriageReturn,
    /// NUL or another control character.
    ControlCharacter,
    /// A line that starts with white space: the obsolete way to continue a header value.
    FoldedLine,
    /// A header line without a colon.
    NoColon,
    /// A header line with nothing before the colon.
    EmptyName,
    /// White space between a header name and its colon.
    SpaceBeforeColon,
    /// A header name with characters that no token has.
    NameNotToken,
}

/// A limit of ours that a head reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadLimit {
    /// The head is longer than so many bytes.
    HeaderBytes(usize),
    /// The head has more than so many header lines.
    HeaderCount(usize),
    /// More than so many 1xx heads came before the final one.
    InterimHeads(usize),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Limit(limit) => limit.fmt(f),
        }
    }
}

impl fmt::Display for MalformedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartLine => "the first line is not that of an HTTP message (RFC 9112 §2.1)",
            Self::Version => "the HTTP version is not 1.x (RFC 9112 §2.3)",
            Self::BareLineFeed => "a header line ends with LF instead of CRLF (RFC 9112 §2.2)",
            Self::BareCarriageReturn => "a header line contains a bare CR (RFC 9112 §2.2)",
            Self::ControlCharacter => "a header line contains a control character (RFC 9110 §5.5)",
            Self::FoldedLine => "a header line is folded (RFC 9112 §5.2)",
            Self::NoColon => "a header line has no colon (RFC 9112 §5)",
            Self::EmptyName => "a header line has no name (RFC 9112 §5)",
            Self::SpaceBeforeColon => "white space stands before a header's colon (RFC 9112 §5.1)",
            Self::NameNotToken => "a header name is not a token (RFC 9110 §5.1)",
        })
    }
}

impl fmt::Display for HeadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderBytes(limit) => write!(f, "the HTTP head is longer than {limit} bytes"),
            Self::HeaderCount(limit) => write!(f, "the HTTP head has more than {limit} headers"),
            Self::InterimHeads(limit) => write!(f, "more than {limit} interim (1xx) answers came"),
        }
    }
}

impl Error for HeadError {}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
