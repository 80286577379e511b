//! The handlers: what each connection does with what it receives.

use super::exchange::Clock;
use super::scan::{self, Update};
use super::totals::SharedTotals;
use std::rc::Rc;
use websockex::{Context, Disconnect, Handler, HandlerResult, Message, Open, Reconnect};

/// A connection to the embedded exchange: subscribes, measures, and misses nothing unnoticed.
pub(crate) struct ExchangeFeed {
    totals: SharedTotals,
    clock: Clock,
    request: String,
    streams: Vec<Stream>,
}

struct Stream {
    name: String,
    instrument: usize,
    /// The sequence number to come; `None` before the first.
    next: Option<u64>,
}

impl ExchangeFeed {
    /// Subscribes to `streams`, given by symbol and name.
    pub(crate) fn new(
        totals: &SharedTotals,
        clock: Clock,
        streams: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let streams: Vec<Stream> = streams
            .into_iter()
            .map(|(symbol, name)| Stream {
                name,
                instrument: totals.borrow_mut().instrument(&symbol),
                next: None,
            })
            .collect();
        let names: Vec<String> = streams
            .iter()
            .map(|stream| format!("\"{}\"", stream.name))
            .collect();
        Self {
            totals: Rc::clone(totals),
            clock,
            request: format!(
                "{{\"method\":\"SUBSCRIBE\",\"params\":[{}],\"id\":1}}",
                names.join(",")
            ),
            streams,
        }
    }
}

impl Handler for ExchangeFeed {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        self.totals.borrow_mut().handle_open(open);
        // The exchange counts per connection: after a reconnect it begins anew.
        for stream in &mut self.streams {
            stream.next = None;
        }
        cx.send_text(&self.request)?;
        Ok(())
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let Message::Text(text) = message else {
            return Err("a binary message".into());
        };
        let mut totals = self.totals.borrow_mut();
        let Some(update) = Update::parse(text) else {
            if text.starts_with("{\"result\":null") {
                totals.subscribed += 1;
                return Ok(());
            }
            return Err(format!("unexpected message: {text}").into());
        };
        let stream = self
            .streams
            .iter_mut()
            .find(|stream| stream.name == update.stream)
            .ok_or("a stream that was not subscribed to")?;
        match update
            .first
            .checked_sub(stream.next.unwrap_or(update.first))
        {
            Some(missing) => totals.lost += missing,
            None => totals.repeated += 1,
        }
        stream.next = Some(update.last + 1);
        totals.count(Some(stream.instrument), text.len());
        let latency = self.clock.now_ns().saturating_sub(update.sent_ns);
        totals.latency.record(latency);
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.totals.borrow_mut().handle_disconnect(disconnect);
        Reconnect::ByPolicy
    }
}

/// A connection to a real venue: sends what it was told to, and counts what comes.
pub(crate) struct VenueFeed {
    totals: SharedTotals,
    subscribe: Rc<[String]>,
}

impl VenueFeed {
    pub(crate) fn new(totals: &SharedTotals, subscribe: &Rc<[String]>) -> Self {
        Self {
            totals: Rc::clone(totals),
            subscribe: Rc::clone(subscribe),
        }
    }
}

impl Handler for VenueFeed {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        let mut totals = self.totals.borrow_mut();
        totals.handle_open(open);
        // How venues confirm, each does differently: what is sent counts as subscribed.
        if open.epoch == 1 {
            totals.subscribed += 1;
        }
        for message in self.subscribe.iter() {
            cx.send_text(message)?;
        }
        Ok(())
    }

    fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let mut totals = self.totals.borrow_mut();
        let instrument = match message {
            Message::Text(text) => scan::instrument(text).map(|name| totals.instrument(name)),
            Message::Binary(_) => None,
        };
        totals.count(instrument, message.as_bytes().len());
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.totals.borrow_mut().handle_disconnect(disconnect);
        Reconnect::ByPolicy
    }
}
