//! A reactor with a thread of its own, for programs that want a connection in one line.

use super::{Reactor, ReactorBuilder, Remote};
use crate::error::{BoxError, Error};
use crate::handler::{ConnectionId, Handler};
use crate::request::IntoRequest;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A reactor that runs on a thread of its own, with blocking calls.
///
/// ```no_run
/// use websockex::{Client, Context, Handler, HandlerResult, Message};
///
/// struct Print;
///
/// impl Handler for Print {
///     fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
///         println!("{message:?}");
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), websockex::Error> {
/// let client = Client::start()?;
/// let id = client.connect("wss://stream.example.com/ws", Print)?;
/// client.remote().send(id, "hello").ok();
/// client.shutdown()
/// # }
/// ```
///
/// Dropping it shuts the reactor down and waits for it: connections have [`Client::PATIENCE`] to close,
/// and a callback that does not return is waited for that long again.
///
/// A handler, too, may own it: dropped on the reactor's own thread it shuts down without waiting.
pub struct Client {
    remote: Remote,
    thread: Option<JoinHandle<()>>,
    /// What the run has come to.
    outcome: Receiver<Result<(), Error>>,
}

impl Client {
    /// How long connections have to close in an orderly way when the client is dropped or
    /// [`shutdown`](Self::shutdown) is called.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts a reactor with the defaults.
    ///
    /// # Errors
    /// [`Error::Reactor`]: there is no poll, or no thread.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(Reactor::builder())
    }

    /// Starts a reactor as it was set up.
    ///
    /// # Errors
    /// [`Error::Reactor`]: there is no poll, or no thread. [`Error::Pin`]: the thread cannot be kept on
    /// the core that was asked for.
    pub fn start_with(builder: ReactorBuilder) -> Result<Self, Error> {
        let builder = builder.stay_alive(true);
        let (sender, receiver) = sync_channel(1);
        let (end, outcome) = sync_channel(1);
        // Made on its own thread, because handlers that stay on one need not be sent to another.
        let body = move || {
            let built = builder.build().and_then(|mut reactor| {
                // Here, where whoever starts the client is told when it fails.
                reactor.pin()?;
                Ok(reactor)
            });
            let mut reactor = match built {
                Ok(reactor) => reactor,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let _ = sender.send(Ok(reactor.remote()));
            let result = reactor.run();
            if result.is_err() {
                // A linked connection that ends, ends them all. More errors of that kind may follow
                // while the others are closed; the first is the one that counts.
                let _ = reactor.remote().shutdown(Self::PATIENCE);
                while let Err(Error::Ended { .. }) = reactor.run() {}
            }
            drop(reactor);
            let _ = end.send(result);
        };
        let thread = thread::Builder::new()
            .name("websockex".to_owned())
            .spawn(body)
            .map_err(Error::Reactor)?;
        let remote = receiver
            .recv()
            .unwrap_or(Err(Error::Refused("the reactor's thread has ended")))?;
        Ok(Self {
            remote,
            thread: Some(thread),
            outcome,
        })
    }

    /// Connects, and returns once the connection is open. If it does not open, the error says why:
    /// at once if the request says [`fail_first`](crate::Request::fail_first) or its policy never
    /// tries again, and otherwise when the handler or the policy gives up.
    ///
    /// # Errors
    /// As [`Remote::connect_blocking`].
    pub fn connect(
        &self,
        request: impl IntoRequest,
        handler: impl Handler + Send,
    ) -> Result<ConnectionId, Error> {
        self.remote.connect_blocking(request, handler)
    }

    /// For everything else.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Closes all connections with 1001, waits for them, and ends the thread.
    ///
    /// # Errors
    /// What the reactor's run came to: [`Error::Ended`] if a linked connection had ended it.
    /// [`Error::Refused`]: a callback does not return; its thread is left alone.
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.end(Self::PATIENCE)
    }

    /// Connections have so long to close.
    fn end(&mut self, patience: Duration) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // Refused only if it has ended already.
        let _ = self.remote.shutdown(patience);
        if thread.thread().id() == thread::current().id() {
            return Ok(());
        }
        // Connections have their time, and then the reactor some to drop those that are left.
        match self.outcome.recv_timeout(2 * patience) {
            Err(RecvTimeoutError::Timeout) => Err(Error::Refused(
                "a callback does not return, and the reactor with it",
            )),
            Ok(outcome) => {
                let _ = thread.join();
                outcome
            }
            Err(RecvTimeoutError::Disconnected) => {
                let panicked: BoxError = "the reactor's thread panicked".into();
                Err(Error::Handler(panicked))
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.end(Self::PATIENCE);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Termination;
    use std::net::TcpListener;
    use std::sync::mpsc::Sender;

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Last(Sender<()>);

    impl Handler for Last {
        fn on_terminate(self: Box<Self>, _: &Termination<'_>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_callback_that_does_not_return_is_left_alone_and_the_reactor_ends_when_it_does() {
        // Connects, and hears nothing.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
        let mut client = Client::start().expect("a client");
        let (told, ended) = std::sync::mpsc::channel();
        let remote = client.remote().clone();
        let id = remote.connect(url, Last(told)).expect("a request");
        let (begun, begins) = sync_channel::<()>(1);
        let (end, ends) = sync_channel::<()>(0);
        thread::spawn(move || {
            let call = move |_: &mut dyn Handler| {
                begun.send(()).expect("the test waits for it");
                let _ = ends.recv_timeout(PATIENCE);
            };
            remote.with_handler(id, PATIENCE, call)
        });
        begins.recv_timeout(PATIENCE).expect("it is called");
        let outcome = client.end(Duration::from_millis(1));
        assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
        assert!(ended.try_recv().is_err(), "it is still at work");
        // Nobody waits a second time.
        drop(client);
        drop(end);
        ended.recv_timeout(PATIENCE).expect("an orderly end");
    }
}
