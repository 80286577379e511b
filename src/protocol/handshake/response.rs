//! The client's view of the answer: reads it while it arrives and makes every check of RFC 6455
//! §4.1 before the first frame may be believed.

use super::body::{BodyReader, BodyState};
use super::request::{HeaderError, Out, RequestHead};
use super::{
    Accept, HandshakeError, HandshakeLimits, Key, Misbehaviour, Rejection, accept_for,
    parse_extensions,
};
use crate::protocol::base64;
use crate::protocol::http::{Head, HeadLimit, HeadParser, Headers, StatusLine, split_list};

/// Most 1xx answers (100, 102, 103) before the final one.
pub const MAX_INTERIM_HEADS: usize = 8;

/// The status that switches protocols.
const SWITCHING_PROTOCOLS: u16 = 101;

/// A handshake under way. It is dropped when the connection is open, and what it keeps of the
/// answer is handed out in the [`Response`].
#[derive(Debug)]
pub struct ClientHandshake {
    accept: Accept,
    /// The offers as they went into the request, empty if there was none.
    subprotocols: Box<str>,
    extensions: Box<str>,
    max_rejection_body: usize,
    interim_heads: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Head(HeadParser<StatusLine>),
    /// The answer is final and not 101.
    RejectionBody(Box<Rejection>, BodyReader),
    Open,
    Failed(HandshakeError),
}

/// What [`ClientHandshake::receive`] did with its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// So many bytes of the input belong to the handshake. Once the response is there, the rest are
    /// frames.
    pub consumed: usize,
    /// The answer, once it is complete and every check has passed.
    pub response: Option<Response>,
}

impl ClientHandshake {
    /// Writes the request to the end of `out` and waits for its answer.
    ///
    /// RFC 6455 §4.1: "The value of this header field MUST be a nonce consisting of a randomly
    /// selected 16-byte value that has been base64-encoded [...]. The nonce MUST be selected
    /// randomly for each connection." Selecting it is up to the caller.
    ///
    /// # Errors
    /// [`HeaderError`] if something in the request cannot stand there; nothing is written then.
    pub fn new(
        request: &RequestHead<'_>,
        nonce: [u8; 16],
        limits: HandshakeLimits,
        out: &mut Vec<u8>,
    ) -> Result<Self, HeaderError> {
        Self::begin(request, nonce, limits, out)
    }

    /// The same, wherever the request is to be written.
    pub(crate) fn begin(
        request: &RequestHead<'_>,
        nonce: [u8; 16],
        limits: HandshakeLimits,
        out: &mut impl Out,
    ) -> Result<Self, HeaderError> {
        request.validate()?;
        let key: Key = base64::encode_array(&nonce);
        request.write(&key, out);
        Ok(Self {
            accept: accept_for(&key),
            subprotocols: request.subprotocols.join(",").into(),
            extensions: request.extensions.unwrap_or_default().into(),
            max_rejection_body: limits.max_rejection_body,
            interim_heads: 0,
            stage: Stage::Head(HeadParser::new(limits.max_header_bytes)),
        })
    }

    /// Takes the next bytes of the stream. After the response has been handed out it consumes
    /// nothing more.
    ///
    /// # Errors
    /// [`HandshakeError`], and the same one again at every further call.
    pub fn receive(&mut self, input: &[u8]) -> Result<Received, HandshakeError> {
        let outcome = self.advance(input);
        if let Err(error) = &outcome {
            self.stage = Stage::Failed(error.clone());
        }
        outcome
    }

    /// Gives the handshake up because the stream ended or a deadline passed, and says what it came
    /// to: the server's refusal, if its head was complete, even though its body was not.
    #[must_use]
    pub fn finish(self) -> HandshakeError {
        match self.stage {
            Stage::Head(parser) => HandshakeError::Incomplete {
                received: parser.received(),
            },
            Stage::RejectionBody(rejection, _) => HandshakeError::Rejected(rejection),
            Stage::Open => HandshakeError::Incomplete { received: 0 },
            Stage::Failed(error) => error,
        }
    }

    fn advance(&mut self, input: &[u8]) -> Result<Received, HandshakeError> {
        let mut consumed = 0;
        loop {
            match &mut self.stage {
                Stage::Head(parser) => {
                    let progress = parser.receive(&input[consumed..])?;
                    consumed += progress.consumed;
                    let Some(head) = progress.head else {
                        return Ok(Received {
                            consumed,
                            response: None,
                        });
                    };
                    if let Some(response) = self.handle_head(head)? {
                        return Ok(Received {
                            consumed,
                            response: Some(response),
                        });
                    }
                }
                Stage::RejectionBody(rejection, reader) => {
                    let state = reader.receive(&input[consumed..], &mut rejection.body);
                    if state == BodyState::Complete {
                        return Err(HandshakeError::Rejected(rejection.clone()));
                    }
                    return Ok(Received {
                        consumed: input.len(),
                        response: None,
                    });
                }
                Stage::Open => {
                    return Ok(Received {
                        consumed,
                        response: None,
                    });
                }
                Stage::Failed(error) => return Err(error.clone()),
            }
        }
    }

    fn handle_head(&mut self, head: Head<StatusLine>) -> Result<Option<Response>, HandshakeError> {
        let Head { start, headers } = head;
        // RFC 9110 §15.2: "Since HTTP/1.0 did not define any 1xx status codes, a server MUST NOT
        // send a 1xx response to an HTTP/1.0 client."
        if start.status < 200 && start.minor_version == 0 {
            return Err(Misbehaviour::HttpVersion.into());
        }
        match start.status {
            SWITCHING_PROTOCOLS => {
                self.check(&headers)?;
                self.stage = Stage::Open;
                return Ok(Some(Response { start, headers }));
            }
            // RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses received
            // prior to a final response, even if the client does not expect one."
            100..200 => {
                self.interim_heads += 1;
                if self.interim_heads > MAX_INTERIM_HEADS {
                    return Err(HandshakeError::Limit(HeadLimit::InterimHeads(
                        MAX_INTERIM_HEADS,
                    )));
                }
            }
            status => {
                let reader = BodyReader::new(status, &headers, self.max_rejection_body);
                let rejection = Rejection {
                    status,
                    reason: start.reason,
                    headers,
                    body: Vec::new(),
                };
                self.stage = Stage::RejectionBody(Box::new(rejection), reader);
            }
        }
        Ok(None)
    }

    /// RFC 6455 §4.1, the list of what a client must validate in the server's response.
    fn check(&self, headers: &Headers) -> Result<(), Misbehaviour> {
        // 2. "If the response lacks an |Upgrade| header field or the |Upgrade| header field
        // contains a value that is not an ASCII case-insensitive match for the value "websocket",
        // the client MUST _Fail the WebSocket Connection_."
        let upgrade = only(headers, "Upgrade")
            .map_err(|_| Misbehaviour::UpgradeNotWebsocket)?
            .ok_or(Misbehaviour::UpgradeMissing)?;
        if !upgrade.eq_ignore_ascii_case("websocket") {
            return Err(Misbehaviour::UpgradeNotWebsocket);
        }
        // 3. "If the response lacks a |Connection| header field or the |Connection| header field
        // doesn't contain a token that is an ASCII case-insensitive match for the value "Upgrade",
        // the client MUST _Fail the WebSocket Connection_."
        if !headers.has_token("Connection", "upgrade") {
            return Err(Misbehaviour::ConnectionNotUpgrade);
        }
        // 4. "If the response lacks a |Sec-WebSocket-Accept| header field or the
        // |Sec-WebSocket-Accept| contains a value other than the base64-encoded SHA-1 of the
        // concatenation of the |Sec-WebSocket-Key| [...] with the string [...] but ignoring any
        // leading and trailing whitespace, the client MUST _Fail the WebSocket Connection_."
        // §11.3.3: the header "MUST NOT appear more than once in an HTTP response."
        let accept = only(headers, "Sec-WebSocket-Accept")
            .map_err(|_| Misbehaviour::AcceptRepeated)?
            .ok_or(Misbehaviour::AcceptMissing)?;
        if accept.as_bytes() != self.accept {
            return Err(Misbehaviour::AcceptWrong);
        }
        self.check_extensions(headers)?;
        self.check_subprotocol(headers)
    }

    fn check_extensions(&self, headers: &Headers) -> Result<(), Misbehaviour> {
        // §11.3.2: the header "MUST NOT appear more than once in an HTTP response."
        let Some(answer) = only(headers, "Sec-WebSocket-Extensions")
            .map_err(|_| Misbehaviour::ExtensionsRepeated)?
        else {
            return Ok(());
        };
        // 5. "If the response includes a |Sec-WebSocket-Extensions| header field and this header
        // field indicates the use of an extension that was not present in the client's handshake
        // [...], the client MUST _Fail the WebSocket Connection_." §9.1 says the same of a value
        // that does not conform to the grammar.
        let answer = parse_extensions(answer).map_err(Misbehaviour::ExtensionsMalformed)?;
        // Our own offer was checked before it was written; if it does not parse, there was none.
        let offer = parse_extensions(&self.extensions).unwrap_or_default();
        let offered = |name: &str| offer.iter().any(|extension| extension.name == name);
        if answer.iter().all(|extension| offered(extension.name)) {
            Ok(())
        } else {
            Err(Misbehaviour::ExtensionNotOffered)
        }
    }

    fn check_subprotocol(&self, headers: &Headers) -> Result<(), Misbehaviour> {
        // §11.3.4: the header "MUST NOT appear more than once in an HTTP response."
        let Some(answer) = only(headers, "Sec-WebSocket-Protocol")
            .map_err(|_| Misbehaviour::SubprotocolRepeated)?
        else {
            return Ok(());
        };
        // §4.2.2: "/subprotocol/ Either a single value representing the subprotocol the server is
        // ready to use or null."
        if split_list(answer).nth(1).is_some() {
            return Err(Misbehaviour::SubprotocolRepeated);
        }
        // 6. "If the response includes a |Sec-WebSocket-Protocol| header field and this header
        // field indicates the use of a subprotocol that was not present in the client's handshake
        // [...], the client MUST _Fail the WebSocket Connection_."
        if split_list(&self.subprotocols).any(|offered| offered == answer) {
            Ok(())
        } else {
            Err(Misbehaviour::SubprotocolNotOffered)
        }
    }
}

/// More than one header line where one is allowed.
pub(super) struct Repeated;

/// The value of a header that may appear once.
pub(super) fn only<'a>(headers: &'a Headers, name: &'a str) -> Result<Option<&'a str>, Repeated> {
    let mut values = headers.all(name);
    let first = values.next();
    if values.next().is_some() {
        Err(Repeated)
    } else {
        Ok(first)
    }
}

/// The answer that opened the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    start: StatusLine,
    headers: Headers,
}

impl Response {
    /// The status code: 101.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.status
    }

    /// The reason phrase, often empty; the peer's words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.start.reason
    }

    /// All header lines.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// The subprotocol the server chose, one of those offered.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.header("Sec-WebSocket-Protocol")
    }

    /// The value of `Sec-WebSocket-Extensions`: it follows the grammar of [`parse_extensions`] and
    /// names only extensions that were offered. Their parameters have not been looked at.
    #[must_use]
    pub fn extensions(&self) -> Option<&str> {
        self.header("Sec-WebSocket-Extensions")
    }
}
