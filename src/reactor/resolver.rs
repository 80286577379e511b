//! Looking names up off the reactor's thread (pitfall 28), with the operating system's resolver.
//! Equal look-ups are joined, and answers are kept for a short while, so that a thousand connections
//! to one venue ask once.

use super::remote::{Central, Command};
use crate::handler::ConnectionId;
use crate::session::Time;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Look-ups that run at the same time; each blocks a thread for as long as the resolver takes. So many
/// that a few names for which nobody answers do not keep all others waiting.
const THREADS: usize = 32;

/// Answers kept; beyond that the cache begins anew.
const MAX_ANSWERS: usize = 4096;

/// How long an answer is good for, unless the program says otherwise.
pub(super) const ANSWER_LIFE: Duration = Duration::from_secs(10);

/// An answer: addresses, or what the system said.
pub(super) type Answer = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

pub(super) struct Resolver {
    central: Weak<Central>,
    /// Made with the first look-up; the threads end when it is dropped.
    pub(super) queue: Option<Sender<String>>,
    life: Duration,
    answers: HashMap<String, (Time, Vec<IpAddr>)>,
    /// Who waits for which name.
    waiting: HashMap<String, Vec<Waiter>>,
}

/// A connection that waits for an address.
pub(super) struct Waiter {
    pub(super) id: ConnectionId,
    /// Tells a late answer from the one that is awaited.
    pub(super) number: u64,
    pub(super) port: u16,
}

impl Resolver {
    pub(super) fn new(central: &Arc<Central>, life: Duration) -> Self {
        Self {
            central: Arc::downgrade(central),
            queue: None,
            life,
            answers: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    /// Looks `host` up. `Some` is an answer that was still there; otherwise it comes as
    /// [`Command::Resolved`], for all who wait.
    pub(super) fn resolve(
        &mut self,
        host: &str,
        waiter: Waiter,
        now: Time,
    ) -> io::Result<Option<Vec<SocketAddr>>> {
        if let Some((until, addresses)) = self.answers.get(host)
            && now < *until
        {
            return Ok(Some(with_port(addresses, waiter.port)));
        }
        if let Some(waiting) = self.waiting.get_mut(host) {
            waiting.push(waiter);
            return Ok(None);
        }
        self.start()?
            .send(host.to_owned())
            .map_err(io::Error::other)?;
        self.waiting.insert(host.to_owned(), vec![waiter]);
        Ok(None)
    }

    /// The queue, and a thread that answers what is put there, if they are not there yet.
    pub(super) fn start(&mut self) -> io::Result<&Sender<String>> {
        match &mut self.queue {
            Some(queue) => Ok(queue),
            none => {
                let (sender, receiver) = channel();
                let desk = Desk {
                    central: Weak::clone(&self.central),
                    questions: Mutex::new(receiver),
                    threads: AtomicUsize::new(0),
                    idle: AtomicUsize::new(0),
                };
                Arc::new(desk).hire()?;
                Ok(none.insert(sender))
            }
        }
    }

    /// An answer has come: keeps it, and says who waits for it.
    pub(super) fn handle_answer(&mut self, host: &str, answer: &Answer, now: Time) -> Vec<Waiter> {
        if let Ok(addresses) = answer
            && !addresses.is_empty()
            && !self.life.is_zero()
        {
            if self.answers.len() >= MAX_ANSWERS {
                self.answers.clear();
            }
            let entry = (now.after(self.life), addresses.clone());
            self.answers.insert(host.to_owned(), entry);
        }
        self.waiting.remove(host).unwrap_or_default()
    }
}

pub(super) fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port))
        .collect()
}

/// Where questions are answered.
struct Desk {
    central: Weak<Central>,
    questions: Mutex<Receiver<String>>,
    threads: AtomicUsize,
    idle: AtomicUsize,
}

impl Desk {
    /// One more thread, which is idle.
    fn hire(self: Arc<Self>) -> io::Result<()> {
        let number = self.threads.fetch_add(1, Ordering::Relaxed);
        self.idle.fetch_add(1, Ordering::Relaxed);
        let desk = Arc::clone(&self);
        let hired = thread::Builder::new()
            .name(format!("websockex-dns-{number}"))
            .spawn(move || desk.answer());
        if hired.is_err() {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        hired.map(drop)
    }

    /// Answers questions until nobody can ask any more. Whoever is the last to be idle sees to it that
    /// somebody else is: a thread of these, and not the reactor's, because a new thread stays on the
    /// cores of the one that makes it.
    fn answer(self: Arc<Self>) {
        loop {
            let questions = self.questions.lock();
            let question = questions.unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(host) = question else {
                return;
            };
            let last = self.idle.fetch_sub(1, Ordering::Relaxed) == 1;
            if last && self.threads.load(Ordering::Relaxed) < THREADS {
                // Without, the others will do.
                let _ = Arc::clone(&self).hire();
            }
            let answer = match (host.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
                Err(error) => Err((error.kind(), error.to_string())),
            };
            self.idle.fetch_add(1, Ordering::Relaxed);
            let Some(central) = self.central.upgrade() else {
                return;
            };
            central.post(Command::Resolved { host, answer });
        }
    }
}
