//! Many connections that want to connect at once.

use super::super::faults::Faults;
use super::super::server::Server;
use super::super::world::World;
use super::{ADDRESS, Diary, URL, once};
use crate::reactor::Reactor;
use crate::session::policy::ReconnectPolicy;
use std::time::Duration;

/// By default they begin a millisecond after each other; so they do when they were lost together,
/// and none is forgotten.
#[test]
fn a_thousand_come_and_come_back_evenly() {
    const ALL: u64 = 1000;
    let mut world = World::with(0, Faults::default(), Reactor::builder());
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
        let evenly: Vec<u64> = (opens[0]..opens[0] + ALL).collect();
        assert_eq!(opens, evenly, "epoch {epoch}");
    }
}
