//! After the end of a connection: back-off, restarts, and the end of the reactor.

use super::super::network::Route;
use super::super::peer::End;
use super::super::server::{Play, Server};
use super::super::world::World;
use super::{ADDRESS, Diary, URL, check_diary, once};
use crate::session::policy::ReconnectPolicy;
use crate::session::supervision::{Restart, Supervision};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_server_that_dies_and_returns() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    world.at(1000, |world| {
        world.route(ADDRESS, Route::Refuses);
        world.network.reset_all();
    });
    world.at(3500, |world| {
        world.serve(ADDRESS, || {
            Server::open().then(SECOND, Play::Close(1000, String::new()))
        });
    });
    let policy = ReconnectPolicy::fixed(SECOND);
    let diary = Diary::new(&world).when_open(|cx| {
        if cx.epoch() == 2 {
            cx.close();
        }
        Ok(())
    });
    world.connect(once(URL).reconnect(policy), diary);
    let refused = "no connection to 10.0.0.1:80: connection refused; again after 1s";
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (
            1010,
            "disconnect 0: the connection failed: connection reset; again after 1s",
        ),
        (2030, &format!("disconnect 1: {refused}")),
        (3050, &format!("disconnect 2: {refused}")),
        (4090, "open 2: 10.0.0.1:80"),
        (4100, "server: close Some(1000)"),
        (4110, "disconnect 0: closed from this side with 1000"),
        (4110, "end"),
    ];
    check_diary(world, &expected);
}

/// What the policy said after each disconnect, in seconds.
fn delays(world: &World) -> Vec<f64> {
    let diary = world.log.diary();
    let delay = |(_, line): &(u64, String)| {
        let (_, delay) = line.split_once("; again after ")?;
        let (number, unit) = delay.split_at(delay.find(|c: char| c.is_alphabetic() || c == 'µ')?);
        let unit = match unit {
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            _ => 1e-9,
        };
        Some(number.parse::<f64>().ok()? * unit)
    };
    diary.iter().filter_map(delay).collect()
}

/// Full jitter: each delay lies below a bound that doubles, up to the greatest.
#[test]
fn back_off_stays_within_its_bounds() {
    let mut world = World::new();
    world.route(ADDRESS, Route::Refuses);
    let policy = ReconnectPolicy::exponential(SECOND, 8 * SECOND).unwrap();
    let diary = Diary::new(&world);
    world.connect(once(URL).reconnect(policy.max_attempts(20)), diary);
    world.run();
    world.check_end();
    let delays = delays(&world);
    assert_eq!(delays.len(), 19);
    for (failure, delay) in delays.iter().enumerate() {
        let bound = (1_u32 << failure.min(3)).into();
        assert!((0.0..=bound).contains(delay), "{delay} after {failure}");
    }
    let longest = delays.iter().copied().fold(0.0, f64::max);
    assert!(longest > 4.0, "it never came near the greatest: {delays:?}");
    // And it waited so long: each attempt took 20 ms.
    let waited: f64 = delays.iter().sum();
    let (end, _) = world.log.diary().last().cloned().unwrap();
    let total = Duration::from_secs_f64(waited + 20.0 * 0.020);
    assert!(
        total.as_millis().abs_diff(end.into()) <= 1,
        "{total:?} {end}"
    );
}

/// A server that takes connections and drops them is not good; one that sends for ten seconds is.
#[test]
fn back_off_begins_anew_after_data_for_a_while() {
    for (span, good) in [(9_999, false), (10_000, true)] {
        let mut world = World::new();
        world.serve(ADDRESS, move || {
            let server = Server::open().then(SECOND, Play::Text("first".to_owned()));
            let last = Duration::from_millis(span);
            let server = server.then(last, Play::Text("last".to_owned()));
            server.then(SECOND, Play::End(End::Finished))
        });
        let policy = ReconnectPolicy::exponential(SECOND, 8 * SECOND).unwrap();
        let diary = Diary::new(&world);
        world.connect(once(URL).reconnect(policy.max_attempts(3)), diary);
        world.run_until(13 * SECOND);
        let [delay] = delays(&world)[..] else {
            panic!("one disconnect: {:#?}", world.log.diary());
        };
        assert_eq!(delay == 0.0, good, "{delay} after {span}");
    }
}

/// Twice within ten seconds it is started anew, with a fresh handler; then its owner is told.
#[test]
fn restarts_and_escalation() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        Server::open().then(Duration::from_millis(100), Play::End(End::Finished))
    });
    let supervision = Supervision::new(Restart::OnFailure).intensity(2, 10 * SECOND);
    let log = world.log.clone();
    let factory = move || {
        log.tell("a fresh handler".to_owned());
        Diary {
            log: log.clone(),
            on_open: None,
            on_message: None,
            on_timer: None,
            on_batch_end: None,
            on_drained: None,
        }
    };
    world
        .reactor
        .supervise(once(URL), supervision, factory)
        .expect("a request that can be used");
    world.run();
    world.check_end();
    let ended = "the peer ended the connection without a Close frame";
    let disconnect = format!("disconnect 0: {ended}");
    let mut expected: Vec<(u64, String)> = Vec::new();
    for start in [0, 140, 280] {
        expected.extend([
            (start, "a fresh handler".to_owned()),
            (start + 40, "open 1: 10.0.0.1:80".to_owned()),
            (start + 140, disconnect.clone()),
            (start + 140, "end".to_owned()),
        ]);
    }
    let mut diary = world.log.diary();
    let (time, owner) = diary.pop().expect("the owner was told");
    assert_eq!(diary, expected);
    assert_eq!((time, owner.starts_with("owner: ")), (420, true), "{owner}");
    assert_eq!(world.escalated.len(), 1);
}

/// Who answers the Close frame is gone soon, who does not is dropped at the deadline.
#[test]
fn a_shutdown_with_a_deadline() {
    let mut world = World::new();
    world.serve(ADDRESS, Server::open);
    world.serve("10.0.0.2:80", || Server::open().ignoring_close());
    for url in [URL, "ws://10.0.0.2/"] {
        let diary = Diary::new(&world);
        world.connect(once(url).close_timeout(10 * SECOND), diary);
    }
    world.at(1000, |world| {
        world.remote().shutdown(3 * SECOND).expect("it runs");
    });
    let expected = [
        (40, "open 1: 10.0.0.1:80"),
        (40, "open 1: 10.0.0.2:80"),
        (1010, "server: close Some(1001)"),
        (1010, "server: close Some(1001)"),
        (1020, "disconnect 0: closed from this side with 1001"),
        (1020, "end"),
        (4000, "disconnect 0: closed from this side with 1001"),
        (4000, "end"),
    ];
    check_diary(world, &expected);
}
