//! Many connections that want to connect at once.

use super::super::faults::Faults;
use super::super::server::Server;
use super::super::world::World;
use super::{ADDRESS, Diary, URL, once};
use crate::reactor::Reactor;
use crate::session::admission::Admission;
use crate::session::policy::ReconnectPolicy;
use std::time::Duration;

/// With a rate of a thousand in a second they begin a millisecond after each other; so they do when
/// they were lost together, and none is forgotten. Without one, as many begin together as one host has
/// places for.
#[test]
fn a_thousand_come_and_come_back_evenly() {
    let paced = Admission::default().rate(1000, Duration::from_secs(1));
    let evenly = |first| (first..first + ALL).collect();
    a_thousand_come_and_come_back(paced.expect("it can work"), evenly);
}

#[test]
fn a_thousand_come_and_come_back_in_waves() {
    let waves = |first| {
        let round_trips = (0..ALL).map(|number| number / PLACES_OF_A_HOST);
        round_trips
            .map(|wave| first + wave * ROUND_TRIP_MS)
            .collect()
    };
    a_thousand_come_and_come_back(Admission::default(), waves);
}

const ALL: u64 = 1000;
/// Half of the default cap.
const PLACES_OF_A_HOST: u64 = 128;
/// From the first SYN to the answer to the upgrade, on the simulated network.
const ROUND_TRIP_MS: u64 = 40;

fn a_thousand_come_and_come_back(admission: Admission, expected: impl Fn(u64) -> Vec<u64>) {
    let mut world = World::with(
        0,
        Faults::default(),
        Reactor::builder().admission(admission),
    );
    world.serve(ADDRESS, Server::open);
    world.at(3000, |world| world.network.reset_all());
    let again = ReconnectPolicy::fixed(Duration::from_secs(1));
    for _ in 0..ALL {
        let diary = Diary::new(&world).when_open(|cx| {
            if cx.epoch() == 2 {
                cx.close();
            }
            Ok(())
        });
        world.connect(once(URL).reconnect(again), diary);
    }
    world.run();
    world.check_end();
    let diary = world.log.diary();
    for epoch in [1, 2] {
        let open = format!("open {epoch}: {ADDRESS}");
        let opens = diary.iter().filter(|(_, text)| *text == open);
        let opens: Vec<u64> = opens.map(|(time, _)| *time).collect();
        assert_eq!(opens, expected(opens[0]), "epoch {epoch}");
    }
}
