//! The exchange's thread: one poll loop over the listener and all subscribers, and the market's
//! steps in between.
//!
//! A step's messages are rendered once and then copied to every subscriber, gathered so that each
//! of them gets one write per step. Whoever does not take what was written (the kernel's buffer is
//! full) gets nothing new until it has: for this subscriber the market stands still, no sequence
//! number is used up, and what it was not sent is counted as held back.

use super::clock::Clock;
use super::format::Tape;
use super::market::{Market, STEP_NS};
use super::subscriber::{Directory, Scratch, Subscriber};
use super::transport::Transport;
use super::{Settings, Shared};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{ServerConfig, ServerConnection};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::encoder::encode;
use websockex::protocol::frame::OpCode;

const LISTENER: Token = Token(usize::MAX - 1);
/// Woken by another thread: the bells, or the end.
pub(crate) const WAKER: Token = Token(usize::MAX - 2);
/// A late market catches up this many steps at a time, so that sockets are served in between.
const MAX_STEPS_PER_TURN: u32 = 10;
/// Later than this it gives up catching up and goes on from now, in nanoseconds.
const MAX_LAG_NS: u64 = 1_000_000_000;

pub(crate) struct Server {
    poll: Poll,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    clock: Clock,
    shared: Arc<Shared>,
    rate: f64,
    market: Market,
    /// When the next step is due; `None` while the market is closed.
    next_step_ns: Option<u64>,
    subscribers: Vec<Option<Subscriber>>,
    free: Vec<usize>,
    audience: Audience,
    scratch: Scratch,
    tape: Tape,
    deliveries: Vec<Delivery>,
    out: Buffer,
}

/// Who listens to what.
struct Audience {
    numbers: HashMap<String, usize>,
    /// By stream.
    listeners: Vec<Vec<Listener>>,
    /// Somebody came or went since the market's rate was set.
    changed: bool,
}

#[derive(Clone, Copy)]
struct Listener {
    subscriber: usize,
    /// Which of that subscriber's subscriptions it is.
    position: usize,
}

/// A message for a subscriber. Sorted, these are the messages of a step by subscriber and in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    subscriber: usize,
    message: usize,
    position: usize,
}

/// The [`Directory`] that one subscriber sees.
struct Entrance<'a> {
    audience: &'a mut Audience,
    subscriber: usize,
}

impl Directory for Entrance<'_> {
    fn find(&self, name: &str) -> Option<usize> {
        self.audience.numbers.get(name).copied()
    }

    fn join(&mut self, stream: usize, position: usize) {
        let subscriber = self.subscriber;
        self.audience.listeners[stream].push(Listener {
            subscriber,
            position,
        });
        self.audience.changed = true;
    }
}

impl Audience {
    fn new(market: &Market) -> Self {
        let numbers: HashMap<String, usize> = market.streams().zip(0..).collect();
        Self {
            listeners: vec![Vec::new(); numbers.len()],
            numbers,
            changed: false,
        }
    }

    fn leave(&mut self, stream: usize, subscriber: usize) {
        self.listeners[stream].retain(|listener| listener.subscriber != subscriber);
        self.changed = true;
    }
}

impl Server {
    pub(crate) fn new(
        poll: Poll,
        mut listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        settings: Settings,
        clock: Clock,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let market = Market::new(settings.seed);
        Ok(Self {
            poll,
            listener,
            tls,
            clock,
            shared,
            rate: settings.rate,
            audience: Audience::new(&market),
            market,
            next_step_ns: None,
            subscribers: Vec::new(),
            free: Vec::new(),
            scratch: Scratch::new(),
            tape: Tape::default(),
            deliveries: Vec::new(),
            out: Buffer::new(),
        })
    }

    /// Serves until told to stop.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.shared.stop.load(Relaxed) {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {}
                    Token(slot) => self.serve(slot),
                }
            }
            self.advance_market();
        }
        Ok(())
    }

    /// How long to wait for sockets: until the next step, for ever while the market is closed.
    fn timeout(&self) -> Option<Duration> {
        let due = self.next_step_ns?;
        Some(Duration::from_nanos(
            due.saturating_sub(self.clock.now_ns()),
        ))
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => self.admit(socket)?,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    // It was reset before it was accepted.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Such as no more file descriptors: nobody else could come in, so say it.
                    _ => return Err(error),
                },
            }
        }
    }

    fn admit(&mut self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.subscribers.push(None);
            self.subscribers.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(slot), interest)?;
        let tls = match &self.tls {
            None => None,
            Some(config) => {
                let mut tls =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                // What may wait in there is limited by not writing while something waits.
                tls.set_buffer_limit(None);
                Some(tls)
            }
        };
        let transport = Transport::new(socket, tls);
        self.subscribers[slot] = Some(Subscriber::new(transport));
        Ok(())
    }

    /// Lets a subscriber read and write. An event for one that is gone is harmless.
    fn serve(&mut self, slot: usize) {
        let Some(subscriber) = &mut self.subscribers[slot] else {
            return;
        };
        let mut entrance = Entrance {
            audience: &mut self.audience,
            subscriber: slot,
        };
        let served = subscriber.handle_ready(&mut self.scratch, &mut entrance);
        if served.is_err() {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        let Some(mut subscriber) = self.subscribers[slot].take() else {
            return;
        };
        for &stream in subscriber.streams() {
            self.audience.leave(stream, slot);
        }
        let socket = subscriber.transport().socket();
        // Closing the socket would do; there is nothing to be done about a failure.
        let _ = self.poll.registry().deregister(socket);
        self.free.push(slot);
    }

    /// Runs the steps that are due.
    fn advance_market(&mut self) {
        if !self.shared.is_open.load(Relaxed) {
            self.next_step_ns = None;
            return;
        }
        let now = self.clock.now_ns();
        let mut due = self.next_step_ns.unwrap_or(now);
        if now.saturating_sub(due) > MAX_LAG_NS {
            self.shared.stalls.fetch_add(1, Relaxed);
            due = now;
        }
        for _ in 0..MAX_STEPS_PER_TURN {
            if due > now {
                break;
            }
            self.step();
            due += STEP_NS;
        }
        self.next_step_ns = Some(due);
    }

    /// One step of the market: draw, hand out, send.
    fn step(&mut self) {
        let audience = &mut self.audience;
        if std::mem::take(&mut audience.changed) {
            let listeners = &audience.listeners;
            self.market
                .set_rate(self.rate, |stream| listeners[stream].len());
        }
        self.tape.clear();
        let event_ms = self.clock.now_ns() / 1_000_000;
        self.market.step(event_ms, &mut self.tape);
        self.deliveries.clear();
        for (index, message) in self.tape.messages.iter().enumerate() {
            let listeners = &audience.listeners[message.stream];
            self.deliveries
                .extend(listeners.iter().map(|listener| Delivery {
                    subscriber: listener.subscriber,
                    message: index,
                    position: listener.position,
                }));
        }
        self.deliveries.sort_unstable();
        let mut start = 0;
        while let Some(first) = self.deliveries.get(start) {
            let slot = first.subscriber;
            let same = self.deliveries[start..]
                .iter()
                .take_while(|delivery| delivery.subscriber == slot);
            let end = start + same.count();
            self.deliver(slot, start..end);
            start = end;
        }
    }

    /// Sends one subscriber its messages of this step, in one write.
    fn deliver(&mut self, slot: usize, deliveries: std::ops::Range<usize>) {
        let Some(subscriber) = &mut self.subscribers[slot] else {
            return;
        };
        let count = deliveries.len() as u64;
        if !subscriber.is_open() {
            return;
        }
        if subscriber.transport().is_congested() {
            self.shared.held_back.fetch_add(count, Relaxed);
            return;
        }
        self.out.clear();
        let sent_ns = self.clock.now_ns();
        for delivery in &self.deliveries[deliveries] {
            let message = &self.tape.messages[delivery.message];
            let first = subscriber.take_sequence(delivery.position, message.updates);
            let payload = self.tape.payload(message);
            let length = payload.len();
            encode(
                Role::Server,
                true,
                OpCode::Text,
                payload,
                [0; 4],
                &mut self.out,
            );
            // The frame is not masked, so the open fields can be filled in where it lies.
            let end = self.out.len();
            let copy = &mut self.out.as_mut_slice()[end - length..];
            message.fill(copy, first, sent_ns);
        }
        self.shared.published.fetch_add(count, Relaxed);
        if subscriber.transport().write(self.out.as_slice()).is_err() {
            self.remove(slot);
        }
    }
}
