//! A reactor on a simulated network, in virtual time.

use super::faults::Faults;
use super::log::Log;
use super::network::{Network, Route};
use super::peer::Peer;
use super::random::Random;
use crate::error::Error;
use crate::handler::{ConnectionId, Handler};
use crate::reactor::remote::Command;
use crate::reactor::resolver::Answer;
use crate::reactor::{Reactor, ReactorBuilder, Remote, handle_event};
use crate::request::Request;
use crate::session::{Entropy, Time};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Turns at one moment, for each connection that there is and for each run: a loop that takes more
/// does not come to rest.
const TURNS_AT_ONCE: usize = 1000;

/// How much later than it asked for a reactor may wake up.
const LATE: std::ops::Range<u64> = 1..20;

pub(super) struct World {
    pub(super) reactor: Reactor,
    pub(super) network: Network,
    pub(super) log: Log,
    pub(super) clock: Rc<Cell<Time>>,
    random: Random,
    faults: Faults,
    names: BTreeMap<String, (Duration, Answer)>,
    /// What the reactor's resolver asks.
    questions: Receiver<String>,
    /// What is to happen apart from the network.
    agenda: BTreeMap<(Time, usize), Act>,
    planned: usize,
    turns_at_once: usize,
    /// What the reactor has told its owner.
    pub(super) escalated: Vec<Error>,
}

type Act = Box<dyn FnOnce(&mut World)>;

impl World {
    /// A kind network.
    pub(super) fn new() -> Self {
        Self::with(0, Faults::default(), Reactor::builder())
    }

    pub(super) fn with(seed: u64, faults: Faults, builder: ReactorBuilder) -> Self {
        let mut random = Random::new(seed);
        let clock = Rc::new(Cell::new(Time::ZERO));
        let log = Log::new(Rc::clone(&clock));
        let network = Network::new(log.clone(), random.fork(), faults);
        let (sender, questions) = channel();
        let mut reactor = builder.build().expect("there is a poll");
        let shared = &mut reactor.shared;
        shared.network.simulated = Some(network.clone());
        shared.turn.clock.simulated = Some(Rc::clone(&clock));
        shared.resolver.queue = Some(sender);
        let mut bytes = random.fork();
        let source = Box::new(move |buffer: &mut [u8]| {
            bytes.fill(buffer);
            Ok(())
        });
        *shared.turn.entropy = Entropy::new(source).expect("it never fails");
        Self {
            reactor,
            network,
            log,
            clock,
            random,
            faults,
            names: BTreeMap::new(),
            questions,
            agenda: BTreeMap::new(),
            planned: 0,
            turns_at_once: 0,
            escalated: Vec::new(),
        }
    }

    /// `name` has these addresses, which are known after `delay`.
    pub(super) fn name(&mut self, name: &str, delay: Duration, addresses: &[&str]) {
        let parse = |address: &&str| -> IpAddr { address.parse().expect("an address") };
        self.answer(name, delay, Ok(addresses.iter().map(parse).collect()));
    }

    /// Whoever asks for `name` is told so after `delay`.
    pub(super) fn answer(&mut self, name: &str, delay: Duration, answer: Answer) {
        self.names.insert(name.to_owned(), (delay, answer));
    }

    /// At `address`, each connection gets a peer from `serve`.
    pub(super) fn serve<P: Peer + 'static>(&self, address: &str, serve: impl Fn() -> P + 'static) {
        let serve = move |_: &mut Random| -> Box<dyn Peer> { Box::new(serve()) };
        self.route(address, Route::Serves(Rc::new(serve)));
    }

    pub(super) fn route(&self, address: &str, route: Route) {
        let address: SocketAddr = address.parse().expect("an address with a port");
        self.network.route(address, route);
    }

    pub(super) fn connect(&mut self, request: Request, handler: impl Handler) -> ConnectionId {
        self.reactor
            .connect(request, handler)
            .expect("a request that can be used")
    }

    pub(super) fn remote(&self) -> Remote {
        self.reactor.remote()
    }

    /// At this time, in milliseconds since the start, `act` is to happen.
    pub(super) fn at(&mut self, milliseconds: u64, act: impl FnOnce(&mut Self) + 'static) {
        let time = Time::ZERO.after(Duration::from_millis(milliseconds));
        self.plan(time, Box::new(act));
    }

    fn plan(&mut self, time: Time, act: Act) {
        self.planned += 1;
        self.agenda.insert((time, self.planned), act);
    }

    /// Runs until nothing can happen any more, or the time has come.
    pub(super) fn run_until(&mut self, end: Duration) {
        let end = Time::ZERO.after(end);
        while self.log.now() < end && self.step(end) {}
    }

    /// Runs until nothing can happen any more.
    pub(super) fn run(&mut self) {
        self.run_until(Duration::MAX);
    }

    /// One turn of the reactor, or a leap to the next moment at which there is something to do. False
    /// if there is none.
    fn step(&mut self, end: Time) -> bool {
        self.network.happen();
        while let Some(act) = self.take_due() {
            act(self);
        }
        self.look_up();
        let news = self.network.poll();
        let mut woken = self.reactor.shared.central.woken.load(Ordering::Acquire);
        self.reactor.shared.turn.read_clock();
        let due = self.reactor.next_due();
        let is_due = due.is_some_and(|due| due <= self.clock.get());
        if news.is_empty() && !woken && !is_due {
            return self.leap(due, end);
        }
        self.turns_at_once += 1;
        let limit = TURNS_AT_ONCE + self.reactor.connections();
        assert!(self.turns_at_once < limit, "the loop does not come to rest");
        let reactor = &mut self.reactor;
        let count = news.len() as u64;
        for readiness in news {
            woken |= handle_event(&mut reactor.connections, &mut reactor.shared, readiness);
        }
        if let Err(error) = reactor.finish_turn(count, woken) {
            self.log.tell(format!("owner: {error}"));
            self.escalated.push(error);
        }
        // At once, while the last lines of the log are those that led here.
        let violations = self.log.violations();
        assert!(violations.is_empty(), "{violations:?}");
        true
    }

    fn take_due(&mut self) -> Option<Act> {
        let first = self.agenda.first_entry()?;
        let (time, _) = *first.key();
        (time <= self.clock.get()).then(|| first.remove())
    }

    fn leap(&mut self, due: Option<Time>, end: Time) -> bool {
        let late = if self.random.chance(self.faults.late_wake) {
            self.random.milliseconds(LATE)
        } else {
            Duration::ZERO
        };
        let now = self.clock.get();
        let wake = due.map(|due| due.after(late));
        let act = self.agenda.first_key_value().map(|((time, _), _)| *time);
        let Some(next) = [wake, act, self.network.next()].into_iter().flatten().min() else {
            return false;
        };
        if next > now {
            self.turns_at_once = 0;
        }
        self.clock.set(next.min(end));
        next < end
    }

    /// Answers what the resolver asks, in its time. What is not known is not found.
    fn look_up(&mut self) {
        while let Ok(host) = self.questions.try_recv() {
            self.log.note(format_args!("looks up {host}"));
            let none = || Err((ErrorKind::NotFound, "no such name".to_owned()));
            let known = self.names.get(host.as_str()).cloned();
            let (delay, answer) = known.unwrap_or((Duration::ZERO, none()));
            let time = self.clock.get().after(delay);
            let act = move |world: &mut Self| {
                let command = Command::Resolved { host, answer };
                world.reactor.shared.central.post(command);
            };
            self.plan(time, Box::new(act));
        }
    }

    /// Nothing that was opened is left, and nobody has broken a rule.
    pub(super) fn check_end(&self) {
        assert_eq!(self.log.violations(), Vec::<String>::new());
        assert_eq!(self.reactor.connections(), 0, "a slot is still taken");
        assert_eq!(self.network.sockets(), 0, "a socket was not dropped");
        let alive = self.reactor.connections.iter().flatten().count();
        assert_eq!(alive, 0, "a connection is still there");
        assert_eq!(self.reactor.shared.timers.next(), None, "a timer is left");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.log.print_tail();
        }
    }
}
