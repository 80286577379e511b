//! The venue's JSON: what subscribers send, and the three kinds of message they get, in the shape
//! of the combined streams that large spot exchanges publish.
//!
//! The market renders a message once, however many subscribers it has; two kinds of field are
//! left open, at known places and of fixed width, because they differ from subscriber to
//! subscriber: the sequence numbers and the time of sending ([`Message::fill`]).

use std::ops::Range;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Best bid and ask, with every change of either.
    BookTicker,
    /// Every trade.
    Trade,
    /// Changes of the order book, several price levels at a time.
    Depth,
}

impl StreamKind {
    pub(crate) const ALL: [Self; 3] = [Self::BookTicker, Self::Trade, Self::Depth];

    /// What follows the symbol in the name of a stream.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::BookTicker => "@bookTicker",
            Self::Trade => "@trade",
            Self::Depth => "@depth",
        }
    }

    /// The "e" field.
    const fn event_name(self) -> &'static str {
        match self {
            Self::BookTicker => "bookTicker",
            Self::Trade => "trade",
            Self::Depth => "depthUpdate",
        }
    }
}

/// Digits of a sequence number: fixed, so that it can be filled in later.
const SEQUENCE_DIGITS: usize = 12;
/// The first sequence number of every subscription; it has all its digits, as JSON knows no leading
/// zeros.
pub(crate) const FIRST_SEQUENCE: u64 = 100_000_000_000;
/// Digits of a time in nanoseconds since the Unix epoch, from 2001 to 2286.
const NANOSECOND_DIGITS: usize = 19;
/// What stands behind the time of sending.
const TAIL: &[u8] = b"}}";

/// An amount as an integer and a number of decimals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    pub(crate) units: u64,
    pub(crate) decimals: usize,
}

/// A rendered message: where it lies, and what is still open in it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Which stream it belongs to.
    pub(crate) stream: usize,
    /// How many sequence numbers it takes: a depth update one per price level, others one.
    pub(crate) updates: u64,
    /// Its place on the tape.
    bytes: Range<usize>,
    /// Where the first sequence number stands, from the message's start.
    first_at: usize,
    /// Where the last one stands, if the message has a field for it.
    last_at: Option<usize>,
}

impl Message {
    /// Fills in what is open; `payload` is a copy of the message.
    pub(crate) fn fill(&self, payload: &mut [u8], first: u64, sent_ns: u64) {
        put_digits(&mut payload[self.first_at..][..SEQUENCE_DIGITS], first);
        if let Some(at) = self.last_at {
            let last = first + self.updates - 1;
            put_digits(&mut payload[at..][..SEQUENCE_DIGITS], last);
        }
        let end = payload.len() - TAIL.len();
        put_digits(&mut payload[end - NANOSECOND_DIGITS..end], sent_ns);
    }
}

/// The messages of one step of the market, one behind the other.
#[derive(Default)]
pub(crate) struct Tape {
    bytes: Vec<u8>,
    pub(crate) messages: Vec<Message>,
}

/// What is common to the messages of one event.
#[derive(Clone, Copy)]
pub(crate) struct Heading<'a> {
    pub(crate) stream: usize,
    /// As in `BTCUSDT`.
    pub(crate) symbol: &'a str,
    /// As in `btcusdt`.
    pub(crate) lower: &'a str,
    /// Time of the event, in milliseconds.
    pub(crate) event_ms: u64,
}

/// One side's price and quantity.
pub(crate) type Level = (Decimal, Decimal);

impl Tape {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }

    pub(crate) fn payload(&self, message: &Message) -> &[u8] {
        &self.bytes[message.bytes.clone()]
    }

    pub(crate) fn book_ticker(&mut self, heading: Heading<'_>, bid: Level, ask: Level) {
        let start = self.begin(heading, StreamKind::BookTicker);
        self.text(",\"u\":");
        let first_at = self.open_sequence(start);
        for (name, amount) in [("b", bid.0), ("B", bid.1), ("a", ask.0), ("A", ask.1)] {
            self.text(",\"");
            self.text(name);
            self.text("\":\"");
            self.decimal(amount);
            self.text("\"");
        }
        self.end(start, heading, 1, first_at, None);
    }

    pub(crate) fn trade(&mut self, heading: Heading<'_>, level: Level, buyer_is_maker: bool) {
        let start = self.begin(heading, StreamKind::Trade);
        self.text(",\"t\":");
        let first_at = self.open_sequence(start);
        self.text(",\"p\":\"");
        self.decimal(level.0);
        self.text("\",\"q\":\"");
        self.decimal(level.1);
        self.text("\",\"T\":");
        self.number(heading.event_ms);
        let maker = if buyer_is_maker { "true" } else { "false" };
        self.text(",\"m\":");
        self.text(maker);
        self.text(",\"M\":true");
        self.end(start, heading, 1, first_at, None);
    }

    pub(crate) fn depth(&mut self, heading: Heading<'_>, bids: &[Level], asks: &[Level]) {
        let start = self.begin(heading, StreamKind::Depth);
        self.text(",\"U\":");
        let first_at = self.open_sequence(start);
        self.text(",\"u\":");
        let last_at = self.open_sequence(start);
        for (name, levels) in [("b", bids), ("a", asks)] {
            self.text(",\"");
            self.text(name);
            self.text("\":[");
            for (index, &(price, quantity)) in levels.iter().enumerate() {
                self.text(if index == 0 { "[\"" } else { ",[\"" });
                self.decimal(price);
                self.text("\",\"");
                self.decimal(quantity);
                self.text("\"]");
            }
            self.text("]");
        }
        let updates = (bids.len() + asks.len()) as u64;
        self.end(start, heading, updates, first_at, Some(last_at));
    }

    /// Everything up to the fields that differ from kind to kind; returns where the message begins.
    fn begin(&mut self, heading: Heading<'_>, kind: StreamKind) -> usize {
        let start = self.bytes.len();
        self.text("{\"stream\":\"");
        self.text(heading.lower);
        self.text(kind.suffix());
        self.text("\",\"data\":{\"e\":\"");
        self.text(kind.event_name());
        self.text("\",\"E\":");
        self.number(heading.event_ms);
        self.text(",\"s\":\"");
        self.text(heading.symbol);
        self.text("\"");
        start
    }

    fn end(
        &mut self,
        start: usize,
        heading: Heading<'_>,
        updates: u64,
        first_at: usize,
        last_at: Option<usize>,
    ) {
        self.text(",\"sent_ns\":");
        self.bytes.extend([b'0'; NANOSECOND_DIGITS]);
        self.bytes.extend_from_slice(TAIL);
        self.messages.push(Message {
            stream: heading.stream,
            updates,
            bytes: start..self.bytes.len(),
            first_at,
            last_at,
        });
    }

    /// Leaves room for a sequence number; returns where, from the message's start.
    fn open_sequence(&mut self, start: usize) -> usize {
        let at = self.bytes.len() - start;
        self.bytes.extend([b'0'; SEQUENCE_DIGITS]);
        at
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, value: u64) {
        self.digits(value, 1);
    }

    fn decimal(&mut self, amount: Decimal) {
        let one = 10_u64.pow(u32::try_from(amount.decimals).unwrap_or(0));
        self.number(amount.units / one);
        if amount.decimals > 0 {
            self.text(".");
            self.digits(amount.units % one, amount.decimals);
        }
    }

    /// Appends `value` with at least `least` digits.
    fn digits(&mut self, value: u64, least: usize) {
        let length = least.max(value.checked_ilog10().map_or(1, |log| log as usize + 1));
        let start = self.bytes.len();
        self.bytes.resize(start + length, b'0');
        put_digits(&mut self.bytes[start..], value);
    }
}

/// Writes the last digits of `value`, as many as `field` has room for.
fn put_digits(field: &mut [u8], mut value: u64) {
    for byte in field.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// What a subscriber asks for: `{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subscribe<'a> {
    /// The names of the streams.
    pub(crate) streams: Vec<&'a str>,
    /// The number that the answer repeats.
    pub(crate) id: u64,
}

impl<'a> Subscribe<'a> {
    /// Finds the three fields in `text`. A venue would use a JSON parser; for the one request that
    /// is known here, searching is enough.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if behind(text, "method")?
            .strip_prefix('"')?
            .split('"')
            .next()?
            != "SUBSCRIBE"
        {
            return None;
        }
        let params = behind(text, "params")?.strip_prefix('[')?;
        let (params, _) = params.split_once(']')?;
        let streams = params
            .split(',')
            .map(|name| name.trim().strip_prefix('"')?.strip_suffix('"'))
            .collect::<Option<Vec<_>>>()?;
        let id = behind(text, "id")?;
        let end = id.find(|c: char| !c.is_ascii_digit()).unwrap_or(id.len());
        let id = id[..end].parse().ok()?;
        Some(Self { streams, id })
    }
}

/// What stands behind `"name":`, white space skipped.
fn behind<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.match_indices(name).find_map(|(at, _)| {
        text[..at].strip_suffix('"')?;
        let rest = text[at + name.len()..].strip_prefix('"')?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: Heading<'_> = Heading {
        stream: 7,
        symbol: "BTCUSDT",
        lower: "btcusdt",
        event_ms: 1_700_000_000_123,
    };

    fn price(units: u64) -> Decimal {
        Decimal { units, decimals: 2 }
    }

    fn rendered(render: impl FnOnce(&mut Tape)) -> String {
        let mut tape = Tape::default();
        // Something in front, so that offsets from the tape's start would show.
        tape.trade(HEADING, (price(1), price(2)), true);
        render(&mut tape);
        let message = &tape.messages[1];
        assert_eq!(message.stream, 7);
        let mut payload = tape.payload(message).to_vec();
        message.fill(&mut payload, FIRST_SEQUENCE + 41, 1_700_000_000_123_456_789);
        String::from_utf8(payload).unwrap()
    }

    #[test]
    fn renders_a_book_ticker() {
        let bid = (price(9_712_345), price(5));
        let ask = (price(9_712_350), price(120));
        assert_eq!(
            rendered(|tape| tape.book_ticker(HEADING, bid, ask)),
            "{\"stream\":\"btcusdt@bookTicker\",\"data\":{\"e\":\"bookTicker\",\
             \"E\":1700000000123,\"s\":\"BTCUSDT\",\"u\":100000000041,\"b\":\"97123.45\",\
             \"B\":\"0.05\",\"a\":\"97123.50\",\"A\":\"1.20\",\"sent_ns\":1700000000123456789}}"
        );
    }

    #[test]
    fn renders_a_trade() {
        let level = (
            price(10),
            Decimal {
                units: 3,
                decimals: 0,
            },
        );
        assert_eq!(
            rendered(|tape| tape.trade(HEADING, level, false)),
            "{\"stream\":\"btcusdt@trade\",\"data\":{\"e\":\"trade\",\"E\":1700000000123,\
             \"s\":\"BTCUSDT\",\"t\":100000000041,\"p\":\"0.10\",\"q\":\"3\",\
             \"T\":1700000000123,\"m\":false,\"M\":true,\"sent_ns\":1700000000123456789}}"
        );
    }

    #[test]
    fn renders_a_depth_update_with_the_first_and_last_of_its_numbers() {
        let bids = [(price(100), price(1)), (price(99), price(0))];
        let asks = [(price(101), price(7))];
        assert_eq!(
            rendered(|tape| tape.depth(HEADING, &bids, &asks)),
            "{\"stream\":\"btcusdt@depth\",\"data\":{\"e\":\"depthUpdate\",\
             \"E\":1700000000123,\"s\":\"BTCUSDT\",\"U\":100000000041,\"u\":100000000043,\
             \"b\":[[\"1.00\",\"0.01\"],[\"0.99\",\"0.00\"]],\"a\":[[\"1.01\",\"0.07\"]],\
             \"sent_ns\":1700000000123456789}}"
        );
    }

    #[test]
    fn parses_subscriptions_in_any_order_and_spacing() {
        let expected = Some(Subscribe {
            streams: vec!["btcusdt@trade", "ethusdt@depth"],
            id: 42,
        });
        for text in [
            r#"{"method":"SUBSCRIBE","params":["btcusdt@trade","ethusdt@depth"],"id":42}"#,
            r#"{ "id" : 42 , "params" : [ "btcusdt@trade" , "ethusdt@depth" ], "method" : "SUBSCRIBE" }"#,
        ] {
            assert_eq!(Subscribe::parse(text), expected);
        }
        for text in [
            "",
            "{}",
            r#"{"method":"UNSUBSCRIBE","params":["a@trade"],"id":1}"#,
            r#"{"method":"SUBSCRIBE","params":["a@trade"]}"#,
            r#"{"method":"SUBSCRIBE","params":["a@trade","id":1}"#,
            r#"{"method":"SUBSCRIBE","params":[1],"id":1}"#,
            r#"{"method":"SUBSCRIBE","params":["a@trade"],"id":99999999999999999999}"#,
        ] {
            assert_eq!(Subscribe::parse(text), None, "{text}");
        }
    }
}
