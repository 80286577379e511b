//! Messages that the end of a read cuts: left in the receive buffer while their connection is alone,
//! gathered when another one has its turn, and forgotten with their socket.

use super::super::peer::End;
use super::super::server::{Play, Server};
use super::super::world::World;
use super::{ADDRESS, URL, once};
use crate::handler::{Context, Disconnect, Handler, HandlerResult, Message, Reconnect};
use crate::protocol::frame::OpCode;
use crate::session::policy::ReconnectPolicy;
use crate::trace::Level;
use crate::trace::kind::Kind;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const OTHER: &str = "10.0.0.2:80";
const OTHER_URL: &str = "ws://10.0.0.2/";
const SECOND: Duration = Duration::from_secs(1);
const LENGTH: usize = 10_000;
/// In the header behind the frame with the first of such messages.
const END: usize = 4 + 10_008 + 3;

/// What one connection was told, shared with its test.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<String>>>);

impl Told {
    fn texts(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

impl Handler for Told {
    fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let bytes = message.as_bytes();
        self.0
            .borrow_mut()
            .push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.0.borrow_mut().push(disconnect.to_string());
        Reconnect::ByPolicy
    }
}

/// Bytes that show where each of them belongs.
fn numbers(from: usize) -> String {
    let mut text = String::new();
    for number in from.. {
        text.push_str(&format!("{number:07}, "));
        if text.len() >= LENGTH {
            break;
        }
    }
    text
}

fn frame(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a middling length");
    [
        &[0x80 | opcode as u8, 126][..],
        &length.to_be_bytes(),
        payload,
    ]
    .concat()
}

fn binary(text: &str) -> Vec<u8> {
    frame(OpCode::Binary, text.as_bytes())
}

fn raw(bytes: &[u8]) -> Play {
    Play::Raw(bytes.to_vec())
}

/// Connects to the server that cuts, and lets a second pass after that.
fn cut_and_wait(world: &mut World) -> (Told, u64) {
    let told = Told::default();
    let request = once(URL).reconnect(ReconnectPolicy::fixed(SECOND).max_attempts(2));
    let id = world.connect(request, told.clone());
    world.run_until(Duration::from_millis(1900));
    (told, id.into())
}

fn owner(world: &World) -> Option<u64> {
    world.reactor.shared.receive.owner().map(u64::from)
}

/// Of a connection that is alone, nothing is gathered: not by the first piece, nor by the second, which
/// ends in the header of the next message.
#[test]
fn what_is_cut_is_left_where_it_lies() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let stream = [binary(&numbers(0)), binary(&numbers(9))].concat();
        Server::open()
            .then(SECOND, raw(&[&b"\x81\x01a"[..], &stream[..5000]].concat()))
            .then(SECOND, raw(&stream[5000..8000]))
            .then(SECOND, raw(&stream[8000..END]))
            .then(SECOND, raw(&stream[END..]))
            .then(SECOND, Play::Close(1000, String::new()))
    });
    let (told, id) = cut_and_wait(&mut world);
    assert_eq!(told.texts(), ["a"]);
    assert_eq!(owner(&world), Some(id));
    world.run_until(Duration::from_millis(2900));
    assert_eq!(owner(&world), Some(id));
    world.run_until(Duration::from_millis(3900));
    assert!(told.texts()[1..] == [numbers(0)]);
    assert_eq!(owner(&world), None, "of a header nothing is left");
    world.run();
    assert!(told.texts()[2] == numbers(9));
    assert_eq!(owner(&world), None);
    world.check_end();
}

/// The buffer is another connection's in between, and is written over.
#[test]
fn what_is_cut_is_gathered_before_another_is_read() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let stream = binary(&numbers(0));
        Server::open()
            .then(SECOND, raw(&stream[..5000]))
            .then(2 * SECOND, raw(&stream[5000..]))
            .then(SECOND, Play::Close(1000, String::new()))
    });
    world.serve(OTHER, || {
        let between = Play::Text(numbers(5000));
        Server::open()
            .then(SECOND, between)
            .then(SECOND, Play::Close(1000, String::new()))
    });
    let (told, id) = cut_and_wait(&mut world);
    assert_eq!(owner(&world), Some(id));
    let other = Told::default();
    world.connect(once(OTHER_URL), other.clone());
    world.run_until(Duration::from_millis(2999));
    assert!(other.texts() == [numbers(5000)]);
    assert_eq!(owner(&world), None);
    world.run();
    assert!(told.texts()[0] == numbers(0));
    world.check_end();
}

/// Text is gathered at once: what is wrong with it is found when it arrives, and not when it is complete.
#[test]
fn text_that_is_cut_is_not_left() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        let good = frame(OpCode::Text, numbers(0).as_bytes());
        let bad = frame(OpCode::Text, &[&[b'a'; 5000][..], &[0xff; 5000]].concat());
        Server::open()
            .then(SECOND, raw(&good[..6000]))
            .then(SECOND, raw(&good[6000..]))
            .then(SECOND, raw(&bad[..6000]))
            .then(SECOND, raw(&bad[6000..]))
    });
    let told = Told::default();
    world.connect(once(URL), told.clone());
    world.run_until(Duration::from_millis(1900));
    assert_eq!(owner(&world), None);
    world.run_until(Duration::from_millis(3900));
    let told = told.texts();
    assert!(told[0] == numbers(0));
    assert!(told[1].contains("UTF-8"), "{:?}", told[1]);
}

/// Who traces frames sees each when its header arrives.
#[test]
fn what_is_traced_is_not_left() {
    let mut world = World::new();
    world.serve(ADDRESS, || {
        Server::open().then(SECOND, raw(&binary(&numbers(0))[..5000]))
    });
    let id = world.connect(once(URL).trace(Level::Frames), Told::default());
    world.run_until(Duration::from_millis(1900));
    assert_eq!(owner(&world), None);
    let events = world.reactor.trace().of(id.into());
    let frames = events.filter(|event| event.kind() == Kind::FrameReceived);
    assert_eq!(frames.count(), 1);
}

/// The stream that ends within a message takes the beginning of it along: the next one begins anew.
#[test]
fn what_is_cut_does_not_outlast_its_socket() {
    for end in [End::Finished, End::Reset] {
        let mut world = World::new();
        world.serve(ADDRESS, move || {
            let stream = binary(&numbers(0));
            Server::open()
                .then(SECOND, raw(&stream[..5000]))
                .then(SECOND, Play::End(end))
        });
        world.at(1900, |world| {
            world.serve(ADDRESS, || {
                Server::open()
                    .then(SECOND, Play::Text(numbers(7)))
                    .then(SECOND, Play::Close(1000, String::new()))
            });
        });
        let (told, id) = cut_and_wait(&mut world);
        assert_eq!(owner(&world), Some(id));
        world.run_until(Duration::from_millis(2500));
        assert_eq!(owner(&world), None);
        assert_eq!(told.texts().len(), 1, "{:?}", told.texts());
        world.run_until(Duration::from_millis(4500));
        assert!(told.texts()[1] == numbers(7));
    }
}
