//! Looking names up off the reactor's thread (pitfall 28), with the operating system's resolver.

use super::remote::{Central, Command};
use crate::handler::ConnectionId;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

/// Look-ups that run at the same time; each blocks a thread for as long as the resolver takes.
const THREADS: usize = 4;

pub(super) struct Resolver {
    central: Weak<Central>,
    /// Made with the first look-up; the threads end when it is dropped.
    queue: Option<Sender<Question>>,
}

struct Question {
    id: ConnectionId,
    /// Tells a late answer from the one that is awaited.
    number: u64,
    host: String,
    port: u16,
}

impl Resolver {
    pub(super) fn new(central: &Arc<Central>) -> Self {
        Self {
            central: Arc::downgrade(central),
            queue: None,
        }
    }

    /// Looks `host` up; the answer comes as [`Command::Resolved`].
    pub(super) fn resolve(
        &mut self,
        id: ConnectionId,
        number: u64,
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        let host = host.to_owned();
        let question = Question {
            id,
            number,
            host,
            port,
        };
        let queue = match &mut self.queue {
            Some(queue) => queue,
            None => self.queue.insert(start(&self.central)?),
        };
        queue.send(question).map_err(io::Error::other)
    }
}

fn start(central: &Weak<Central>) -> io::Result<Sender<Question>> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..THREADS {
        let (central, receiver) = (Weak::clone(central), Arc::clone(&receiver));
        thread::Builder::new()
            .name(format!("websockex-dns-{number}"))
            .spawn(move || answer(&central, &receiver))?;
    }
    Ok(sender)
}

/// Answers questions until nobody can ask any more.
fn answer(central: &Weak<Central>, questions: &Mutex<Receiver<Question>>) {
    loop {
        let question = questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(Question {
            id,
            number,
            host,
            port,
        }) = question
        else {
            return;
        };
        let result = (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect);
        let Some(central) = central.upgrade() else {
            return;
        };
        central.post(Command::Resolved { id, number, result });
    }
}
