//! Admission: places, rate and floor, TLS handshakes in turn, and connections that wait for them.

use crate::support::server::trusting;
use crate::support::{LONG, Log, Recorder, Rig, SHORT, Server, Transport, Why, port_that_refuses};
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use websockex::trace::{Event, Kind};
use websockex::{
    Admission, CloseCode, ConnectionState, Context, Handler, HandlerResult, Message, Open, Reactor,
    ReactorBuilder, ReconnectPolicy, Request, Termination,
};

/// A reactor with so many places, and as fast as they become free.
fn places(most: usize) -> ReactorBuilder {
    let most = u32::try_from(most).expect("a small number");
    let admission = Admission::default().connecting(most);
    Reactor::builder().admission(admission.expect("not zero"))
}

/// A listener that connects and says nothing, and a request to it under the name of `host`.
fn mute(host: &str) -> (TcpListener, Request) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    (
        listener,
        named(host, address)
            .handshake_timeout(LONG)
            .open_timeout(LONG),
    )
}

fn named(host: &str, address: SocketAddr) -> Request {
    let request = Request::new(format!("ws://{host}/")).expect("a URL");
    trusting(request.connect_to([address]).expect("an address"))
}

/// When events of `kind` were recorded, in the time that is read once per turn.
fn times(rig: &Rig, kind: Kind) -> Vec<Duration> {
    let events = rig.reactor.trace().iter();
    let events = events.filter(|event| event.kind() == kind);
    let time = |event: &Event| Duration::from_nanos(event.time_ns());
    events.map(time).collect()
}

fn states(rig: &Rig) -> HashMap<ConnectionState, usize> {
    let mut states = HashMap::new();
    for status in rig.reactor.remote().connections() {
        *states.entry(status.state).or_default() += 1;
    }
    states
}

/// Counts what its connections come to.
#[derive(Clone, Default)]
struct Count {
    open: Rc<Cell<usize>>,
    ended: Rc<Cell<usize>>,
}

impl Handler for Count {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.open.set(self.open.get() + 1);
        Ok(())
    }

    fn on_terminate(self: Box<Self>, _: &Termination<'_>) {
        self.ended.set(self.ended.get() + 1);
    }
}

#[test]
fn no_more_are_on_their_way_than_have_places() {
    const ALL: usize = 64;
    // Half of them, because there is one host.
    const AT_ONCE: usize = 4;
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let all_there = Barrier::new(AT_ONCE);
    let seen = Arc::clone(&most);
    let server = Server::start(Transport::Plain, move |_, mut peer| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // So many come before any is answered; fewer places, and this waits for ever.
        all_there.wait();
        now.fetch_sub(1, Ordering::SeqCst);
        peer.accept();
        peer.drain();
    });
    let mut rig = Rig::with(places(2 * AT_ONCE));
    let logs: Vec<_> = (0..ALL)
        .map(|_| rig.connect(server.request(), Recorder::new()))
        .collect();
    rig.turn();
    let states = states(&rig);
    assert_eq!(
        states[&ConnectionState::Queued],
        ALL - AT_ONCE,
        "{states:?}"
    );
    rig.run_until(|| logs.iter().all(Log::is_open));
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    let queued = rig.traced(Kind::ConnectQueued);
    assert_eq!(queued, ALL - AT_ONCE);
    drop(rig);
    drop(server);
}

#[test]
fn a_rate_is_kept_evenly_and_the_wait_is_told() {
    const PACE: Duration = Duration::from_millis(20);
    // By so much a poll that comes late is made up for.
    const SLACK: Duration = Duration::from_millis(2);
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.drain();
    });
    let admission = Admission::default().rate(50, Duration::from_secs(1));
    let admission = admission.expect("a rate");
    let mut rig = Rig::with(Reactor::builder().admission(admission));
    let waits = Rc::new(Cell::new((0, 0)));
    struct Waits(Rc<Cell<(usize, usize)>>);
    impl Handler for Waits {
        fn on_open(&mut self, _: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
            let (opened, waited) = self.0.get();
            let waited = waited + usize::from(open.times.admission.is_some());
            self.0.set((opened + 1, waited));
            Ok(())
        }
    }
    for _ in 0..10 {
        let handler = Waits(Rc::clone(&waits));
        rig.reactor
            .connect(server.request(), handler)
            .expect("a request");
    }
    rig.run_until(|| waits.get().0 == 10);
    assert_eq!(waits.get().1, 9, "all but the first had to wait");
    let begun = times(&rig, Kind::Connecting);
    assert_eq!(begun.len(), 10);
    for pair in begun.windows(2) {
        assert!(pair[1] - pair[0] >= PACE - SLACK, "{begun:?}");
    }
    drop(rig);
}

/// Two connections to one host, whose policy would have them try again at once.
#[test]
fn the_floor_of_a_host_overrules_the_policies() {
    let (_socket, address) = port_that_refuses();
    let admission = Admission::default().floor(SHORT);
    let mut rig = Rig::with(Reactor::builder().admission(admission));
    let again = ReconnectPolicy::fixed(Duration::ZERO);
    let request = named("venue.example", address).reconnect(again);
    let logs = [(); 2].map(|()| rig.connect(&request, Recorder::new()));
    rig.run_until(|| logs.iter().all(|log| log.lost().len() >= 4));
    let mut begun = times(&rig, Kind::Connecting);
    begun.extend(times(&rig, Kind::Reconnecting));
    begun.sort_unstable();
    assert!(begun.len() >= 8);
    for pair in begun.windows(2) {
        assert!(pair[1] - pair[0] >= SHORT, "{begun:?}");
    }
}

#[test]
fn a_host_that_does_not_answer_does_not_keep_the_others_out() {
    let (_listener, dead) = mute("dead.example");
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.drain();
    });
    let mut rig = Rig::with(places(8));
    for _ in 0..100 {
        rig.connect(&dead, Recorder::new());
    }
    rig.settle();
    assert_eq!(states(&rig)[&ConnectionState::Queued], 96);
    let live: Vec<_> = (0..20)
        .map(|_| rig.connect(server.request(), Recorder::new()))
        .collect();
    rig.run_until(|| live.iter().all(Log::is_open));
    assert_eq!(states(&rig)[&ConnectionState::Upgrading], 4);
    drop(rig);
}

#[test]
fn what_waits_has_no_deadline_and_can_be_closed() {
    let (_listener, request) = mute("venue.example");
    let mut rig = Rig::with(places(1));
    let first = rig.connect(&request, Recorder::new());
    let second = rig.connect(request.clone().open_timeout(SHORT), Recorder::new());
    let third = rig.connect(&request, Recorder::new());
    for _ in 0..5 {
        rig.reactor.turn(Some(SHORT)).expect("a turn");
    }
    let remote = rig.reactor.remote();
    let state = |log: &Log| remote.status(log.id()).expect("it is there").state;
    assert_eq!(state(&first), ConnectionState::Upgrading);
    assert_eq!(state(&second), ConnectionState::Queued);
    assert_eq!(state(&third), ConnectionState::Queued);
    assert_eq!(second.lost(), []);
    let lines = rig.dbg_lines();
    let waits = "waiting to connect to venue.example (number 2 in the queue)";
    assert!(lines.iter().any(|line| line.contains(waits)), "{lines:#?}");

    let code = CloseCode::new(1000);
    remote.close(second.id(), code, "").expect("it is there");
    rig.run_until(|| second.is_terminated());
    assert_eq!(second.lost(), [], "there was no attempt that could be lost");
    assert_eq!(state(&third), ConnectionState::Queued);
    remote.close(first.id(), code, "").expect("it is there");
    rig.run_until(|| state(&third) == ConnectionState::Upgrading);
    assert_eq!(first.only_lost().why, Why::local(1000));
    drop(rig);
}

#[test]
fn a_shutdown_ends_thousands_that_wait() {
    const ALL: usize = 5000;
    let (_listener, request) = mute("venue.example");
    let mut rig = Rig::with(places(8));
    let count = Count::default();
    for _ in 0..ALL {
        rig.reactor
            .connect(&request, count.clone())
            .expect("a request");
    }
    rig.turn();
    assert_eq!(states(&rig)[&ConnectionState::Queued], ALL - 4);
    rig.reactor.remote().shutdown(LONG).expect("it runs");
    rig.reactor.run().expect("it ends by itself");
    assert_eq!(count.ended.get(), ALL);
}

/// A connection that answers every message, while a thousand others connect: it has a turn after at
/// most as many of them as are on their way, and so goes on.
#[test]
fn an_open_connection_goes_on_while_a_thousand_connect() {
    const ALL: usize = 1000;
    const AT_ONCE: usize = 16;
    let files = rlimit::increase_nofile_limit(8192).expect("a limit");
    assert!(files > 2 * ALL as u64 + 100, "{files} files");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let accepting = thread::spawn(move || {
        let accept = |_| {
            let (stream, _) = listener.accept().expect("a connection");
            let mut peer = crate::support::Peer::new(Transport::Plain, stream);
            peer.accept();
            peer
        };
        (0..ALL).map(accept).collect::<Vec<_>>()
    });
    struct Busy(Rc<Cell<usize>>);
    impl Handler for Busy {
        fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
            Ok(cx.send_text("tick")?)
        }
        fn on_message(&mut self, cx: &mut Context<'_>, _: Message<'_>) -> HandlerResult {
            self.0.set(self.0.get() + 1);
            Ok(cx.send_text("tick")?)
        }
    }
    let echo = Server::echo(Transport::Plain);
    let mut rig = Rig::with(places(2 * AT_ONCE).trace_capacity(16 * ALL));
    let ticks = Rc::new(Cell::new(0));
    let busy = Busy(Rc::clone(&ticks));
    rig.reactor
        .connect(echo.request(), busy)
        .expect("a request");
    rig.run_until(|| ticks.get() > 0);
    let count = Count::default();
    for _ in 0..ALL {
        let request = named("venue.example", address);
        rig.reactor
            .connect(request, count.clone())
            .expect("a request");
    }
    let mut before = ticks.get();
    for quarter in 1..=4 {
        rig.run_until(|| count.open.get() >= quarter * ALL / 4);
        assert!(ticks.get() > before, "nothing came between");
        before = ticks.get();
    }
    // Events of one turn have one time.
    let mut opened = HashMap::<_, usize>::new();
    for time in times(&rig, Kind::Connected) {
        *opened.entry(time).or_default() += 1;
    }
    assert!(
        opened.values().all(|opened| *opened <= AT_ONCE),
        "{opened:?}"
    );
    assert!(opened.values().sum::<usize>() > ALL);
    drop(rig);
    accepting.join().expect("it accepts them all");
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn tls_handshakes_take_turns() {
    const ALL: usize = 24;
    let server = Server::start(Transport::Tls, |_, mut peer| {
        peer.accept();
        peer.drain();
    });
    let admission = Admission::default().handshakes_per_turn(1);
    let admission = admission.expect("not zero");
    let mut rig = Rig::with(Reactor::builder().admission(admission));
    let logs: Vec<_> = (0..ALL)
        .map(|_| rig.connect(server.request(), Recorder::new()))
        .collect();
    rig.run_until(|| logs.iter().all(Log::is_open));
    let mut done = times(&rig, Kind::TlsEstablished);
    assert_eq!(done.len(), ALL);
    // Events of one turn have one time.
    done.dedup();
    assert_eq!(done.len(), ALL, "two in a turn");
    drop(rig);
}
