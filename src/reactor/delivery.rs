//! From bytes to callbacks, frame by frame, as long as nothing fails: what [`dispatch`](super::dispatch)
//! guards.
//!
//! The messages of a feed, whole in one frame each, go in runs from the decoder to the handler; everything
//! else takes the longer way.

use crate::error::{BoxError, Error};
use crate::handler::{Context, Handler, HandlerResult, Message};
use crate::protocol::decoder::{Decoder, Event, Pool, WholeMessages};
use crate::protocol::frame::OpCode;
use crate::session::Stage;
use crate::session::inbound::{FrameTrace, record_whole, records_whole};
use crate::stats::tally::Whole;
use crate::trace::kind::Callback;

/// Bytes from the peer, in the order in which they came.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    /// There are no more for now: the batch ends.
    pub(super) is_last: bool,
    /// A message that the end cuts need not be taken if it has at most so many bytes.
    pub(super) may_leave: usize,
}

impl<'a> Input<'a> {
    /// Bytes to which nothing will be added.
    pub(super) fn to_take(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            is_last: false,
            may_leave: 0,
        }
    }
}

/// Delivers what `input` has of frames, and keeps what it cuts, unless that may be left; returns how
/// much was. After an abort the rest is nobody's.
#[inline(always)]
pub(super) fn deliver_frames(
    decoder: &mut Decoder,
    pool: &mut Pool,
    input: &Input<'_>,
    handler: &mut dyn Handler,
    cx: &mut Context<'_>,
) -> Result<usize, Error> {
    let Input {
        mut bytes,
        may_leave,
        ..
    } = *input;
    loop {
        if let Some(messages) = decoder.whole_messages(bytes, pool) {
            let taken = deliver_whole(messages, handler, cx)?;
            bytes = &bytes[taken..];
            if bytes.is_empty() || cx.life.stage == Stage::Over {
                // The good end of a read, where nothing is cut; or of all of it.
                return Ok(0);
            }
            if taken > 0 {
                continue;
            }
            // A trace of frames shows each when its header arrives.
            if may_leave > 0 && !records_whole(cx.life) && decoder.may_come_again(bytes, may_leave)
            {
                return Ok(bytes.len());
            }
        }
        let mut observer = FrameTrace {
            trace: cx.output.trace,
            tally: cx.output.tally,
            life: cx.life,
            now: cx.output.now,
        };
        match decoder.decode_any(&mut bytes, pool, &mut observer) {
            Ok(Some(event)) => {
                cx.life.batch |= matches!(event, Event::Text(_) | Event::Binary(_));
                call_for(event, handler, cx).map_err(Error::Handler)?;
                if cx.life.stage == Stage::Over {
                    return Ok(0);
                }
            }
            Ok(None) => return Ok(0),
            Err(error) => return Err(Error::Protocol(error)),
        }
    }
}

/// Delivers the messages that come whole in one frame each, up to something else; returns how many
/// bytes they were.
///
/// Whether they are recorded is decided once for all of them and not for each; a handler that changes
/// it ends the run, and the caller begins another. One that aborts the connection ends it for good.
fn deliver_whole(
    messages: WholeMessages<'_, '_>,
    handler: &mut dyn Handler,
    cx: &mut Context<'_>,
) -> Result<usize, Error> {
    let before = messages.left();
    let (callback, batch) = (cx.life.callback, cx.life.batch);
    cx.life.callback = Callback::OnMessage;
    cx.life.batch = true;
    let left = if records_whole(cx.life) {
        deliver_recorded(messages, handler, cx)
    } else {
        deliver_unrecorded(messages, handler, cx)
    };
    let taken = before - left.map_err(Error::Handler)?;
    if taken == 0 {
        cx.life.callback = callback;
        cx.life.batch = batch;
    }
    Ok(taken)
}

/// A run of such messages. They are counted in registers; what they come to is noted when it ends, be
/// it by a panic of the handler.
struct Run<'a, 'c> {
    cx: &'a mut Context<'c>,
    counts: Whole,
}

impl<'a, 'c> Run<'a, 'c> {
    #[inline(always)]
    fn new(cx: &'a mut Context<'c>) -> Self {
        let counts = Whole::default();
        Self { cx, counts }
    }
}

impl Drop for Run<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cx.output.tally.inbound.add(&self.counts);
    }
}

/// A run as long as the trace does not want it: what a message costs at least, and apart from all
/// else, so that it stays in registers. Returns how many bytes are left.
#[inline(never)]
fn deliver_unrecorded(
    mut messages: WholeMessages<'_, '_>,
    handler: &mut dyn Handler,
    cx: &mut Context<'_>,
) -> Result<usize, BoxError> {
    let mut run = Run::new(cx);
    loop {
        // The two kinds are not mixed, so that a message goes from the decoder to the handler in
        // registers.
        let result = match messages.next() {
            Some(Event::Text(text)) => {
                run.counts.count(OpCode::Text, text.len() as u64);
                handler.on_message(run.cx, Message::Text(text))
            }
            Some(Event::Binary(bytes)) => {
                run.counts.count(OpCode::Binary, bytes.len() as u64);
                handler.on_message(run.cx, Message::Binary(bytes))
            }
            _ => break,
        };
        result?;
        if records_whole(run.cx.life) || run.cx.life.stage == Stage::Over {
            break;
        }
    }
    Ok(messages.left())
}

/// A run as long as the trace wants it. Returns how many bytes are left.
#[inline(never)]
fn deliver_recorded(
    mut messages: WholeMessages<'_, '_>,
    handler: &mut dyn Handler,
    cx: &mut Context<'_>,
) -> Result<usize, BoxError> {
    let mut run = Run::new(cx);
    while records_whole(run.cx.life) {
        let (opcode, message) = match messages.next_apart() {
            Some(Event::Text(text)) => (OpCode::Text, Message::Text(text)),
            Some(Event::Binary(bytes)) => (OpCode::Binary, Message::Binary(bytes)),
            _ => break,
        };
        let payload = message.as_bytes();
        run.counts.count(opcode, payload.len() as u64);
        let Context { life, output, .. } = &mut *run.cx;
        record_whole(output.trace, life, output.now, opcode, payload);
        handler.on_message(run.cx, message)?;
        if run.cx.life.stage == Stage::Over {
            break;
        }
    }
    Ok(messages.left())
}

/// The callback that an event is for.
fn call_for(event: Event<'_>, handler: &mut dyn Handler, cx: &mut Context<'_>) -> HandlerResult {
    match event {
        Event::Text(text) => {
            cx.output.tally.inbound.message(text.len());
            cx.life.callback = Callback::OnMessage;
            handler.on_message(cx, Message::Text(text))
        }
        Event::Binary(bytes) => {
            cx.output.tally.inbound.message(bytes.len());
            cx.life.callback = Callback::OnMessage;
            handler.on_message(cx, Message::Binary(bytes))
        }
        Event::Ping(payload) => {
            cx.life.callback = Callback::OnPing;
            handler.on_ping(cx, payload)
        }
        Event::Pong(payload) => {
            cx.life.handle_pong(&mut cx.output, payload);
            cx.life.callback = Callback::OnPong;
            handler.on_pong(cx, payload)
        }
        Event::Close(close) => {
            // While the connection is still open: what the handler sends now is sent, and if it fails,
            // that is the end for good.
            end_batch(handler, cx)?;
            cx.life.handle_close(&mut cx.output, close);
            Ok(())
        }
    }
}

/// What was delivered since the last time is a batch; it ends here.
pub(super) fn end_batch(handler: &mut dyn Handler, cx: &mut Context<'_>) -> HandlerResult {
    if !std::mem::take(&mut cx.life.batch) {
        return Ok(());
    }
    cx.life.heard.message(cx.output.now);
    cx.life.callback = Callback::OnBatchEnd;
    handler.on_batch_end(cx)
}
