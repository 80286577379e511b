//! permessage-deflate (RFC 7692): what is offered, and what an answer may say to it.
//!
//! Before this comes the opening handshake, which carries offer and answer; after it the decoder
//! inflates and the session deflates, through `zlib.rs`, the one file that knows zlib-rs.

#[cfg(feature = "deflate")]
mod zlib;
#[cfg(not(feature = "deflate"))]
#[path = "absent.rs"]
mod zlib;

pub use zlib::{Deflaters, Inflater};

use super::handshake::{Extension, parse_extensions};
use std::fmt;

/// The extension's name (RFC 7692 §7).
pub const NAME: &str = "permessage-deflate";

/// The largest LZ77 window, as a power of two; what counts where nothing was agreed.
pub const MAX_WINDOW_BITS: u8 = 15;
const LEAST_WINDOW_BITS: u8 = 8;

/// Outgoing messages of at least this many bytes are deflated where nothing else was asked for:
/// below, the frame hardly shrinks and the time is wasted.
const DEFAULT_THRESHOLD: usize = 1024;

/// zlib's own default: most of the gain for a fraction of the time of level 9.
const DEFAULT_LEVEL: u8 = 6;

/// What to offer the server, and how to compress what is sent. Set with
/// `Request::deflate`.
///
/// What the server sends is inflated with one window per connection, or, if it agrees to
/// [`server_no_context_takeover`](Self::server_no_context_takeover), with one that all connections
/// of a reactor share. What is sent is deflated message by message with nothing carried over, so
/// that no connection owns a deflater; the offer says so (`client_no_context_takeover`), and the
/// server need not keep a window for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    server_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
    threshold: Option<usize>,
    level: u8,
}

/// A window size that is not between 8 and 15 bits, or a level that is not between 1 and 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange(pub u8);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is out of range: windows have 8 to 15 bits (RFC 7692 section 7.1.2), levels go from 1 to 9",
            self.0
        )
    }
}

impl std::error::Error for OutOfRange {}

impl Default for Deflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Deflate {
    /// Offers the extension with nothing asked of the server.
    pub const fn new() -> Self {
        Self {
            server_no_context_takeover: false,
            server_max_window_bits: None,
            client_max_window_bits: None,
            threshold: Some(DEFAULT_THRESHOLD),
            level: DEFAULT_LEVEL,
        }
    }

    /// Asks the server to compress each message by itself (RFC 7692 §7.1.1.1). Saves about 47 KiB
    /// of memory per connection here, and costs bandwidth.
    #[must_use]
    pub const fn server_no_context_takeover(mut self) -> Self {
        self.server_no_context_takeover = true;
        self
    }

    /// Asks the server for a window of at most 2^`bits` bytes (RFC 7692 §7.1.2.1), 8 to 15. It
    /// saves memory there and not here, where zlib-rs has room for the largest in any case.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub const fn server_max_window_bits(mut self, bits: u8) -> Result<Self, OutOfRange> {
        if bits < LEAST_WINDOW_BITS || bits > MAX_WINDOW_BITS {
            return Err(OutOfRange(bits));
        }
        self.server_max_window_bits = Some(bits);
        Ok(self)
    }

    /// Tells the server that no window of more than 2^`bits` bytes is used for what is sent
    /// (RFC 7692 §7.1.2.2), 8 to 15. Without it the server may still ask for a smaller one.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub const fn client_max_window_bits(mut self, bits: u8) -> Result<Self, OutOfRange> {
        if bits < LEAST_WINDOW_BITS || bits > MAX_WINDOW_BITS {
            return Err(OutOfRange(bits));
        }
        self.client_max_window_bits = Some(bits);
        Ok(self)
    }

    /// Deflates outgoing messages of at least `bytes` bytes; 1,024 by default. Each message can be
    /// sent otherwise with [`Context::send_with`](crate::Context::send_with).
    #[must_use]
    pub const fn compress_from(mut self, bytes: usize) -> Self {
        self.threshold = Some(bytes);
        self
    }

    /// Deflates no outgoing message unless it is asked for.
    #[must_use]
    pub const fn never_compress(mut self) -> Self {
        self.threshold = None;
        self
    }

    /// How hard to try, from 1 (fast) to 9; 6 by default.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub const fn level(mut self, level: u8) -> Result<Self, OutOfRange> {
        if level < 1 || level > 9 {
            return Err(OutOfRange(level));
        }
        self.level = level;
        Ok(self)
    }

    /// The value of `Sec-WebSocket-Extensions` in the request.
    pub fn offer(&self) -> String {
        use std::fmt::Write;
        let mut offer = format!("{NAME}; client_no_context_takeover");
        if self.server_no_context_takeover {
            offer.push_str("; server_no_context_takeover");
        }
        // Writing to a string cannot fail.
        if let Some(bits) = self.server_max_window_bits {
            let _ = write!(offer, "; server_max_window_bits={bits}");
        }
        match self.client_max_window_bits {
            Some(bits) => {
                let _ = write!(offer, "; client_max_window_bits={bits}");
            }
            None => offer.push_str("; client_max_window_bits"),
        }
        offer
    }

    /// Checks the value of `Sec-WebSocket-Extensions` in the answer against the offer (pitfall 12).
    /// `None`: the server does not use the extension.
    ///
    /// # Errors
    /// [`AnswerError`]: the connection must fail then (RFC 7692 §7.1).
    pub fn accept(&self, answer: Option<&str>) -> Result<Option<Agreed>, AnswerError> {
        let Some(answer) = answer else {
            return Ok(None);
        };
        let extensions = parse_extensions(answer).map_err(|_| AnswerError::Malformed)?;
        let [extension] = &extensions[..] else {
            // RFC 6455 §9.1: the server may use each extension that was offered, and this one was
            // offered once.
            return Err(AnswerError::Repeated);
        };
        if extension.name != NAME {
            return Err(AnswerError::NotOffered);
        }
        self.check(&Parameters::read(extension)?).map(Some)
    }

    fn check(&self, answer: &Parameters) -> Result<Agreed, AnswerError> {
        // RFC 7692 §7.1.1.1: "A server accepts an extension negotiation offer that includes the
        // "server_no_context_takeover" extension parameter by including [it] in the corresponding
        // extension negotiation response".
        if self.server_no_context_takeover && !answer.server_no_context_takeover {
            return Err(AnswerError::Ignored("server_no_context_takeover"));
        }
        // §7.1.2.1: "by including [...] a parameter with the same or smaller value as the offer".
        let server_bits = match (self.server_max_window_bits, answer.server_max_window_bits) {
            (Some(_), None) => return Err(AnswerError::Ignored("server_max_window_bits")),
            (Some(most), Some(bits)) if bits > most => {
                return Err(AnswerError::TooLarge("server_max_window_bits"));
            }
            (_, bits) => bits.unwrap_or(MAX_WINDOW_BITS),
        };
        // §7.1.2.2: what the offer says holds whether the answer repeats it or makes it smaller.
        let most = self.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
        let client_bits = match answer.client_max_window_bits {
            Some(bits) if bits > most => {
                return Err(AnswerError::TooLarge("client_max_window_bits"));
            }
            bits => bits.unwrap_or(most),
        };
        Ok(Agreed {
            server_context_takeover: !answer.server_no_context_takeover,
            server_window_bits: server_bits,
            client_window_bits: client_bits,
            threshold: self.threshold,
            level: self.level,
        })
    }
}

/// What holds on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The server's window lives on from message to message.
    pub server_context_takeover: bool,
    /// The size of the server's window, as a power of two.
    pub server_window_bits: u8,
    /// The size of the client's window, as a power of two.
    pub client_window_bits: u8,
    pub(crate) threshold: Option<usize>,
    pub(crate) level: u8,
}

/// The parameters of an answer (RFC 7692 §7.1), each at most once.
#[derive(Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl Parameters {
    /// RFC 7692 §7.1: a client "MUST _Fail the WebSocket Connection_ if the peer server accepted an
    /// extension negotiation offer [...] with an extension negotiation response" that has a
    /// parameter not defined for a response, one with an invalid value, or one that is repeated.
    fn read(extension: &Extension<'_>) -> Result<Self, AnswerError> {
        let mut read = Self::default();
        for (name, value) in &extension.params {
            let value = value.as_deref();
            match *name {
                "server_no_context_takeover" => {
                    flag(
                        "server_no_context_takeover",
                        value,
                        &mut read.server_no_context_takeover,
                    )?;
                }
                "client_no_context_takeover" => {
                    flag(
                        "client_no_context_takeover",
                        value,
                        &mut read.client_no_context_takeover,
                    )?;
                }
                "server_max_window_bits" => {
                    bits(
                        "server_max_window_bits",
                        value,
                        &mut read.server_max_window_bits,
                    )?;
                }
                "client_max_window_bits" => {
                    bits(
                        "client_max_window_bits",
                        value,
                        &mut read.client_max_window_bits,
                    )?;
                }
                _ => return Err(AnswerError::UnknownParameter),
            }
        }
        Ok(read)
    }
}

fn flag(name: &'static str, value: Option<&str>, seen: &mut bool) -> Result<(), AnswerError> {
    if std::mem::replace(seen, true) {
        return Err(AnswerError::RepeatedParameter(name));
    }
    match value {
        None => Ok(()),
        Some(_) => Err(AnswerError::InvalidValue(name)),
    }
}

/// RFC 7692 §7.1.2.1: the value "MUST conform to [...] a decimal integer value without leading
/// zeroes between 8 to 15, inclusive". In an answer it is not optional.
fn bits(name: &'static str, value: Option<&str>, seen: &mut Option<u8>) -> Result<(), AnswerError> {
    let value = match value {
        Some("8") => 8,
        Some("9") => 9,
        Some("10") => 10,
        Some("11") => 11,
        Some("12") => 12,
        Some("13") => 13,
        Some("14") => 14,
        Some("15") => 15,
        _ => return Err(AnswerError::InvalidValue(name)),
    };
    if seen.replace(value).is_some() {
        return Err(AnswerError::RepeatedParameter(name));
    }
    Ok(())
}

/// Why the server's answer to the offer is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// It does not follow the grammar of extensions.
    Malformed,
    /// It names an extension that was not offered.
    NotOffered,
    /// It names more than the one extension that was offered once.
    Repeated,
    /// A parameter that RFC 7692 does not define.
    UnknownParameter,
    /// A parameter that stands there twice.
    RepeatedParameter(&'static str),
    /// A parameter with a value it must not have, or without one it must.
    InvalidValue(&'static str),
    /// A parameter of the offer that the server had to repeat.
    Ignored(&'static str),
    /// A window larger than offered.
    TooLarge(&'static str),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the extensions of the answer are malformed"),
            Self::NotOffered => f.write_str("the server uses an extension that was not offered"),
            Self::Repeated => f.write_str("the server uses an extension more than once"),
            Self::UnknownParameter => {
                write!(f, "the answer to {NAME} has an unknown parameter")
            }
            Self::RepeatedParameter(name) => write!(f, "the answer to {NAME} repeats {name}"),
            Self::InvalidValue(name) => {
                write!(f, "{name} has an invalid value in the answer to {NAME}")
            }
            Self::Ignored(name) => write!(f, "the answer to {NAME} ignores the offered {name}"),
            Self::TooLarge(name) => {
                write!(f, "{name} is larger than offered in the answer to {NAME}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(offer: Deflate, answer: &str) -> Result<Option<Agreed>, AnswerError> {
        offer.accept(Some(answer))
    }

    #[test]
    fn offers_say_what_was_asked_for() {
        let plain = "permessage-deflate; client_no_context_takeover; client_max_window_bits";
        assert_eq!(Deflate::new().offer(), plain);
        let full = Deflate::new()
            .server_no_context_takeover()
            .server_max_window_bits(10)
            .and_then(|offer| offer.client_max_window_bits(9))
            .unwrap();
        assert_eq!(
            full.offer(),
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
             server_max_window_bits=10; client_max_window_bits=9"
        );
        assert_eq!(Deflate::new().server_max_window_bits(7), Err(OutOfRange(7)));
        assert_eq!(
            Deflate::new().client_max_window_bits(16),
            Err(OutOfRange(16))
        );
        assert_eq!(Deflate::new().level(0), Err(OutOfRange(0)));
    }

    #[test]
    fn good_answers() {
        let plain = Deflate::new();
        assert_eq!(plain.accept(None), Ok(None));
        let agreed = accept(plain, "permessage-deflate").unwrap().unwrap();
        assert!(agreed.server_context_takeover);
        assert_eq!(
            (agreed.server_window_bits, agreed.client_window_bits),
            (15, 15)
        );
        // A server may restrict itself unasked, and a client that offered it.
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                      server_max_window_bits=9; client_max_window_bits=\"10\"";
        let agreed = accept(plain, answer).unwrap().unwrap();
        assert!(!agreed.server_context_takeover);
        assert_eq!(
            (agreed.server_window_bits, agreed.client_window_bits),
            (9, 10)
        );
        let small = plain.client_max_window_bits(9).unwrap();
        let agreed = accept(small, "permessage-deflate").unwrap().unwrap();
        assert_eq!(agreed.client_window_bits, 9);
    }

    /// Pitfall 12: the answer is held against the offer, to the letter.
    #[test]
    fn pitfall_12_answers_that_do_not_fit_the_offer() {
        use AnswerError::*;
        let plain = Deflate::new();
        let asking = plain
            .server_no_context_takeover()
            .server_max_window_bits(10)
            .unwrap();
        let cases = [
            (plain, "permessage-deflate; x", UnknownParameter),
            (
                plain,
                "permessage-deflate; server_max_window_bits=7",
                InvalidValue("server_max_window_bits"),
            ),
            (
                plain,
                "permessage-deflate; server_max_window_bits=16",
                InvalidValue("server_max_window_bits"),
            ),
            (
                plain,
                "permessage-deflate; server_max_window_bits=09",
                InvalidValue("server_max_window_bits"),
            ),
            (
                plain,
                "permessage-deflate; server_max_window_bits",
                InvalidValue("server_max_window_bits"),
            ),
            (
                plain,
                "permessage-deflate; client_max_window_bits",
                InvalidValue("client_max_window_bits"),
            ),
            (
                plain,
                "permessage-deflate; server_no_context_takeover=1",
                InvalidValue("server_no_context_takeover"),
            ),
            (
                plain,
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                RepeatedParameter("server_no_context_takeover"),
            ),
            (
                plain,
                "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
                RepeatedParameter("client_max_window_bits"),
            ),
            (plain, "permessage-deflate, permessage-deflate", Repeated),
            (plain, "x-webkit-deflate-frame", NotOffered),
            (plain, "permessage-deflate; =", Malformed),
            (
                asking,
                "permessage-deflate; server_max_window_bits=10",
                Ignored("server_no_context_takeover"),
            ),
            (
                asking,
                "permessage-deflate; server_no_context_takeover",
                Ignored("server_max_window_bits"),
            ),
            (
                asking,
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
                TooLarge("server_max_window_bits"),
            ),
            (
                plain.client_max_window_bits(9).unwrap(),
                "permessage-deflate; client_max_window_bits=10",
                TooLarge("client_max_window_bits"),
            ),
        ];
        for (offer, answer, error) in cases {
            assert_eq!(accept(offer, answer), Err(error), "{answer}");
        }
    }
}
