//! What a request changes of itself, attempt by attempt.

use super::Rig;
use crate::error::{DisconnectReason, Error};
use crate::session::aside::Comeback;
use crate::session::refresh::{Attempt, Refresh};
use crate::session::{Stage, Step};

fn rig(
    change: impl Fn(&mut Attempt<'_>) -> Result<(), crate::error::BoxError> + Send + Sync + 'static,
) -> Rig {
    Rig::new(|options| {
        options.headers = vec![("X-Key".to_owned(), "built".to_owned())];
        options.refresh = Some(Refresh::new(change));
    })
}

/// The lines of the request that the next attempt leads to.
fn request(rig: &mut Rig) -> Vec<String> {
    let Step::Connect(address) = rig.pass_to_deadline() else {
        panic!("no attempt");
    };
    let request = rig.request(address);
    let text = String::from_utf8(request).expect("a request is text");
    text.lines().map(str::to_owned).collect()
}

fn refuse(rig: &mut Rig) {
    let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    rig.with(|life, output| life.fail(output, Error::Io(ended)));
    rig.with(|life, output| assert!(!life.follow_redirect(output)));
    rig.lose(Comeback::Again);
}

#[test]
fn each_attempt_begins_with_the_request_as_it_was_built() {
    let mut rig = rig(|attempt| {
        assert_eq!(attempt.epoch(), 0);
        match attempt.number() {
            1 => {
                assert_eq!(attempt.url().path_and_query(), "/feed?old=1");
                attempt.set_header("x-key", "first")?;
                attempt.set_header("X-Other", "more")?;
                attempt.set_query("token=a%20b&n=1")?;
            }
            2 => {
                attempt.remove_header("X-KEY");
                attempt.set_query("")?;
            }
            _ => {}
        }
        Ok(())
    });
    let lines = request(&mut rig);
    assert_eq!(lines[0], "GET /feed?token=a%20b&n=1 HTTP/1.1");
    assert!(lines.contains(&"x-key: first".to_owned()), "{lines:?}");
    assert!(lines.contains(&"X-Other: more".to_owned()), "{lines:?}");
    assert!(!lines.contains(&"X-Key: built".to_owned()), "{lines:?}");
    refuse(&mut rig);
    let lines = request(&mut rig);
    assert_eq!(lines[0], "GET /feed HTTP/1.1");
    assert!(!lines.iter().any(|line| line.starts_with('X')), "{lines:?}");
    refuse(&mut rig);
    let lines = request(&mut rig);
    assert_eq!(lines[0], "GET /feed?old=1 HTTP/1.1");
    assert!(lines.contains(&"X-Key: built".to_owned()), "{lines:?}");
}

#[test]
fn an_open_connection_keeps_nothing_of_it() {
    let mut rig = rig(|attempt| Ok(attempt.set_header("X-Key", "secret")?));
    rig.open();
    assert!(rig.life.aside.is_none());
    let headers = &rig.life.target.options.headers;
    assert_eq!(headers[0].1, "built");
}

/// What cannot stand in a request is refused where it is set, and fails the attempt like any error.
#[test]
fn a_failure_is_the_attempts_own() {
    let mut rig = rig(|attempt| {
        if attempt.number() == 1 {
            attempt.set_header("X-Key", "a\r\nb: c")?;
        }
        Ok(attempt.set_query("a#b")?)
    });
    for source in ["control characters", "fragment"] {
        assert_eq!(rig.pass_to_deadline(), Step::Wait);
        assert_eq!(rig.life.stage, Stage::Over);
        let reason = rig.life.take_reason();
        rig.life.tidy();
        assert!(rig.life.aside.is_none());
        let DisconnectReason::ConnectFailed(Error::Refresh(error)) = reason else {
            panic!("{reason:?}");
        };
        assert!(error.to_string().contains(source), "{error}");
        rig.with(|life, output| {
            let reason = DisconnectReason::Dropped;
            life.plan(output, Some(super::SECOND), Comeback::Again, reason);
        });
    }
}
