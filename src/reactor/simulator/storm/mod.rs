//! Many sessions against servers that do anything, over a network with all its faults, and with
//! commands from outside in between. What must hold, whatever happens, [`session`] checks at every
//! callback, [`servers`] on the other side, and this file at the end.
//!
//! A run that fails says its seed. `WEBSOCKEX_SIMULATOR_SEED=7 cargo test --lib storm` repeats that
//! one, `WEBSOCKEX_SIMULATOR_SESSIONS` says how many sessions each run has.

mod payload;
mod servers;
mod session;

use super::faults::Faults;
use super::network::Route;
use super::random::Random;
use super::world::World;
use crate::handler::ConnectionId;
use crate::reactor::Reactor;
use crate::request::Request;
use crate::session::policy::ReconnectPolicy;
use crate::session::supervision::{Restart, Supervision};
use servers::random_server;
use session::{LEAST, MOST, RESET_AFTER, Session, Totals};
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 0..4;
const SESSIONS: u64 = 500;

/// All sessions begin in this time, in milliseconds, and go on until the reactor is shut down.
const BEGINNING: u64 = 5_000;
const SHUTDOWN: u64 = 30_000;
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// Names of servers; the last ones are not known.
const HOSTS: u64 = 24;
const KNOWN_HOSTS: u64 = 22;
const ADDRESSES: u64 = 40;

/// Commands from outside, for each session.
const COMMANDS: u64 = 2;

/// Says how to repeat a run that fails.
struct Replay(u64, u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, sessions) = self;
            eprintln!(
                "To repeat this run: WEBSOCKEX_SIMULATOR_SEED={seed} \
                 WEBSOCKEX_SIMULATOR_SESSIONS={sessions} cargo test --lib storm"
            );
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

#[test]
fn sessions_keep_the_contract_whatever_happens() {
    let seeds = match setting("WEBSOCKEX_SIMULATOR_SEED") {
        Some(seed) => seed..seed + 1,
        None => SEEDS,
    };
    let sessions = setting("WEBSOCKEX_SIMULATOR_SESSIONS").unwrap_or(SESSIONS);
    for seed in seeds {
        let _replay = Replay(seed, sessions);
        let run = run(seed, sessions);
        // Whoever never opens anything finds nothing.
        assert!(run.totals.opened > sessions, "{:?}", run.totals);
        assert!(run.totals.messages > sessions, "{:?}", run.totals);
        assert!(
            run.totals.failed_attempts > sessions / 4,
            "{:?}",
            run.totals
        );
    }
}

/// The digest covers every byte sent, every callback and every time, in order.
#[test]
fn the_same_seed_gives_the_same_run() {
    let sessions = SESSIONS / 4;
    let first = run(7, sessions).digest;
    assert_eq!(first, run(7, sessions).digest);
    assert_ne!(first, run(8, sessions).digest);
}

struct Run {
    totals: Totals,
    digest: u64,
}

fn run(seed: u64, sessions: u64) -> Run {
    let mut random = Random::new(seed);
    // Without resets, an orderly end says that everything has come.
    let reset = if random.chance(50) {
        Faults::ALL.reset
    } else {
        0
    };
    let faults = Faults {
        reset,
        ..Faults::ALL
    };
    let mut world = World::with(random.next(), faults, Reactor::builder());
    let totals = Rc::new(RefCell::new(Totals::default()));
    lay_out(&mut world, &mut random, &totals);
    for _ in 0..sessions {
        begin(&mut world, &mut random, &totals);
    }
    world.at(SHUTDOWN, |world| {
        let shutdown = world.remote().shutdown(SHUTDOWN_DEADLINE);
        shutdown.expect("it runs");
    });
    world.run();
    world.check_end();
    let totals = totals.take();
    // A supervised session has several handlers, each with an end of its own.
    assert!(totals.handlers >= sessions);
    assert_eq!(totals.handlers, totals.terminated, "{totals:?}");
    assert_eq!(
        totals.opened + totals.failed_attempts,
        totals.disconnected,
        "{totals:?}"
    );
    let digest = world.log.digest();
    Run { totals, digest }
}

/// Servers, good and bad, and their names.
fn lay_out(world: &mut World, random: &mut Random, totals: &Rc<RefCell<Totals>>) {
    let address = |number: u64| format!("10.0.0.{}", number + 1);
    for number in 0..ADDRESSES {
        let totals = Rc::clone(totals);
        let route = match random.within(0..10) {
            0 => Route::Refuses,
            1 => Route::Silent,
            _ => Route::Serves(Rc::new(move |random| {
                Box::new(random_server(random, &totals))
            })),
        };
        world.route(&format!("{}:80", address(number)), route);
    }
    for number in 0..KNOWN_HOSTS {
        let count = random.within(1..4);
        let one = |_| -> IpAddr { address(random.within(0..ADDRESSES)).parse().unwrap() };
        let addresses: Vec<IpAddr> = (0..count).map(one).collect();
        // Some of them longer than a session waits.
        let delay = match random.chance(10) {
            true => random.milliseconds(1000..5000),
            false => random.milliseconds(0..50),
        };
        world.answer(&host(number), delay, Ok(addresses));
    }
}

fn host(number: u64) -> String {
    format!("host-{number}.test")
}

fn random_request(random: &mut Random) -> Request {
    let url = format!("ws://{}/", host(random.within(0..HOSTS)));
    let policy = ReconnectPolicy::exponential(LEAST, MOST).expect("good bounds");
    let mut request = Request::new(url)
        .expect("a good URL")
        .reconnect(policy.reset_after(RESET_AFTER))
        .resolve_timeout(random.milliseconds(500..3000))
        .connect_timeout(random.milliseconds(300..3000))
        .handshake_timeout(random.milliseconds(300..3000))
        .close_timeout(random.milliseconds(100..3000))
        .watch_bytes(random.milliseconds(3000..8000))
        .expect("some time");
    if random.chance(30) {
        let interval = random.milliseconds(500..3000);
        request = request
            .ping_every(interval, interval / 2)
            .expect("good times");
    }
    if random.chance(10) {
        let interval = random.milliseconds(1000..3000);
        request = request
            .text_every("?", interval, interval)
            .expect("good times");
    }
    if random.chance(20) {
        request = request
            .watch_data(random.milliseconds(2000..6000))
            .expect("some time");
    }
    if random.chance(30) {
        let low = random.length(0..1000);
        request = request.water_marks(low, low + 1000).expect("good marks");
    }
    if random.chance(10) {
        request = request.max_queued(random.length(1000..100_000));
    }
    request
}

/// A session that begins at some time, and what is asked of it from outside.
fn begin(world: &mut World, random: &mut Random, totals: &Rc<RefCell<Totals>>) {
    let id = Rc::new(Cell::new(None));
    let time = random.within(0..BEGINNING);
    for _ in 0..random.within(0..COMMANDS + 1) {
        let (id, time) = (Rc::clone(&id), random.within(time..SHUTDOWN));
        let totals = Rc::clone(totals);
        let command = random.within(0..10);
        world.at(time, move |world| {
            command_from_outside(world, &totals, id.get(), command);
        });
    }
    let request = random_request(random);
    let supervised = random.chance(20);
    let (mut random, totals) = (random.fork(), Rc::clone(totals));
    world.at(time, move |world| {
        let log = world.log.clone();
        let mut fresh = move || Session::new(&log, &totals, random.fork());
        let began = if supervised {
            let supervision = Supervision::new(Restart::OnFailure);
            world.reactor.supervise(request, supervision, fresh)
        } else {
            world.reactor.connect(request, fresh())
        };
        id.set(Some(began.expect("a request that can be used")));
    });
}

fn command_from_outside(
    world: &World,
    totals: &RefCell<Totals>,
    id: Option<ConnectionId>,
    command: u64,
) {
    let Some(id) = id else {
        return;
    };
    let remote = world.remote();
    // Refused when the connection has ended, or is not open: that is how it should be.
    let _ = match command {
        0 => {
            totals.borrow_mut().closed.insert(id);
            remote.close(id, crate::protocol::close::CloseCode::NORMAL, "")
        }
        1 | 2 => remote.send(id, "from outside"),
        3 => remote.pause_reading(id),
        4 | 5 => remote.resume_reading(id),
        _ => remote.cast(id, "from outside"),
    };
}
