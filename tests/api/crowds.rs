//! More sockets that have news than one poll reports.

use crate::support::{Log, PATIENCE, Peer, Recorder, Rig, Transport, Why};
use crate::support::{server::trusting, wait_until};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use websockex::trace::Level;
use websockex::{Reactor, Request, Watch};

/// Events that one poll reports at most.
const A_POLL: usize = 1024;

/// Who has sent no message for so long is taken for dead. Long enough for two turns with everybody in them,
/// and waited for once.
const LIMIT: Duration = Duration::from_secs(1);

/// Opens so many connections, with handlers from `handle`. Returns their logs and the peers, both in their
/// own order.
fn open(
    rig: &mut Rig,
    count: usize,
    configure: impl Fn(Request) -> Request,
    handle: impl Fn() -> Recorder,
) -> (Vec<Log>, Vec<Peer>) {
    // Both ends are here; the tests that run beside this one need some too.
    let files = rlimit::increase_nofile_limit(16_384).expect("a limit");
    assert!(files > 2 * count as u64 + 200, "only {files} open files");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    socket2::SockRef::from(&listener)
        .listen(1024)
        .expect("a backlog");
    let address = listener.local_addr().expect("it is bound");
    // One thread for all of them, so that the machine is not asked for a thousand.
    let server = thread::spawn(move || {
        let accept = |_| {
            let (stream, _) = listener.accept().expect("a connection");
            let mut peer = Peer::new(Transport::Plain, stream);
            peer.accept();
            peer
        };
        (0..count).map(accept).collect()
    });
    let logs: Vec<_> = (0..count)
        .map(|_| {
            let request = Request::new(format!("ws://{address}/")).expect("a URL");
            let request = trusting(request).handshake_timeout(PATIENCE);
            rig.connect(configure(request), handle())
        })
        .collect();
    rig.run_until(|| logs.iter().all(Log::is_open));
    (logs, server.join().expect("it accepts them all"))
}

/// The reactor looks so late that everybody's time to speak is over. Whose message is there has spoken,
/// wherever in the queue the poll has it; a full poll is not all there is.
#[test]
fn nobody_is_taken_for_silent_because_a_poll_was_full() {
    const ALL: usize = A_POLL + A_POLL / 4;
    let mut rig = Rig::with(Reactor::builder().trace(Level::Off));
    let watched = |request: Request| request.watch_data(LIMIT).expect("a limit");
    let unread = || {
        Recorder::new().open(|cx, _| {
            cx.pause_reading();
            Ok(())
        })
    };
    let (logs, mut peers) = open(&mut rig, ALL + 1, watched, unread);
    let remote = rig.reactor.remote();
    for log in &logs {
        remote.resume_reading(log.id()).expect("it is open");
    }
    // From here on they are listened to, and what there was to read is read.
    rig.settle();
    assert!(logs.iter().all(Log::is_open));
    let _silent = peers.pop();
    for peer in &mut peers {
        peer.text("here");
    }
    let over = Instant::now() + LIMIT;
    wait_until(|| Instant::now() > over);
    rig.turn();
    // Their time was over indeed, and their news came together.
    let dead = |log: &&Log| !log.is_open() && log.messages() == 0;
    let dead: Vec<_> = logs.iter().filter(dead).collect();
    assert_eq!(dead.len(), 1, "only one has said nothing");
    assert_eq!(dead[0].only_lost().why, Why::Silent(Watch::Data));
    let heard = logs.iter().map(Log::messages).sum::<usize>();
    assert_eq!(heard, ALL);
    assert_eq!(remote.stats().events_per_turn.largest(), ALL as u64);
}

/// However many polls in a row are full, what one of them has said is not forgotten: there is no second edge
/// for it.
#[test]
fn no_news_is_lost_when_every_poll_is_full() {
    const ALL: usize = A_POLL;
    const ROUNDS: usize = 8;
    let mut rig = Rig::with(Reactor::builder().trace(Level::Off));
    let crowd = Arc::new(Mutex::new((0, Vec::<Peer>::new())));
    // Whoever is the last in a round to get its message has all peers send the next one: the poll that
    // follows, in the same turn, is full again.
    let handle = || {
        let crowd = Arc::clone(&crowd);
        Recorder::new().message(move |_, _| {
            let (heard, peers) = &mut *crowd.lock().expect("no panic");
            *heard += 1;
            if *heard % ALL == 0 && *heard < ROUNDS * ALL {
                peers.iter_mut().for_each(|peer| peer.text("more"));
            }
            Ok(())
        })
    };
    let (logs, peers) = open(&mut rig, ALL, |request| request, handle);
    rig.settle();
    {
        let (_, crowd) = &mut *crowd.lock().expect("no panic");
        crowd.extend(peers);
        crowd.iter_mut().for_each(|peer| peer.text("first"));
    }
    rig.run_until(|| crowd.lock().expect("no panic").0 == ROUNDS * ALL);
    assert!(logs.iter().all(|log| log.messages() == ROUNDS));
    let most = rig.reactor.remote().stats().events_per_turn.largest();
    assert!(most >= 2 * ALL as u64, "no two polls of a turn were full");
}
