//! Finds the few fields that are needed in a message, without parsing the rest of it.
//!
//! A trading program would use a JSON parser, or generated code. For a handful of fields that stand
//! at known places, searching is faster than either, and shows the cost of the connection instead
//! of that of the parser.

/// What the embedded exchange says about a message, whichever stream it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update<'a> {
    /// As in `btcusdt@trade`.
    pub(crate) stream: &'a str,
    /// The first sequence number it takes.
    pub(crate) first: u64,
    /// The last one; the same except for depth updates.
    pub(crate) last: u64,
    /// When it was sent, on the exchange's clock.
    pub(crate) sent_ns: u64,
}

impl<'a> Update<'a> {
    /// `None` if `text` is something else, such as the answer to a request.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (stream, data) = text.strip_prefix("{\"stream\":\"")?.split_once('"')?;
        let (_, kind) = stream.split_once('@')?;
        let (first, last) = match kind {
            "bookTicker" => {
                let number = number(data, "\"u\":")?;
                (number, number)
            }
            "trade" => {
                let number = number(data, "\"t\":")?;
                (number, number)
            }
            "depth" => (number(data, "\"U\":")?, number(data, "\"u\":")?),
            _ => return None,
        };
        // It is the last field, so look from the end.
        let name = "\"sent_ns\":";
        let sent_ns = leading_number(&data[data.rfind(name)? + name.len()..])?;
        Some(Self {
            stream,
            first,
            last,
            sent_ns,
        })
    }
}

/// Which instrument a venue's message is about, by the names that large venues give the field.
pub(crate) fn instrument(text: &str) -> Option<&str> {
    [
        "\"s\":\"",
        "\"symbol\":\"",
        "\"product_id\":\"",
        "\"instId\":\"",
        "\"pair\":\"",
    ]
    .iter()
    .find_map(|name| Some(text.split_once(name)?.1.split_once('"')?.0))
}

fn number(text: &str, name: &str) -> Option<u64> {
    leading_number(&text[text.find(name)? + name.len()..])
}

fn leading_number(text: &str) -> Option<u64> {
    let mut value = None;
    for byte in text.bytes().take_while(u8::is_ascii_digit) {
        let digit = u64::from(byte - b'0');
        value = Some(value.unwrap_or(0_u64).checked_mul(10)?.checked_add(digit)?);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_fields_of_each_kind() {
        let update = |stream, first, last| {
            Some(Update {
                stream,
                first,
                last,
                sent_ns: 17,
            })
        };
        let trade =
            r#"{"stream":"a@trade","data":{"e":"trade","s":"A","t":5,"p":"1","sent_ns":17}}"#;
        assert_eq!(Update::parse(trade), update("a@trade", 5, 5));
        let ticker = r#"{"stream":"a@bookTicker","data":{"u":6,"s":"A","B":"1","sent_ns":17}}"#;
        assert_eq!(Update::parse(ticker), update("a@bookTicker", 6, 6));
        let depth = r#"{"stream":"a@depth","data":{"U":7,"u":9,"b":[],"a":[],"sent_ns":17}}"#;
        assert_eq!(Update::parse(depth), update("a@depth", 7, 9));
    }

    #[test]
    fn anything_else_is_no_update() {
        for text in [
            "",
            r#"{"result":null,"id":1}"#,
            r#"{"stream":"a@kline","data":{"u":6,"sent_ns":17}}"#,
            r#"{"stream":"a@trade","data":{"t":"5","sent_ns":17}}"#,
            r#"{"stream":"a@trade","data":{"t":5}}"#,
            r#"{"stream":"a@trade","data":{"t":99999999999999999999,"sent_ns":17}}"#,
            r#"{"stream":"a@trade"#,
        ] {
            assert_eq!(Update::parse(text), None, "{text}");
        }
    }

    #[test]
    fn finds_the_instrument_by_its_usual_names() {
        assert_eq!(
            instrument(r#"{"e":"trade","s":"BTCUSDT"}"#),
            Some("BTCUSDT")
        );
        assert_eq!(instrument(r#"{"product_id":"BTC-USD"}"#), Some("BTC-USD"));
        assert_eq!(instrument(r#"{"type":"hello"}"#), None);
    }
}
