//! Builds and runs the comparison. The README beside it says what there is to ask for.

mod compare;

use compare::results::{Outcome, Series};
use compare::runner::Runner;
use compare::workloads::{self, Workload};
use compare::{chart, growth};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use websockex_peers::{Result, process};

const USAGE: &str = "\
cargo run --release --manifest-path benches/peers/Cargo.toml -- WHAT... [OPTIONS]

WHAT: all (about a quarter of an hour), a row (R1, R4, L1, ...; each under a minute), growth (some minutes),
idle-cost (under a minute; floor and websockex only)
  --rounds N       runs of each client; 3 by default for all, otherwise 2
  --only A,B       these clients: floor, bare_client, websockex, or a NAME of src/bin/peer_NAME.rs
  --query Q        tells the server this instead of the row's own query, to try something
  --no-build       the programs are there already";

/// Between the floor and a client; see there.
const BARE_CLIENT: &str = "bare_client";

/// What was asked for.
struct Options {
    what: Vec<String>,
    rounds: Option<usize>,
    only: Vec<String>,
    query: Option<String>,
    build: bool,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self {
            what: Vec::new(),
            rounds: None,
            only: Vec::new(),
            query: None,
            build: true,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--rounds" => options.rounds = Some(value()?.parse()?),
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--query" => options.query = Some(value()?),
                "--no-build" => options.build = false,
                other if other.starts_with('-') => return Err(USAGE.into()),
                _ => options.what.push(word),
            }
        }
        if options.what.is_empty() {
            return Err(USAGE.into());
        }
        Ok(options)
    }

    fn rounds(&self) -> usize {
        let is_all = self.what.iter().any(|word| word == "all");
        self.rounds.unwrap_or(if is_all { 3 } else { 2 })
    }

    /// What the names of the files end with: nothing if all was measured, so that a part of it never
    /// takes the place of the whole.
    fn suffix(&self) -> String {
        let is_whole = self.what == ["all"] && self.only.is_empty() && self.query.is_none();
        if is_whole {
            return String::new();
        }
        let tried = self.query.iter().map(|_| "tried".to_owned());
        let words = self.what.iter().chain(&self.only).cloned().chain(tried);
        words.map(|word| format!("-{word}")).collect()
    }

    /// The programs to run: the floor first, ours second, the bare client, then the peers.
    fn clients(&self) -> Result<Vec<String>> {
        let mut clients = Vec::new();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin"))? {
            let path = entry?.path();
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .unwrap_or("");
            if name.starts_with("peer_") && path.is_file() {
                clients.push(name.to_owned());
            }
        }
        clients.sort();
        clients.splice(0..0, ["floor", "websockex", BARE_CLIENT].map(str::to_owned));
        if !self.only.is_empty() {
            // As crates are called, too: with hyphens.
            let only: Vec<String> = self
                .only
                .iter()
                .map(|name| name.trim_start_matches("peer_").replace('-', "_"))
                .collect();
            let is = |client: &str, name: &str| client.trim_start_matches("peer_") == name;
            if let Some(name) = only
                .iter()
                .find(|name| !clients.iter().any(|one| is(one, name)))
            {
                return Err(format!("there is no client {name}").into());
            }
            clients.retain(|client| only.iter().any(|name| is(client, name)));
        }
        Ok(clients)
    }
}

fn main() {
    if let Err(error) = compare() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn compare() -> Result<()> {
    let options = Options::from_arguments()?;
    process::raise_file_limit()?;
    if options.build {
        build()?;
    }
    let executable = std::env::current_exe()?;
    let programs = executable.parent().ok_or("a program is in a folder")?;
    let clients = options.clients()?;
    let mut runner = Runner::new(programs)?;
    let mut outcomes = Vec::new();
    for mut workload in choose(&options.what)? {
        if let Some(query) = &options.query {
            // Once per program, and it has to outlive nothing.
            workload.query = query.clone().leak();
        }
        let outcome = measure(&mut runner, &workload, &clients, options.rounds());
        print!("{}", outcome.table());
        outcomes.push(outcome);
    }
    write(&outcomes, &options.suffix())
}

/// All programs, because `cargo run` builds only this one.
fn build() -> Result<()> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or("cargo".to_owned());
    let arguments = ["build", "--release", "--bins", "--manifest-path", manifest];
    match Command::new(cargo).args(arguments).status()?.success() {
        true => Ok(()),
        false => Err("the programs do not build".into()),
    }
}

fn choose(what: &[String]) -> Result<Vec<Workload>> {
    let mut chosen = Vec::new();
    for word in what {
        let before = chosen.len();
        match word.as_str() {
            "all" => chosen.extend_from_slice(workloads::ALL),
            "growth" => chosen.extend(workloads::GROWTH.map(workloads::growth)),
            "idle-cost" => chosen.extend([false, true].map(workloads::busy)),
            _ => {
                let named = workloads::ALL
                    .iter()
                    .filter(|workload| workload.is_named(word));
                chosen.extend(named.cloned());
            }
        }
        if chosen.len() == before {
            return Err(format!("there is no {word}\n{USAGE}").into());
        }
    }
    Ok(chosen)
}

/// Round by round, and in each of them client by client: what changes about the machine meanwhile
/// changes for all. Each round begins with another client, so that none is always the one that runs
/// right after the floor.
fn measure(runner: &mut Runner, workload: &Workload, clients: &[String], rounds: usize) -> Outcome {
    let before = load();
    let new = |client: &String| Series {
        client: client.clone(),
        rounds: Vec::new(),
    };
    let takes_part = |client: &&String| *client != BARE_CLIENT || workload.has_bare_client();
    let mut series: Vec<Series> = clients.iter().filter(takes_part).map(new).collect();
    let count = series.len();
    for round in 0..rounds {
        for place in 0..count {
            let one = &mut series[(round + place) % count];
            // What cannot be done once is not tried again.
            let report = match one.rounds.first() {
                Some(Err(why)) => Err(why.clone()),
                _ => match runner.run(&one.client, workload) {
                    Ok(report) => match report.unsupported {
                        Some(why) => Err(why),
                        None => Ok(report),
                    },
                    Err(error) => Err(error.to_string()),
                },
            };
            one.rounds.push(report);
        }
    }
    Outcome {
        workload: workload.clone(),
        series,
        load: (before, load()),
    }
}

/// The load average of the last minute.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// What was measured, and on what.
fn setting() -> serde_json::Value {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = cpus.lines().filter(|line| line.starts_with("model name"));
    let model = models.next().and_then(|line| line.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "commit": said("git", &["rev-parse", "HEAD"]),
        "has_changes": said("git", &["status", "--porcelain", "-uno"]).map(|text| !text.is_empty()),
        "date": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "compiler": said("rustc", &["--version"]),
        "cpu": model.map(|(_, model)| model),
        "kernel": kernel.trim(),
    })
}

fn write(outcomes: &[Outcome], suffix: &str) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    fs::create_dir_all(&folder)?;
    let write = |name: String, text: String| -> Result<()> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        println!("written: {}", path.display());
        Ok(())
    };
    let results: Vec<_> = outcomes.iter().map(Outcome::json).collect();
    let results = json!({ "setting": setting(), "outcomes": results });
    write(
        format!("results{suffix}.json"),
        serde_json::to_string_pretty(&results)?,
    )?;
    let (growth, rows): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.is_growth());
    if !growth.is_empty() {
        let rest = suffix.strip_prefix("-growth").unwrap_or(suffix);
        write(format!("growth{rest}.svg"), growth::draw(&growth))?;
    }
    if !rows.is_empty() {
        write(format!("chart{suffix}.svg"), chart::draw(&rows))?;
    }
    Ok(())
}
