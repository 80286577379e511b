//! Keeping the reactor's thread on one core.

use crate::support::Watchdog;
use std::thread;
use websockex::{Client, Error, Reactor};

/// One that nix cannot number, and one that it can.
const NO_CORES: [usize; 2] = [1 << 20, 1023];

#[test]
fn a_core_that_does_not_exist_is_an_error() {
    for wanted in NO_CORES {
        let is_told = |result: Result<(), Error>| match result {
            Err(Error::Pin { core, .. }) => assert_eq!(core, wanted),
            other => panic!("{other:?}"),
        };
        let builder = || Reactor::builder().pin_to(wanted);
        is_told(Client::start_with(builder()).map(drop));
        let mut reactor = builder().build().expect("it is not looked at yet");
        is_told(reactor.run());
        // Nor does it run when it is asked again.
        is_told(reactor.run());
        let error = reactor.run().expect_err("as before").to_string();
        assert!(error.contains(&format!("core {wanted}")), "{error}");
    }
}

/// The cores that a thread may run on, as the kernel writes them; `None` if it has ended.
#[cfg(target_os = "linux")]
fn cores(task: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    let mut lines = status.lines();
    let cores = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(cores.trim().to_owned())
}

/// The cores of all threads of this process that look names up.
#[cfg(target_os = "linux")]
fn resolvers() -> Vec<String> {
    let mut resolvers = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("there is /proc") {
        let task = task.expect("an entry").file_name();
        let task = format!("self/task/{}", task.to_string_lossy());
        let name = std::fs::read_to_string(format!("/proc/{task}/comm"));
        if name.is_ok_and(|name| name.starts_with("websockex-dns")) {
            resolvers.extend(cores(&task));
        }
    }
    resolvers
}

#[cfg(target_os = "linux")]
#[test]
fn the_reactors_thread_is_kept_there_and_no_other() {
    use crate::support::{Recorder, Server, Transport};
    use std::sync::mpsc::channel;

    let _watchdog = Watchdog::start();
    let own_cores = || cores("thread-self").expect("it runs");
    let all = own_cores();
    let first = all
        .split(['-', ','])
        .next()
        .expect("one at least")
        .to_owned();
    let core = first.parse().expect("a number");
    let server = Server::echo(Transport::Plain);
    let (told, seen) = channel();
    let recorder = Recorder::new().open(move |_, _| Ok(told.send(own_cores())?));
    let client = Client::start_with(Reactor::builder().pin_to(core)).expect("a thread");
    let url = server.url().replace("127.0.0.1", "localhost");
    client.connect(url, recorder).expect("it opens");
    assert_eq!(seen.recv().expect("it is open"), first);
    assert_eq!(own_cores(), all);
    // Those of the other tests of this process too.
    let resolvers = resolvers();
    assert!(!resolvers.is_empty());
    assert!(resolvers.iter().all(|cores| *cores == all), "{resolvers:?}");
    client.shutdown().expect("it runs");

    // A reactor without a thread of its own pins the one that runs it.
    let runs = thread::spawn(move || {
        let mut reactor = Reactor::builder().pin_to(core).build().expect("a reactor");
        let before = own_cores();
        reactor.run().expect("nothing to do");
        (before, own_cores())
    });
    assert_eq!(runs.join().expect("it runs"), (all, first));
}
