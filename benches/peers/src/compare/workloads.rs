//! The workloads of the table, with what they have to reach.

use std::str::FromStr;
use websockex_peers::Mode;

/// What of a report is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Processor time per message or handshake.
    Cpu,
    /// The median of the latencies.
    P50,
    /// And the slowest hundredth.
    P99,
    /// Handshakes per second on the clock.
    Rate,
    /// Memory per idle connection.
    Resident,
    /// Live heap per idle connection.
    Heap,
    /// The most memory of the whole process.
    Peak,
}

/// What a row has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// So many times the floor, or less.
    Ratio(f64),
    /// So many bytes, or less.
    Bytes(f64),
    /// More than every peer.
    First,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) metric: Metric,
    pub(crate) goal: Goal,
}

/// One kind of run; it gives one row or several.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) mode: Mode,
    pub(crate) tls: bool,
    pub(crate) connections: usize,
    /// Of all connections together.
    pub(crate) messages: u64,
    /// For the server.
    pub(crate) query: &'static str,
    /// For the client.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) rows: &'static [Row],
}

const fn row(id: &'static str, what: &'static str, metric: Metric, goal: Goal) -> Row {
    Row {
        id,
        what,
        metric,
        goal,
    }
}

const fn cpu(id: &'static str, what: &'static str, ratio: f64) -> Row {
    row(id, what, Metric::Cpu, Goal::Ratio(ratio))
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

const fn receive(
    tls: bool,
    connections: usize,
    messages: u64,
    query: &'static str,
    rows: &'static [Row],
) -> Workload {
    Workload {
        mode: Mode::Receive,
        tls,
        connections,
        messages,
        query,
        arguments: &[],
        rows,
    }
}

const fn other(
    mode: Mode,
    tls: bool,
    messages: u64,
    arguments: &'static [&'static str],
    rows: &'static [Row],
) -> Workload {
    Workload {
        mode,
        tls,
        connections: 1,
        messages,
        query: "",
        arguments,
        rows,
    }
}

/// All of them. The counts of messages make a run of a fast client last about half a second, and two
/// rounds of ten clients less than a minute.
pub(crate) const ALL: &[Workload] = &[
    receive(
        false,
        1,
        10_000_000,
        "burst=0",
        &[cpu("R1", "text 128 B, blasted", 1.4)],
    ),
    receive(
        false,
        1000,
        300_000,
        "rate=200000&tick=5000",
        &[
            cpu("R2", "text 128 B, 1,000 connections", 1.1),
            row(
                "M3",
                "most memory while R2 runs",
                Metric::Peak,
                Goal::Bytes(8.0 * MIB),
            ),
        ],
    ),
    receive(
        false,
        1,
        300_000,
        "payload=binary&size=16384&burst=0",
        &[cpu("R3", "binary 16 KiB", 1.03)],
    ),
    receive(
        false,
        1,
        6000,
        "size=1048576&burst=0",
        &[cpu("R4a", "text 1 MiB, ASCII", 1.05)],
    ),
    receive(
        false,
        1,
        2000,
        "payload=multibyte&size=1048576&burst=0",
        &[cpu("R4m", "text 1 MiB, multi-byte", 1.25)],
    ),
    receive(
        false,
        1,
        3_000_000,
        "size=1024&fragments=4&burst=0",
        &[cpu("R5", "text 1 KiB in 4 fragments", 2.0)],
    ),
    receive(
        true,
        1,
        6_000_000,
        "burst=0",
        &[cpu("T1", "TLS, text 128 B, full records", 1.25)],
    ),
    receive(
        true,
        1,
        1_500_000,
        "burst=1",
        &[cpu("T2", "TLS, one record per 128 B", 1.02)],
    ),
    receive(
        true,
        1000,
        300_000,
        "rate=200000&tick=5000",
        &[cpu("T3", "TLS, text 128 B, 1,000 connections", 1.1)],
    ),
    receive(
        true,
        1,
        80_000,
        "payload=binary&size=16384&burst=0",
        &[cpu("T4", "TLS, binary 16 KiB", 1.05)],
    ),
    Workload {
        arguments: &["--deflate"],
        ..receive(
            false,
            1,
            300_000,
            "payload=json&size=1024&deflate=fresh&burst=0",
            &[cpu("D1f", "deflate, JSON 1 KiB, no takeover", 1.1)],
        )
    },
    Workload {
        arguments: &["--deflate"],
        ..receive(
            false,
            1,
            400_000,
            "payload=json&size=1024&deflate=takeover&burst=0",
            &[cpu("D1t", "deflate, JSON 1 KiB, takeover", 1.1)],
        )
    },
    other(
        Mode::Echo,
        false,
        40_000,
        &[],
        &[row("L1", "echo 128 B, p50", Metric::P50, Goal::Ratio(1.03))],
    ),
    other(
        Mode::Echo,
        true,
        40_000,
        &[],
        &[row(
            "L1t",
            "echo 128 B over TLS, p50",
            Metric::P50,
            Goal::Ratio(1.03),
        )],
    ),
    Workload {
        query: "spin=1",
        ..other(
            Mode::Echo,
            false,
            60_000,
            &["--spin"],
            &[row(
                "L1s",
                "echo 128 B, spinning, p50",
                Metric::P50,
                Goal::Ratio(1.15),
            )],
        )
    },
    // 200 bursts, each to the next 100 connections.
    Workload {
        arguments: &["--stamped"],
        ..receive(
            false,
            500,
            20_000,
            "rate=10000&tick=10000&stamped=1",
            &[
                row(
                    "L2",
                    "500 connections in bursts, p50",
                    Metric::P50,
                    Goal::Ratio(1.1),
                ),
                row(
                    "L2h",
                    "500 connections in bursts, p99",
                    Metric::P99,
                    Goal::Ratio(1.25),
                ),
            ],
        )
    },
    Workload {
        query: "spin=1",
        ..other(
            Mode::Send,
            false,
            6_000_000,
            &["--batch", "256"],
            &[cpu("S1", "send text 128 B, 256 per turn", 1.5)],
        )
    },
    Workload {
        query: "spin=1",
        ..other(
            Mode::Send,
            false,
            4000,
            &["--size", "1048576", "--binary"],
            &[cpu("S2", "send binary 1 MiB", 1.1)],
        )
    },
    Workload {
        connections: 10_000,
        ..other(
            Mode::Idle,
            false,
            0,
            &[],
            &[
                row(
                    "M1",
                    "idle ws, resident",
                    Metric::Resident,
                    Goal::Bytes(0.75 * KIB),
                ),
                row(
                    "M1h",
                    "idle ws, live heap",
                    Metric::Heap,
                    Goal::Bytes(0.75 * KIB),
                ),
            ],
        )
    },
    Workload {
        connections: 2000,
        ..other(
            Mode::Idle,
            true,
            0,
            &[],
            &[
                row(
                    "M2",
                    "idle wss, resident",
                    Metric::Resident,
                    Goal::Bytes(10.0 * KIB),
                ),
                row(
                    "M2h",
                    "idle wss, live heap",
                    Metric::Heap,
                    Goal::Bytes(4.0 * KIB),
                ),
            ],
        )
    },
    other(
        Mode::Handshakes,
        false,
        10_000,
        &["--in-flight", "16"],
        &[
            row("C1", "handshakes per second, ws", Metric::Rate, Goal::First),
            row("C1c", "CPU per handshake, ws", Metric::Cpu, Goal::First),
        ],
    ),
    other(
        Mode::Handshakes,
        true,
        1500,
        &["--in-flight", "16"],
        &[
            row(
                "C1t",
                "handshakes per second, wss, full",
                Metric::Rate,
                Goal::First,
            ),
            row(
                "C1tc",
                "CPU per handshake, wss, full",
                Metric::Cpu,
                Goal::First,
            ),
        ],
    ),
    other(
        Mode::Handshakes,
        true,
        2000,
        &["--in-flight", "16", "--resumption"],
        &[
            row(
                "C1r",
                "handshakes per second, wss, resumed",
                Metric::Rate,
                Goal::First,
            ),
            row(
                "C1rc",
                "CPU per handshake, wss, resumed",
                Metric::Cpu,
                Goal::First,
            ),
        ],
    ),
];

impl Workload {
    /// Does the bare client do more than the floor here? Long messages, masks, and a socket that is waited
    /// for.
    pub(crate) fn has_bare_client(&self) -> bool {
        let ids = ["R3", "R4a", "R4m", "L1", "S1", "S2"];
        self.rows.iter().any(|row| ids.contains(&row.id))
    }

    /// Is it meant by this word? `R4` means `R4a` and `R4m`.
    pub(crate) fn is_named(&self, word: &str) -> bool {
        self.rows.iter().any(|row| {
            row.id.eq_ignore_ascii_case(word)
                || row
                    .id
                    .trim_end_matches(|letter: char| letter.is_ascii_lowercase())
                    == word.to_ascii_uppercase()
        })
    }

    /// The size of a payload that the client makes.
    pub(crate) fn size(&self) -> usize {
        self.number("--size").unwrap_or(128)
    }

    /// Connections beside the others that get nothing.
    pub(crate) fn idle(&self) -> u64 {
        self.number("--idle").unwrap_or(0)
    }

    /// Are TLS sessions to be taken up again?
    pub(crate) fn is_resumed(&self) -> bool {
        self.arguments.contains(&"--resumption")
    }

    /// The value of an argument.
    fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        let mut words = self.arguments.iter().skip_while(|word| **word != name);
        words.nth(1)?.parse().ok()
    }
}

/// Of [`growth`], each with its row.
pub(crate) const GROWTH: [(usize, &[Row]); 5] = {
    const fn point(id: &'static str) -> [Row; 1] {
        [cpu(id, "text 128 B, 100,000 messages per second", f64::NAN)]
    }
    [
        (1, &const { point("growth 1") }),
        (10, &const { point("growth 10") }),
        (100, &const { point("growth 100") }),
        (1000, &const { point("growth 1000") }),
        (10_000, &const { point("growth 10000") }),
    ]
};
const BUSY: &[Row] = &[cpu("busy", "text 128 B, 16 per write, alone", f64::NAN)];
const BUSY_BESIDE: &[Row] = &[cpu(
    "busy+idle",
    "text 128 B, 16 per write, beside 10,000 idle",
    f64::NAN,
)];

/// CPU per message over the number of connections, at one total rate.
pub(crate) fn growth((connections, rows): (usize, &'static [Row])) -> Workload {
    receive(false, connections, 200_000, "rate=100000&tick=10000", rows)
}

/// One busy connection; `--idle` says how many others there are.
pub(crate) fn busy(idle: bool) -> Workload {
    let (arguments, rows): (&[&str], _) = match idle {
        true => (&["--idle", "10000"], BUSY_BESIDE),
        false => (&[], BUSY),
    };
    Workload {
        arguments,
        ..receive(false, 1, 3_000_000, "burst=16", rows)
    }
}
