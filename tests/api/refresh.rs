//! Requests that change themselves before each attempt.

use crate::support::{Fault, Log, Peer, Recorder, Rig, Server, Transport, Why};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use websockex::trace::{Level, render};
use websockex::{Attempt, BoxError, Error, ReconnectPolicy, Request};

const AT_ONCE: ReconnectPolicy = ReconnectPolicy::fixed(Duration::ZERO);

/// Answers a request that was read with this status line, and perhaps a header.
fn refuse(peer: &mut Peer, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    // The client does not wait for more.
    let _ = peer.try_write(answer.as_bytes());
}

fn closing() -> Recorder {
    Recorder::new().open(|cx, _| {
        cx.close();
        Ok(())
    })
}

fn text(rig: &Rig) -> String {
    let line = |event| render::json_line(event, "feed").to_string();
    rig.reactor.trace().iter().map(line).collect()
}

#[test]
fn each_attempt_has_its_own_token_and_none_is_recorded() {
    for &transport in Transport::ALL {
        let server = Server::start(transport, |number, mut peer| {
            if number < 2 {
                let request = peer.read_request();
                let token = format!("Bearer hunter{}", number + 1);
                assert_eq!(request.headers().first("authorization"), Some(&*token));
                return refuse(&mut peer, "401 No");
            }
            let request = peer.accept();
            assert_eq!(request.target(), "/feed?signature=hunter3");
            assert_eq!(
                request.headers().first("authorization"),
                Some("Bearer hunter3")
            );
            peer.answer_close(1000);
        });
        let request = server.request().reconnect(AT_ONCE).trace(Level::Payload);
        let request = request.refresh(|attempt| {
            let secret = format!("hunter{}", attempt.number());
            attempt.set_header("Authorization", &format!("Bearer {secret}"))?;
            attempt.set_query(&format!("signature={secret}"))?;
            Ok(())
        });
        // A request can be cloned and sent, and its closure goes along.
        let request = std::thread::spawn(move || request.clone());
        let request = request.join().expect("no panic");
        let mut rig = Rig::new();
        let log = rig.connect(request, closing());
        rig.run();
        assert_eq!((log.opened(), log.lost().len()), (1, 3));
        let trace = text(&rig);
        assert!(!trace.contains("hunter"), "{trace}");
    }
}

/// How often it was asked, and what came of it.
fn failing(
    change: impl Fn(&mut Attempt<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
) -> (Rig, Log, u32) {
    let server = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.answer_close(1000);
    });
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let request = server.request().reconnect(AT_ONCE).refresh(move |attempt| {
        counter.fetch_add(1, Ordering::Relaxed);
        change(attempt)
    });
    let mut rig = Rig::new();
    let bystander = rig.connect(server.request(), Recorder::new());
    rig.run_until(|| bystander.is_open());
    let log = rig.connect(request, closing());
    rig.run_until(|| log.is_terminated());
    assert!(bystander.is_open(), "the others go on");
    let remote = rig.reactor.remote();
    let normal = websockex::CloseCode::NORMAL;
    remote
        .close(bystander.id(), normal, "")
        .expect("it is open");
    rig.run();
    (rig, log, asked.load(Ordering::Relaxed))
}

#[test]
fn a_refresh_that_fails_fails_its_attempt_only() {
    let (rig, log, asked) = failing(|attempt| match attempt.number() {
        1 | 2 => Err("the token hunter2 has expired".into()),
        _ => Ok(()),
    });
    assert_eq!((asked, log.opened()), (3, 1));
    let lost = log.lost();
    for (attempt, lost) in (1..).zip(&lost[..2]) {
        let fault = Fault::Other("the request could not be refreshed".to_owned());
        assert_eq!(lost.why, Why::ConnectFailed(fault));
        assert_eq!((lost.attempt, lost.epoch), (attempt, 0));
    }
    assert!(!text(&rig).contains("hunter"));
}

#[test]
fn a_refresh_that_panics_costs_its_connection_only() {
    let (rig, log, asked) = failing(|_| panic!("no token hunter2"));
    assert_eq!((asked, log.opened()), (1, 0));
    let fault = Fault::Panicked("while refreshing the request".to_owned());
    assert_eq!(log.only_lost().why, Why::ConnectFailed(fault));
    assert!(!text(&rig).contains("hunter"));
}

/// Whoever waits for the connection gets the closure's own error.
#[test]
fn the_error_is_there_for_the_caller() {
    let client = websockex::Client::start().expect("a thread");
    let request = Request::new("ws://127.0.0.1:1/")
        .expect("a URL")
        .fail_first();
    let request = request.refresh(|_| Err("no key".into()));
    let error = client
        .connect(request, Recorder::new())
        .expect_err("it fails");
    let Error::Refresh(source) = &error else {
        panic!("{error}");
    };
    assert_eq!(source.to_string(), "no key");
}

/// A redirect is no attempt, and what was meant for one server is not shown to another.
#[test]
fn a_redirect_to_another_server_gets_none_of_it() {
    let second = Server::start(Transport::Plain, |_, mut peer| {
        let request = peer.accept();
        assert_eq!(request.headers().first("x-key"), None);
        assert_eq!(request.headers().first("x-version"), Some("2"));
        peer.answer_close(1000);
    });
    let location = format!("http://{}/there", second.address);
    let first = Server::start(Transport::Plain, move |_, mut peer| {
        let request = peer.read_request();
        assert_eq!(request.headers().first("x-key"), Some("hunter2"));
        refuse(&mut peer, &format!("307 There\r\nLocation: {location}"));
    });
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let request = first.request().follow_redirects(1);
    let request = request.header("X-Version", "2").expect("a header");
    let request = request.refresh(move |attempt| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(attempt.set_header("X-Key", "hunter2")?)
    });
    let mut rig = Rig::new();
    let log = rig.connect(request, closing());
    rig.run();
    assert_eq!((log.opened(), asked.load(Ordering::Relaxed)), (1, 1));
}
