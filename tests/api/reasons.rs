//! Why a connection has opened, as `on_open` is told.

use crate::support::{Peer, Recorder, Rig, Server, Transport, frame};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use websockex::{Open, OpenReason, Reconnect, ReconnectPolicy, Restart, Supervision};

/// What each `on_open` was told, in words.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn note(&self, open: &Open<'_>) {
        let kind = match open.reason {
            OpenReason::First => "first".to_owned(),
            OpenReason::Reconnected(reason) => format!("again: {reason}"),
            OpenReason::Changed(reason) => format!("elsewhere: {reason}"),
            OpenReason::Restarted(reason) => format!("anew: {reason}"),
            ref other => panic!("{other:?}"),
        };
        self.0.lock().expect("no panic here").push(kind);
    }

    fn recorder(&self) -> Recorder {
        let told = self.clone();
        Recorder::new().open(move |_, open| {
            told.note(open);
            Ok(())
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic here").clone()
    }
}

const GONE: &str = "the peer ended the connection without a Close frame";

#[test]
fn an_open_says_what_ended_the_time_before() {
    let elsewhere = Server::start(Transport::Plain, |_, mut peer| {
        peer.accept();
        peer.close(1000, "");
        peer.expect_close(1000);
    });
    let server = Server::start(Transport::Plain, |number, mut peer: Peer| match number {
        // Lost; a failed attempt is not what the gap comes from.
        0 => {
            peer.accept();
        }
        1 => peer.reject(503, &[], b""),
        _ => {
            peer.accept();
            peer.close(4000, "enough");
            peer.expect_close(4000);
        }
    });
    let told = Told::default();
    let there = elsewhere.request();
    let recorder = told.recorder().disconnect(move |_, lost| match lost.epoch {
        2 => Reconnect::To(Box::new(there.clone())),
        3 => Reconnect::Never,
        _ => Reconnect::ByPolicy,
    });
    let mut rig = Rig::new();
    let policy = ReconnectPolicy::fixed(Duration::ZERO);
    rig.connect(server.request().reconnect(policy), recorder);
    rig.run();
    let enough = "elsewhere: closed by the peer with 4000 \"enough\"";
    let expected = ["first".to_owned(), format!("again: {GONE}"), enough.into()];
    assert_eq!(told.all(), expected);
}

#[test]
fn a_restart_says_what_the_handler_before_came_to() {
    let server = Server::start(Transport::Plain, |number, mut peer| {
        peer.accept_and_send(&frame(0x81, b"x"));
        peer.answer_close(if number == 0 { 1011 } else { 1000 });
    });
    let told = Told::default();
    let mut number = 0;
    let factory = {
        let told = told.clone();
        move || {
            number += 1;
            let fails = number == 1;
            told.recorder().message(move |cx, _| {
                if fails {
                    return Err("no good".into());
                }
                cx.close();
                Ok(())
            })
        }
    };
    let mut rig = Rig::new();
    let supervision = Supervision::new(Restart::OnFailure);
    let id = rig
        .reactor
        .supervise(server.request(), supervision, factory);
    id.expect("a request");
    rig.run();
    assert_eq!(told.all(), ["first", "anew: the handler failed: no good"]);
}
