//! The closing handshake (RFC 6455 §5.5.1 and §7), and giving up.

use super::Time;
use super::life::{Life, Stage};
use super::outbound::Output;
use crate::error::DisconnectReason;
use crate::error::{Error, SendError};
use crate::protocol::close::{CloseCode, CloseFrame, MAX_CLOSE_REASON};
use crate::protocol::error::{Blame, ProtocolError};
use crate::protocol::frame::OpCode;
use crate::protocol::handshake::HandshakeError;
use crate::protocol::http::HeadLimit;
use crate::trace::event::Event;
use crate::trace::kind::{self, Kind, Limit};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// After an error, how long the peer may take to end the TCP connection. Dropping it at once would
/// make the kernel send a reset, which can overtake the Close frame that says why; waiting long
/// would keep a feed from coming back.
const LINGER: Duration = Duration::from_secs(1);

/// How many times the close timeout the output in front of a Close frame may take to leave, as long
/// as some of it leaves within each.
const HANDING_FACTOR: u32 = 6;

/// A Close frame on its way to the socket.
pub(super) struct Handing {
    /// When the patience with the output in front of it ends.
    until: Time,
    /// Bytes that the socket had when it last took some.
    handed: u64,
}

impl Life {
    /// So much waits for the socket, which has taken `handed` bytes so far. The time for the peer's
    /// answer to our Close begins when the socket has it, which is when nothing waits any more:
    /// nothing is sent after it. Until then it is the queue that must move.
    #[inline]
    pub(crate) fn handle_handed(&mut self, now: Time, queued: usize, handed: u64) {
        if self.pong.is_some() {
            self.place_pong(handed + queued as u64, handed);
        }
        if matches!(self.stage, Stage::Closing | Stage::Closed) && !self.is_close_waiting() {
            self.await_close_handed(now, queued, handed);
        }
    }

    fn await_close_handed(&mut self, now: Time, queued: usize, handed: u64) {
        let timeout = self.target.options.close_timeout;
        let handing = self.aside.as_mut().and_then(|aside| aside.handing.as_mut());
        match handing {
            None if queued > 0 => {
                let until = now.after(timeout.saturating_mul(HANDING_FACTOR));
                self.aside().handing = Some(Handing { until, handed });
            }
            None => {}
            Some(_) if queued == 0 => {
                self.aside().handing = None;
                self.tidy();
                self.deadline = Some(now.after(timeout));
            }
            Some(handing) if handing.handed != handed => {
                handing.handed = handed;
                self.deadline = Some(now.after(timeout).min(handing.until));
            }
            // It stands still.
            Some(_) => {}
        }
    }

    /// Begins the closing handshake from this side; without a connection it just ends. One that is
    /// ending already does not come back.
    pub(crate) fn close(
        &mut self,
        output: &mut Output<'_>,
        close: Option<CloseFrame<'_>>,
    ) -> Result<(), SendError> {
        let mut payload = [0; 125];
        let length = match close {
            None => 0,
            Some(close) => close.encode(&mut payload)?,
        };
        let (code, text) = match close {
            None => (None, ""),
            Some(close) => (Some(close.code), close.reason),
        };
        let reason = DisconnectReason::Local {
            code,
            reason: text.to_owned(),
        };
        match self.stage {
            Stage::Open => {
                let number = code.map(CloseCode::value);
                self.record(output, Kind::ClosingLocal, |time, id| {
                    Event::closing_local(time, id, number, text)
                });
                if !self.defer_close(&payload[..length]) {
                    self.write_close(output, code, text, &payload[..length]);
                    // No pong has its turn after it.
                    self.drop_paced(output);
                }
                self.set_ending(reason);
                // Whatever the peer does until it is over, and what that is then told as.
                self.unwanted = true;
                self.stage = Stage::Closing;
                self.deadline = Some(output.now.after(self.target.options.close_timeout));
                Ok(())
            }
            Stage::Closing => Err(SendError::Closing),
            // It ends for another reason, and that is told; but by policy it does not come back.
            Stage::Closed | Stage::Failing | Stage::Over => {
                self.unwanted = true;
                Ok(())
            }
            Stage::Ended => Err(SendError::Gone),
            // Nothing is open that could be closed: the attempt is given up.
            Stage::Resolving
            | Stage::Connecting
            | Stage::Tunnelling
            | Stage::Securing
            | Stage::Upgrading => {
                self.end_with(reason);
                Ok(())
            }
            Stage::BackOff | Stage::Queued => {
                self.end_with(reason);
                self.stage = Stage::Ended;
                Ok(())
            }
        }
    }

    /// Ends the connection at once, without the closing handshake; without a connection it is as
    /// [`close`](Self::close).
    ///
    /// RFC 6455 §7.1.1: "An endpoint MAY close the connection via any means available when necessary".
    /// What that leaves the peer with, says §7.1.5: "If _The WebSocket Connection is Closed_ and no
    /// Close control frame was received by the endpoint (...), _The WebSocket Connection Close Code_ is
    /// considered to be 1006."
    pub(crate) fn abort(&mut self, output: &mut Output<'_>) {
        match self.stage {
            Stage::Open => {
                self.record(output, Kind::ClosingLocal, |time, id| {
                    Event::closing_local(time, id, None, "")
                });
                // What this turn has sent is lost with everything that waits; a Close frame is not.
                output.frames.clear();
                if let Some(aside) = &mut self.aside {
                    aside.lose();
                }
            }
            Stage::Closing | Stage::Closed => {
                self.record(output, Kind::ForcedClosed, Event::forced_closed);
            }
            Stage::Failing => {}
            // Refused only if it is over.
            _ => {
                let _ = self.close(output, None);
                return;
            }
        }
        self.unwanted = true;
        self.drop_paced(output);
        self.batch = false;
        self.drop_now();
    }

    /// The peer's Close frame arrived.
    pub(crate) fn handle_close(&mut self, output: &mut Output<'_>, close: Option<CloseFrame<'_>>) {
        let (code, text) = match close {
            None => (None, ""),
            Some(close) => (Some(close.code), close.reason),
        };
        if self.stage == Stage::Over {
            // The batch before it has ended, and with that the handler has aborted.
            return;
        }
        let number = code.map(CloseCode::value);
        self.record(output, Kind::CloseReceived, |time, id| {
            Event::close_received(time, id, number, text)
        });
        if self.stage == Stage::Open {
            // RFC 6455 §5.5.1: "If an endpoint receives a Close frame and did not previously send
            // a Close frame, the endpoint MUST send a Close frame in response. (When sending a
            // Close frame in response, the endpoint typically echos the status code it received.)"
            let [high, low] = number.unwrap_or(0).to_be_bytes();
            let echo: &[u8] = if code.is_some() { &[high, low] } else { &[] };
            self.drop_paced(output);
            self.write_close(output, code, "", echo);
            self.set_ending(DisconnectReason::Remote {
                code,
                reason: text.to_owned(),
            });
        }
        self.send_waiting_close(output);
        self.clean = true;
        self.stage = Stage::Closed;
        // RFC 6455 §7.1.1: "a client SHOULD wait for the server to close the connection but MAY
        // close the connection at any time under certain conditions."
        self.deadline = Some(output.now.after(self.target.options.close_timeout));
    }

    pub(super) fn write_close(
        &mut self,
        output: &mut Output<'_>,
        code: Option<CloseCode>,
        text: &str,
        payload: &[u8],
    ) {
        let number = code.map(CloseCode::value);
        self.record(output, Kind::CloseSent, |time, id| {
            Event::close_sent(time, id, number, text)
        });
        self.count_unpaced(output.now);
        self.write_frame(output, None, true, OpCode::Close, payload);
    }

    /// Gives up because of `error`. An open connection says why in a Close frame first (RFC 6455
    /// §7.1.7), if there is a socket left to say it on.
    pub(crate) fn fail(&mut self, output: &mut Output<'_>, error: Error) {
        match self.stage {
            Stage::Ended => return,
            Stage::Over | Stage::Failing => {
                // The first reason sticks, but a handler that has failed has had its last attempt.
                let failed = self
                    .ending()
                    .is_some_and(DisconnectReason::is_handler_failure);
                let reason = DisconnectReason::Failed(error);
                if reason.is_handler_failure() && !failed {
                    self.set_ending(reason);
                }
                return;
            }
            // Both sides have said all there is to say, and what TLS meets behind it changes nothing (pitfall
            // 15).
            Stage::Closed if matches!(error, Error::Tls(_)) => {
                self.record(output, Kind::ClosedCleanly, Event::closed_cleanly);
                self.stage = Stage::Over;
                return;
            }
            Stage::Open | Stage::Closing | Stage::Closed => {}
            // Only the handler can fail between two attempts. There is nothing to disconnect.
            Stage::BackOff | Stage::Queued => {
                self.end_with(DisconnectReason::Failed(error));
                self.stage = Stage::Ended;
                return;
            }
            Stage::Resolving
            | Stage::Connecting
            | Stage::Tunnelling
            | Stage::Securing
            | Stage::Upgrading => {
                let (stage, status) = (self.failed_stage(&error), status(&error));
                self.record(output, Kind::ConnectFailed, |time, id| {
                    Event::connect_failed(time, id, stage, status, Shown(&error))
                });
                if let Error::Handshake(HandshakeError::Limit(HeadLimit::HeaderBytes(limit))) =
                    error
                {
                    // The answer is not read to its end, so this is the least that it has.
                    let limit = limit as u64;
                    self.record(output, Kind::LimitHit, |time, id| {
                        Event::limit_hit(time, id, Limit::HeaderBlock, limit + 1, limit)
                    });
                }
                self.end_with(DisconnectReason::ConnectFailed(error));
                return;
            }
        }
        let code = close_code(&error);
        let number = code.map(CloseCode::value);
        self.record(output, Kind::ClosingError, |time, id| {
            Event::closing_error(time, id, number, Shown(&error))
        });
        if let Error::Protocol(error) = &error {
            self.record_limit(output, *error);
        }
        let Some(code) = code else {
            self.end_with(DisconnectReason::Failed(error));
            return;
        };
        if self.stage == Stage::Open {
            let text = match &error {
                Error::Protocol(error) => error.to_string(),
                // What went wrong inside a handler is nobody else's business.
                _ => String::new(),
            };
            let reason = truncate(&text, MAX_CLOSE_REASON);
            let mut payload = [0; 125];
            let frame = CloseFrame { code, reason };
            let length = frame
                .encode(&mut payload)
                .expect("the code may be sent and the reason fits");
            self.record(output, Kind::ErrorCloseSent, |time, id| {
                Event::error_close_sent(time, id, number, reason)
            });
            self.count_unpaced(output.now);
            self.write_frame(output, None, true, OpCode::Close, &payload[..length]);
        }
        self.end_with(DisconnectReason::Failed(error));
        self.stage = Stage::Failing;
        let linger = LINGER.min(self.target.options.close_timeout);
        self.deadline = Some(output.now.after(linger));
    }

    /// For the trace: the stage at which connecting failed.
    fn failed_stage(&self, error: &Error) -> kind::Stage {
        match (self.stage, error) {
            (_, Error::Tls(_)) => kind::Stage::Tls,
            (Stage::Resolving, _) => kind::Stage::Resolve,
            (Stage::Connecting, _) => kind::Stage::Tcp,
            (Stage::Tunnelling, _) => kind::Stage::Proxy,
            (Stage::Securing, _) => kind::Stage::Tls,
            _ => kind::Stage::Upgrade,
        }
    }

    fn record_limit(&mut self, output: &mut Output<'_>, error: ProtocolError) {
        let (kind, value, limit) = match error {
            ProtocolError::FrameTooLarge { length, limit } => (Limit::Frame, length, limit),
            ProtocolError::MessageTooLarge { length, limit } => (Limit::Message, length, limit),
            _ => return,
        };
        debug_assert_eq!(error.blame(), Blame::Limit);
        self.record(output, Kind::LimitHit, |time, id| {
            Event::limit_hit(time, id, kind, value, limit)
        });
    }
}

/// The code that tells the peer of `error`; none if there is nobody left to tell.
fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Protocol(error) => Some(error.close_code()),
        Error::Handler(_) | Error::HandlerPanicked(_) => Some(CloseCode::INTERNAL_ERROR),
        _ => None,
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Handshake(HandshakeError::Rejected(rejection)) => Some(rejection.status),
        _ => None,
    }
}

/// The longest prefix of `text` that has at most `length` bytes.
fn truncate(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

/// An error as text, where a panic of the foreign code that displays a handler's is caught.
struct Shown<'a>(&'a Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Handler(_) => {
                let text = catch_unwind(AssertUnwindSafe(|| self.0.to_string()));
                f.write_str(text.as_deref().unwrap_or("the handler failed"))
            }
            error => error.fmt(f),
        }
    }
}
