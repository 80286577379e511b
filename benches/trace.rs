//! What seeing inside costs: receiving text messages of 128 bytes over loopback, at each level of the
//! trace, and in builds from which the calls of the trace, or of the statistics, are left out.
//!
//! ```text
//! cargo bench --bench trace -- [--rounds N] [--seconds S]
//! ```
//!
//! The program builds itself again with `--cfg websockex_no_trace` and `--cfg websockex_no_stats`, and
//! then measures all of them in turns, so that they share whatever else the machine does. Two figures:
//! time on the processor of the receiving thread, of which the least of all rounds counts, because
//! whatever disturbs adds to it; and, where there is valgrind, the instructions that
//! are executed outside the kernel, which are the same in every run.
//!
//! `blast` is one connection with more to read than fits the buffer; `single` is 64 connections with
//! one message per read, the worst case for what is done once per turn.

#[path = "support/server.rs"]
mod server;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::encoder;
use websockex::protocol::frame::OpCode;
use websockex::trace::Level;
use websockex::{Context, Handler, HandlerResult, Message, Open, Reactor};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PAYLOAD: [u8; 128] = [b'x'; 128];
const WORKLOADS: [&str; 2] = ["blast", "single"];
/// Build and level of each row of the table. The first is what the others are compared with.
const ROWS: [(&str, &str); 6] = [
    ("no_trace", "off"),
    ("whole", "off"),
    ("whole", "lifecycle"),
    ("whole", "frames"),
    ("whole", "payload"),
    ("no_stats", "off"),
];
/// What can be left out.
const LEFT_OUT: [&str; 2] = ["websockex_no_trace", "websockex_no_stats"];
/// Messages before the clock starts.
const WARM_UP: u64 = 20_000;
/// Messages between which instructions are counted.
const FEW: u64 = 10_000;
const MANY: u64 = 110_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let name = env::args().next().unwrap_or_default();
    if let Some(cfg) = LEFT_OUT.iter().find(|cfg| name.ends_with(**cfg)) {
        return compile(cfg, &arguments);
    }
    if let [run, workload, level, goal] = &arguments[..]
        && run == "--run"
    {
        println!("{}", receive(workload, level, Goal::parse(goal)?)?);
        return Ok(());
    }
    let value = |name: &str| {
        let position = arguments.iter().position(|argument| argument == name)?;
        arguments.get(position + 1)
    };
    // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if !has("--bench") || has("--test") {
        for workload in WORKLOADS {
            for level in ["off", "lifecycle", "frames", "payload"] {
                receive(workload, level, Goal::Messages(1000))?;
            }
        }
        return Ok(());
    }
    let rounds = value("--rounds").map_or(Ok(9), |rounds| rounds.parse())?;
    let seconds = value("--seconds").map_or("0.3s".to_owned(), |seconds| format!("{seconds}s"));
    let builds = BTreeMap::from([
        ("whole", env::current_exe()?),
        ("no_trace", build(LEFT_OUT[0])?),
        ("no_stats", build(LEFT_OUT[1])?),
    ]);
    for workload in WORKLOADS {
        compare(&builds, workload, rounds, &seconds)?;
    }
    Ok(())
}

/// Builds this program again, without what `cfg` leaves out. Cargo runs what `RUSTC_WORKSPACE_WRAPPER`
/// names in place of the compiler, for this package and not for what it depends on: a copy of this
/// program, which finds in its name what to add.
fn build(cfg: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let wrapper = own.with_file_name(cfg);
    std::fs::copy(&own, &wrapper)?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "bench",
            "--bench",
            "trace",
            "--no-run",
            "--message-format",
            "json",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let messages = String::from_utf8(output.stdout)?;
    let executable = messages.lines().rev().find_map(|line| {
        let path = line.split("\"executable\":\"").nth(1)?;
        path.split('"').next()
    });
    Ok(executable.ok_or("cargo has built nothing")?.into())
}

/// What cargo runs in place of the compiler.
fn compile(cfg: &str, arguments: &[String]) -> Result<()> {
    let (compiler, arguments) = arguments.split_first().ok_or("a compiler")?;
    let status = Command::new(compiler)
        .args(arguments)
        .args(["--cfg", cfg])
        .status()?;
    std::process::exit(status.code().unwrap_or(1));
}

fn compare(
    builds: &BTreeMap<&str, PathBuf>,
    workload: &str,
    rounds: usize,
    seconds: &str,
) -> Result<()> {
    let mut times = vec![Vec::new(); ROWS.len()];
    for _ in 0..rounds {
        for (times, (build, level)) in times.iter_mut().zip(ROWS) {
            let mut command = Command::new(&builds[build]);
            times.push(number(command.args(["--run", workload, level, seconds]))?);
        }
    }
    println!("{workload}, {rounds} rounds of {seconds}, per message:");
    let mut base = (0.0, None);
    for (times, (build, level)) in times.iter_mut().zip(ROWS) {
        times.sort_by(f64::total_cmp);
        let (time, median) = (times[0], times[times.len() / 2]);
        let instructions = instructions(&builds[build], workload, level);
        if base.0 == 0.0 {
            base = (time, instructions);
        }
        let difference = time - base.0;
        let percent = 100.0 * difference / base.0;
        print!(
            "{build:>9} {level:<10} {time:7.2} ns (median {median:7.2}), {difference:+6.2} ns, {percent:+6.2} %"
        );
        match (instructions, base.1) {
            (Some(own), Some(base)) => println!(", {own:7.1} instructions, {:+6.1}", own - base),
            _ => println!(),
        }
    }
    Ok(())
}

fn number(command: &mut Command) -> Result<f64> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Instructions per message, counted by callgrind. The other end is counted too, and is the same in
/// all rows.
fn instructions(program: &Path, workload: &str, level: &str) -> Option<f64> {
    let count = |messages: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(["--run", workload, level, &messages.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("Collected"))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some((count(MANY)? - count(FEW)?) / (MANY - FEW) as f64)
}

/// When a measurement ends.
#[derive(Clone, Copy)]
enum Goal {
    Messages(u64),
    Time(Duration),
}

impl Goal {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text.strip_suffix('s') {
            Some(seconds) => Self::Time(Duration::from_secs_f64(seconds.parse()?)),
            None => Self::Messages(text.parse()?),
        })
    }
}

struct Counter {
    opened: Rc<Cell<usize>>,
    messages: Rc<Cell<u64>>,
}

impl Handler for Counter {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: Message<'_>) -> HandlerResult {
        self.messages.set(self.messages.get() + 1);
        Ok(())
    }
}

/// Receives until the goal; nanoseconds on the processor per message.
fn receive(workload: &str, level: &str, goal: Goal) -> Result<f64> {
    let (connections, burst) = match workload {
        "blast" => (1, 512),
        _ => (64, 1),
    };
    let level = Level::named(level).ok_or("a level")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let server = thread::spawn(move || serve(&listener, connections, burst));
    let mut reactor = Reactor::builder().trace(level).build()?;
    let (opened, messages) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for _ in 0..connections {
        let (opened, messages) = (Rc::clone(&opened), Rc::clone(&messages));
        reactor.connect(&url, Counter { opened, messages })?;
    }
    let turn = Some(Duration::from_secs(5));
    let warm_up = match goal {
        Goal::Messages(_) => 0,
        Goal::Time(_) => WARM_UP,
    };
    while opened.get() < connections || messages.get() < warm_up {
        reactor.turn(turn)?;
    }
    let (start, cpu, before) = (Instant::now(), cpu_time(), messages.get());
    let done = |messages: u64| match goal {
        Goal::Messages(goal) => messages >= goal,
        Goal::Time(limit) => start.elapsed() >= limit,
    };
    while !done(messages.get()) {
        reactor.turn(turn)?;
    }
    let each = (cpu_time() - cpu).as_secs_f64() * 1e9 / (messages.get() - before).max(1) as f64;
    drop(reactor);
    server.join().expect("the server does not panic")?;
    Ok(each)
}

/// Accepts, and then writes to each connection in turn until they go away.
fn serve(listener: &TcpListener, connections: usize, burst: usize) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let (mut stream, _) = listener.accept()?;
        server::upgrade(&mut stream)?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut frame = Buffer::new();
    encoder::encode(
        Role::Server,
        true,
        OpCode::Text,
        &PAYLOAD,
        [0; 4],
        &mut frame,
    );
    let burst = frame.as_slice().repeat(burst);
    loop {
        for stream in &mut streams {
            // An error says that the client has seen enough.
            if stream.write_all(&burst).is_err() {
                return Ok(());
            }
        }
    }
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
