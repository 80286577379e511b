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
                let (desk, sender) = Desk::new(Weak::clone(&self.central), ask_system);
                desk.hire()?;
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

/// Asks the operating system, which takes its time.
fn ask_system(host: &str) -> Answer {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

/// Where questions are answered.
struct Desk<F> {
    central: Weak<Central>,
    look_up: F,
    questions: Mutex<Receiver<String>>,
    threads: AtomicUsize,
    idle: AtomicUsize,
}

impl<F: Fn(&str) -> Answer + Send + Sync + 'static> Desk<F> {
    /// A desk with nobody at it, and where questions are put.
    fn new(central: Weak<Central>, look_up: F) -> (Arc<Self>, Sender<String>) {
        let (sender, receiver) = channel();
        let desk = Self {
            central,
            look_up,
            questions: Mutex::new(receiver),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
        };
        (Arc::new(desk), sender)
    }

    /// One more thread, which is idle, unless there are enough.
    fn hire(self: Arc<Self>) -> io::Result<()> {
        // In one step: two may have been the last to be idle at nearly the same time.
        let more = |threads| (threads < THREADS).then_some(threads + 1);
        let hired = self
            .threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let Ok(number) = hired else {
            return Ok(());
        };
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
            if self.idle.fetch_sub(1, Ordering::Relaxed) == 1 {
                // Without, the others will do.
                let _ = Arc::clone(&self).hire();
            }
            let answer = (self.look_up)(&host);
            self.idle.fetch_add(1, Ordering::Relaxed);
            let Some(central) = self.central.upgrade() else {
                return;
            };
            central.post(Command::Resolved { host, answer });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::WAKER;
    use mio::{Events, Poll, Waker};
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;
    use std::sync::Condvar;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Look-ups of names that begin with this take until the test has them end; all others no time.
    const DEAD: &str = "dead";

    /// What the system is busy with.
    #[derive(Default)]
    struct System {
        state: Mutex<Load>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct Load {
        under_way: usize,
        may_end: bool,
    }

    impl System {
        fn look_up(&self, host: &str) -> Answer {
            let mut load = self.state.lock().expect("no panic");
            load.under_way += 1;
            self.changed.notify_all();
            if host.starts_with(DEAD) {
                let ends = self.changed.wait_while(load, |load| !load.may_end);
                load = ends.expect("no panic");
            }
            load.under_way -= 1;
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        }

        fn wait_for(&self, under_way: usize) {
            let load = self.state.lock().expect("no panic");
            let waited = self
                .changed
                .wait_timeout_while(load, PATIENCE, |load| load.under_way != under_way);
            let (load, _) = waited.expect("no panic");
            assert_eq!(load.under_way, under_way, "look-ups wait for each other");
        }

        fn under_way(&self) -> usize {
            self.state.lock().expect("no panic").under_way
        }

        fn end_all(&self) {
            self.state.lock().expect("no panic").may_end = true;
            self.changed.notify_all();
        }
    }

    /// A desk, and the test in the place of the reactor.
    struct Bench<F> {
        poll: Poll,
        central: Arc<Central>,
        desk: Arc<Desk<F>>,
        questions: Sender<String>,
        system: Arc<System>,
    }

    fn bench() -> Bench<impl Fn(&str) -> Answer + Send + Sync + 'static> {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), WAKER).expect("a waker");
        let central = Arc::new(Central::new(waker, Instant::now(), 1));
        let system = Arc::new(System::default());
        let asked = Arc::clone(&system);
        let (desk, questions) = Desk::new(Arc::downgrade(&central), move |host: &str| {
            asked.look_up(host)
        });
        Arc::clone(&desk).hire().expect("a thread");
        Bench {
            poll,
            central,
            desk,
            questions,
            system,
        }
    }

    impl<F: Fn(&str) -> Answer + Send + Sync + 'static> Bench<F> {
        /// Asks for so many names of this kind.
        fn ask(&self, kind: &str, count: usize) {
            for number in 0..count {
                let question = format!("{kind}-{number}");
                self.questions.send(question).expect("somebody is there");
            }
        }

        /// The next answers, by name.
        fn answers(&mut self, count: usize) -> Vec<String> {
            let deadline = Instant::now() + PATIENCE;
            let (mut hosts, mut commands) = (Vec::new(), VecDeque::new());
            let mut events = Events::with_capacity(1);
            loop {
                self.central.take(&mut commands);
                hosts.extend(commands.drain(..).map(|command| match command {
                    Command::Resolved { host, answer } => {
                        assert_eq!(answer, Ok(vec![Ipv4Addr::LOCALHOST.into()]));
                        host
                    }
                    _ => panic!("not an answer"),
                }));
                if hosts.len() >= count {
                    hosts.sort_unstable();
                    return hosts;
                }
                assert!(Instant::now() < deadline, "only {hosts:?} were answered");
                self.poll.poll(&mut events, Some(PATIENCE)).expect("a poll");
            }
        }

        fn threads(&self) -> usize {
            self.desk.threads.load(Ordering::Relaxed)
        }
    }

    /// In the order in which they are sorted.
    fn names(kind: &str, count: usize) -> Vec<String> {
        let mut names: Vec<_> = (0..count)
            .map(|number| format!("{kind}-{number}"))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn names_one_after_the_other_need_no_more_threads_than_one_and_its_relief() {
        let mut bench = bench();
        assert_eq!(bench.threads(), 1);
        for _ in 0..2 * THREADS {
            bench.ask("live", 1);
            assert_eq!(bench.answers(1), ["live-0"]);
        }
        assert_eq!(bench.threads(), 2);
    }

    #[test]
    fn so_many_names_are_looked_up_at_once_and_the_others_after_them() {
        const ALL: usize = THREADS + 8;
        let mut bench = bench();
        bench.ask(DEAD, ALL);
        bench.system.wait_for(THREADS);
        // Whoever would have been hired, was before the look-up began.
        assert_eq!(bench.threads(), THREADS);
        bench.system.end_all();
        assert_eq!(bench.answers(ALL), names(DEAD, ALL));
        assert_eq!(bench.threads(), THREADS);
    }

    /// As if two had found themselves the last to be idle, and only one more were wanted.
    #[test]
    fn there_are_never_more_threads_than_may_be() {
        let bench = bench();
        for _ in 0..2 * THREADS {
            Arc::clone(&bench.desk).hire().expect("a thread, or none");
        }
        assert_eq!(bench.threads(), THREADS);
    }

    #[test]
    fn names_for_which_nobody_answers_keep_no_other_waiting() {
        const MOST: usize = THREADS - 1;
        let mut bench = bench();
        bench.ask(DEAD, MOST);
        bench.system.wait_for(MOST);
        bench.ask("live", 3 * THREADS);
        assert_eq!(bench.answers(3 * THREADS), names("live", 3 * THREADS));
        assert_eq!(bench.system.under_way(), MOST);
        bench.system.end_all();
        assert_eq!(bench.answers(MOST), names(DEAD, MOST));
    }

    /// Those that wait for a question at once, those at work when they have an answer, which nobody
    /// wants any more.
    #[test]
    fn the_threads_end_with_the_reactor() {
        let bench = bench();
        bench.ask(DEAD, 2);
        bench.system.wait_for(2);
        let Bench {
            central,
            desk,
            questions,
            system,
            ..
        } = bench;
        let desk = {
            let weak = Arc::downgrade(&desk);
            drop((central, desk, questions));
            weak
        };
        let until = |threads: usize| {
            let deadline = Instant::now() + PATIENCE;
            while desk.strong_count() != threads {
                assert!(Instant::now() < deadline, "threads do not end");
                thread::yield_now();
            }
        };
        until(2);
        system.end_all();
        until(0);
    }
}
