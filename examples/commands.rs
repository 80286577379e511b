//! A client of a protocol of commands: JSON with ids, sent in any order and answered in any order.
//!
//! ```text
//! cargo run --example commands                              # against a server in a thread
//! cargo run --example commands -- wss://host/path METHOD... # against yours
//! ```
//!
//! ```text
//! caller -> Remote::cast(Command) -> on_cast: next id, send, remember who asks, arm a timer
//!                     on_message: the answer's id -> who asked
//!                     on_timer: no answer in time; on_disconnect: there will be none
//! ```
//!
//! Whoever calls waits on a channel of their own, on any thread; the handler never waits. An answer
//! that nobody waits for any more, and a message without an id, such as a notification, is printed.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use websockex::{
    BoxError, Client, CloseCode, ConnectionId, Context, Disconnect, Handler, HandlerResult,
    Message, Reconnect, Remote, Request, SendError, TimerId,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cast to the connection.
struct Command {
    method: String,
    /// JSON.
    params: String,
    asker: Asker,
}

/// Who waits for an answer. Room for one, so that the handler never waits for them.
type Asker = SyncSender<Result<String, Failure>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// It was not sent.
    Refused(SendError),
    /// It was sent, and it is not known whether it was carried out.
    TimedOut,
    /// Likewise: the connection was lost meanwhile.
    Lost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "not sent: {error}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Lost => f.write_str("the connection was lost before the answer"),
        }
    }
}

/// The handler: which commands are under way.
#[derive(Default)]
struct Commands {
    last_id: u64,
    waiting: HashMap<u64, Asker>,
}

impl Commands {
    fn answer(&mut self, id: u64, result: Result<String, Failure>) {
        if let Some(asker) = self.waiting.remove(&id) {
            // Whoever asked may have stopped waiting.
            let _ = asker.try_send(result);
        }
    }
}

impl Handler for Commands {
    fn on_cast(&mut self, cx: &mut Context<'_>, message: Box<dyn Any + Send>) -> HandlerResult {
        let Ok(command) = message.downcast::<Command>() else {
            return Err("only commands are cast here".into());
        };
        self.last_id += 1;
        let id = self.last_id;
        self.waiting.insert(id, command.asker);
        match cx.send_text(&request(id, &command.method, &command.params)) {
            Ok(()) => cx.set_timer(TimerId(id), PATIENCE),
            Err(error) => self.answer(id, Err(Failure::Refused(error))),
        }
        Ok(())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        if let Message::Text(text) = message {
            match id_of(text).filter(|id| self.waiting.contains_key(id)) {
                Some(id) => {
                    cx.cancel_timer(TimerId(id));
                    self.answer(id, Ok(text.to_owned()));
                }
                None => println!("nobody waits for {text}"),
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, _cx: &mut Context<'_>, timer: TimerId) -> HandlerResult {
        self.answer(timer.0, Err(Failure::TimedOut));
        Ok(())
    }

    fn on_disconnect(&mut self, cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        println!("disconnected: {}", disconnect.reason);
        for (id, asker) in self.waiting.drain() {
            cx.cancel_timer(TimerId(id));
            let _ = asker.try_send(Err(Failure::Lost));
        }
        // Commands that are cast from now on wait for the next `on_open`.
        Reconnect::ByPolicy
    }
}

/// Sends a command; the answer comes through what is returned.
fn call(
    remote: &Remote,
    id: ConnectionId,
    method: &str,
    params: &str,
) -> Result<Receiver<Result<String, Failure>>, SendError> {
    let (asker, answer) = sync_channel(1);
    let command = Command {
        method: method.to_owned(),
        params: params.to_owned(),
        asker,
    };
    remote.cast(id, command)?;
    Ok(answer)
}

/// A command as JSON. `params` is JSON already; `method` is a string.
fn request(id: u64, method: &str, params: &str) -> String {
    let mut quoted = String::new();
    for character in method.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted += &format!("\\u{:04x}", u32::from(control)),
            other => quoted.push(other),
        }
    }
    format!(r#"{{"id":{id},"method":"{quoted}","params":{params}}}"#)
}

/// The id of an answer: the number behind the object's own member `"id"`, wherever that stands. A
/// program of yours would have a JSON library do it; this looks at strings and depth, and no more.
fn id_of(json: &str) -> Option<u64> {
    let bytes = json.as_bytes();
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let start = at;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                let text = &json[start..at];
                at += 1;
                let rest = json[at..].trim_start();
                if depth == 1
                    && text == "id"
                    && let Some(value) = rest.strip_prefix(':')
                {
                    let value = value.trim_start();
                    let end = value.find(|digit: char| !digit.is_ascii_digit());
                    return value[..end.unwrap_or(value.len())].parse().ok();
                }
            }
            _ => {}
        }
    }
    None
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("commands: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let url = match arguments.next() {
        Some(url) => url,
        None => start_server()?,
    };
    let mut methods: Vec<String> = arguments.collect();
    if methods.is_empty() {
        methods = ["slow", "time", "list"].map(str::to_owned).into();
    }
    let client = Client::start()?;
    // A server that is not there is told at once, instead of being tried again and again.
    let request = Request::new(url)?.fail_first();
    let id = client.connect(request, Commands::default())?;
    // All are under way at the same time.
    let remote = client.remote();
    let calls: Vec<_> = methods
        .iter()
        .map(|method| call(remote, id, method, "{}"))
        .collect::<Result<_, _>>()?;
    for (method, answer) in methods.iter().zip(calls) {
        match answer.recv()? {
            Ok(answer) => println!("{method}: {answer}"),
            Err(failure) => println!("{method}: {failure}"),
        }
    }
    remote.close(id, CloseCode::NORMAL, "")?;
    client.shutdown()?;
    Ok(())
}

/// A server for one connection, in a thread, so that the example needs nothing else. It answers
/// `slow` after the next command that is not.
fn start_server() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}/", listener.local_addr()?);
    thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        let mut held = Vec::new();
        // `read` fails when the client has closed the connection, and this ends.
        while let Ok(message) = socket.read() {
            let text = message.to_text().unwrap_or_default();
            let Some(id) = id_of(text) else {
                continue;
            };
            held.insert(0, format!(r#"{{"result":"done","id":{id}}}"#));
            if text.contains(r#""method":"slow""#) {
                continue;
            }
            for answer in held.drain(..) {
                if socket.send(answer.into()).is_err() {
                    return;
                }
            }
        }
    });
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_objects_own() {
        for (json, id) in [
            (r#"{"id":7,"result":1}"#, Some(7)),
            (r#"{ "result" : {"id":1,"x":["id"]}, "id" : 42 }"#, Some(42)),
            (r#"{"text":"\"id\":1","id":2}"#, Some(2)),
            (r#"{"id":18446744073709551615}"#, Some(u64::MAX)),
            (r#"{"id":18446744073709551616}"#, None),
            (r#"{"id":null}"#, None),
            (r#"{"id":"7"}"#, None),
            (r#"{"event":"id"}"#, None),
            (r#"["id",1]"#, None),
            (r#"}{"id":1}"#, None),
            (r#"{"id"#, None),
            (r#"{"a\"#, None),
            ("", None),
            ("{\"größe\":1,\"id\":3}", Some(3)),
        ] {
            assert_eq!(id_of(json), id, "{json}");
        }
    }

    #[test]
    fn a_method_cannot_leave_its_quotation_marks() {
        let sent = request(1, "a\"b\\c\n", "[]");
        assert_eq!(sent, r#"{"id":1,"method":"a\"b\\c\u000a","params":[]}"#);
        assert_eq!(id_of(&request(9, r#"x","id":1,""#, "{}")), Some(9));
    }

    #[test]
    fn answers_find_those_who_asked() {
        let client = Client::start().unwrap();
        let url = start_server().unwrap();
        let id = client.connect(url, Commands::default()).unwrap();
        let remote = client.remote();
        let calls = ["slow", "time", "list"].map(|method| call(remote, id, method, "{}").unwrap());
        for (number, answer) in calls.into_iter().enumerate() {
            let answer = answer.recv().unwrap().unwrap();
            assert_eq!(id_of(&answer), Some(number as u64 + 1));
        }
        // Nor is one forgotten that has no answer when the connection ends.
        let lost = call(remote, id, "slow", "{}").unwrap();
        remote.close(id, CloseCode::NORMAL, "").unwrap();
        assert_eq!(lost.recv().unwrap(), Err(Failure::Lost));
        client.shutdown().unwrap();
    }
}
