//! Each way that a connection can take, with the virtual times at which it gets where.
//!
//! A packet takes 10 ms. So TCP connects after 20 ms, and the connection is open 20 ms later. All
//! times in the tests are milliseconds since the start.

mod admission;
mod cutting;
mod living;
mod reaching;
mod returning;

use super::log::Log;
use super::world::World;
use crate::handler::{
    Context, Disconnect, Handler, HandlerResult, Message, Open, Reconnect, Termination,
};
use crate::request::Request;
use crate::session::policy::ReconnectPolicy;
use crate::session::timers::TimerId;
use std::fmt::Write;

const ADDRESS: &str = "10.0.0.1:80";
const URL: &str = "ws://10.0.0.1/";

/// Does something in a callback.
type Act = Box<dyn FnMut(&mut Context<'_>) -> HandlerResult>;

/// Writes its callbacks into the diary.
struct Diary {
    log: Log,
    on_open: Option<Act>,
    on_message: Option<Act>,
    on_timer: Option<Act>,
    on_batch_end: Option<Act>,
    on_drained: Option<Act>,
}

impl Diary {
    fn new(world: &World) -> Self {
        Self {
            log: world.log.clone(),
            on_open: None,
            on_message: None,
            on_timer: None,
            on_batch_end: None,
            on_drained: None,
        }
    }

    fn when_batch_ends(
        mut self,
        act: impl FnMut(&mut Context<'_>) -> HandlerResult + 'static,
    ) -> Self {
        self.on_batch_end = Some(Box::new(act));
        self
    }

    fn when_open(mut self, act: impl FnMut(&mut Context<'_>) -> HandlerResult + 'static) -> Self {
        self.on_open = Some(Box::new(act));
        self
    }

    fn when_told(mut self, act: impl FnMut(&mut Context<'_>) -> HandlerResult + 'static) -> Self {
        self.on_message = Some(Box::new(act));
        self
    }

    fn when_drained(
        mut self,
        act: impl FnMut(&mut Context<'_>) -> HandlerResult + 'static,
    ) -> Self {
        self.on_drained = Some(Box::new(act));
        self
    }

    fn when_due(mut self, act: impl FnMut(&mut Context<'_>) -> HandlerResult + 'static) -> Self {
        self.on_timer = Some(Box::new(act));
        self
    }
}

fn act(act: &mut Option<Act>, cx: &mut Context<'_>) -> HandlerResult {
    act.as_mut().map_or(Ok(()), |act| act(cx))
}

impl Handler for Diary {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        let (epoch, peer) = (open.epoch, open.peer);
        self.log.tell(format!("open {epoch}: {peer}"));
        act(&mut self.on_open, cx)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        match message {
            Message::Text(text) => self.log.tell(format!("message {text}")),
            Message::Binary(bytes) => self.log.tell(format!("{} bytes", bytes.len())),
        }
        act(&mut self.on_message, cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _timer: TimerId) -> HandlerResult {
        self.log.tell("timer".to_owned());
        act(&mut self.on_timer, cx)
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        act(&mut self.on_batch_end, cx)
    }

    fn on_drained(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.tell(format!("drained: {} left", cx.queued()));
        act(&mut self.on_drained, cx)
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        let mut line = format!("disconnect {}: {disconnect}", disconnect.attempt);
        if let Some(delay) = disconnect.policy {
            write!(line, "; again after {delay:?}").expect("a string takes all");
        }
        self.log.tell(line);
        Reconnect::ByPolicy
    }

    fn on_terminate(self: Box<Self>, _termination: &Termination<'_>) {
        self.log.tell("end".to_owned());
    }
}

/// A request that is tried once.
fn once(url: &str) -> Request {
    let request = Request::new(url).expect("a good URL");
    request.reconnect(ReconnectPolicy::never())
}

/// Connects with a [`Diary`], runs to the end, and compares.
fn check(mut world: World, request: Request, expected: &[(u64, &str)]) {
    let diary = Diary::new(&world);
    world.connect(request, diary);
    check_diary(world, expected);
}

fn check_diary(mut world: World, expected: &[(u64, &str)]) {
    world.run();
    world.check_end();
    let diary = world.log.diary();
    let diary: Vec<(u64, &str)> = diary.iter().map(|(time, line)| (*time, &**line)).collect();
    assert_eq!(diary, expected);
}
