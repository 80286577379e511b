//! The market: which instruments there are, when something happens to them, and what.
//!
//! Events come in clusters, as they do in real order books: every event makes further events of
//! the same instrument more likely for a few milliseconds (a self-exciting process). The market
//! advances in steps of fixed length and draws everything from one seeded generator, so that the
//! same seed gives the same events, however late a step is run.

use super::format::{Decimal, Heading, Level, StreamKind, Tape};

/// Length of a step, in nanoseconds.
pub(crate) const STEP_NS: u64 = 1_000_000;
const STEPS_PER_SECOND: f64 = 1e9 / STEP_NS as f64;

const BASES: [&str; 50] = [
    "BTC", "ETH", "SOL", "XRP", "BNB", "DOGE", "ADA", "TRX", "AVAX", "LINK", "SUI", "XLM", "TON",
    "SHIB", "HBAR", "DOT", "BCH", "LTC", "UNI", "PEPE", "NEAR", "APT", "ICP", "ETC", "AAVE", "POL",
    "VET", "RENDER", "FIL", "ALGO", "ARB", "ATOM", "OP", "FET", "INJ", "STX", "IMX", "GRT", "SEI",
    "THETA", "LDO", "JUP", "MKR", "SAND", "GALA", "FLOW", "AXS", "CRV", "ENS", "COMP",
];
const QUOTES: [&str; 6] = ["USDT", "USDC", "FDUSD", "EUR", "TRY", "BTC"];

/// Mean number of further events that an event sets off directly; 1 would never end. With 0.8 a
/// cluster has 5 events on average.
const OFFSPRING: f64 = 0.8;
/// How much of the excitement is left after one step: clusters last for some 5 ms.
const DECAY: f64 = 0.7;
/// Of the events, the share that are trades; a trade also changes the book and its best price.
const TRADES: f64 = 0.20;
/// The share that change the best price and nothing else.
const QUOTE_CHANGES: f64 = 0.55;
/// A bound on one instrument's events in one step, far above what any sensible rate gives.
const MAX_EVENTS_PER_STEP: u32 = 10_000;
/// Most price levels on one side of a depth update.
const MAX_LEVELS: usize = 5;
/// Price decimals, and quantity decimals.
const PRICE_DECIMALS: usize = 2;
const QUANTITY_DECIMALS: usize = 5;

/// How many messages of a kind an event brings on average.
const fn messages_per_event(kind: StreamKind) -> f64 {
    match kind {
        StreamKind::BookTicker => QUOTE_CHANGES + TRADES,
        StreamKind::Trade => TRADES,
        StreamKind::Depth => 1.0 - QUOTE_CHANGES,
    }
}

/// The symbols that are traded, the busiest first.
pub(crate) fn symbols() -> Vec<String> {
    QUOTES
        .iter()
        .flat_map(|quote| BASES.iter().map(move |base| format!("{base}{quote}")))
        .filter(|symbol| symbol != "BTCBTC")
        .collect()
}

/// The number of the stream of `kind` of the instrument at `instrument` in [`symbols`].
fn stream_number(instrument: usize, kind: StreamKind) -> usize {
    instrument * StreamKind::ALL.len() + kind as usize
}

/// All instruments and what drives them.
pub(crate) struct Market {
    instruments: Vec<Instrument>,
    random: Random,
}

struct Instrument {
    symbol: String,
    lower: String,
    /// Share of the market's activity, before anybody subscribed.
    weight: f64,
    /// Expected events of its own per step, not set off by other events.
    spontaneous: f64,
    /// Expected further events in the next step.
    excitement: f64,
    bid: u64,
    ask: u64,
    quantity: u64,
}

impl Market {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let instruments = symbols()
            .into_iter()
            .enumerate()
            .map(|(rank, symbol)| {
                let bid = 10_000 + random.below(10_000_000);
                Instrument {
                    lower: symbol.to_lowercase(),
                    symbol,
                    // Zipf's law, flattened at its top.
                    weight: 1.0 / (rank as f64 + 10.0),
                    spontaneous: 0.0,
                    excitement: 0.0,
                    bid,
                    ask: bid + 1,
                    quantity: 100_000,
                }
            })
            .collect();
        Self {
            instruments,
            random,
        }
    }

    /// The names of all streams, by number.
    pub(crate) fn streams(&self) -> impl Iterator<Item = String> {
        self.instruments.iter().flat_map(|instrument| {
            StreamKind::ALL
                .iter()
                .map(|kind| format!("{}{}", instrument.lower, kind.suffix()))
        })
    }

    /// Sets how often things happen, so that the subscribers get `rate` messages per second in all.
    /// `subscribers` tells how many a stream has.
    pub(crate) fn set_rate(&mut self, rate: f64, subscribers: impl Fn(usize) -> usize) {
        let messages = |index| -> f64 {
            StreamKind::ALL
                .iter()
                .map(|&kind| {
                    let count = subscribers(stream_number(index, kind));
                    messages_per_event(kind) * count as f64
                })
                .sum()
        };
        let messages: Vec<f64> = (0..self.instruments.len()).map(messages).collect();
        let weighted: f64 = messages
            .iter()
            .zip(&self.instruments)
            .map(|(messages, instrument)| messages * instrument.weight)
            .sum();
        for (messages, instrument) in messages.iter().zip(&mut self.instruments) {
            // What nobody listens to need not happen.
            let events_per_second = if *messages > 0.0 {
                rate * instrument.weight / weighted
            } else {
                0.0
            };
            instrument.spontaneous = events_per_second * (1.0 - OFFSPRING) / STEPS_PER_SECOND;
        }
    }

    /// One step: whatever happens in it is rendered onto `tape`.
    pub(crate) fn step(&mut self, event_ms: u64, tape: &mut Tape) {
        for (index, instrument) in self.instruments.iter_mut().enumerate() {
            if instrument.spontaneous == 0.0 {
                continue;
            }
            let expected = instrument.spontaneous + instrument.excitement;
            let events = self.random.poisson(expected).min(MAX_EVENTS_PER_STEP);
            // The offspring of an event is spread over the steps to come: a geometric series.
            instrument.excitement =
                instrument.excitement * DECAY + f64::from(events) * OFFSPRING * (1.0 - DECAY);
            for _ in 0..events {
                instrument.event(index, event_ms, &mut self.random, tape);
            }
        }
    }
}

impl Instrument {
    /// Something happens: a trade with its effect on the book, a new best price, or a change of the
    /// book behind the best price.
    fn event(&mut self, index: usize, event_ms: u64, random: &mut Random, tape: &mut Tape) {
        let what = random.fraction();
        if what < TRADES {
            let buyer_is_maker = random.below(2) == 0;
            let at = if buyer_is_maker { self.bid } else { self.ask };
            let level = (price(at), quantity(1 + random.below(self.quantity)));
            tape.trade(
                self.heading(index, StreamKind::Trade, event_ms),
                level,
                buyer_is_maker,
            );
        }
        if what < TRADES + QUOTE_CHANGES {
            // A walk of one tick up or down, pushed back from zero; the spread is one to three.
            self.bid = (self.bid + random.below(3)).saturating_sub(1).max(1_000);
            self.ask = self.bid + 1 + random.below(3);
            self.quantity = 1_000 + random.below(10_000_000);
            let heading = self.heading(index, StreamKind::BookTicker, event_ms);
            let bid = (price(self.bid), quantity(self.quantity));
            let ask = (price(self.ask), quantity(1 + random.below(10_000_000)));
            tape.book_ticker(heading, bid, ask);
        }
        if !(TRADES..TRADES + QUOTE_CHANGES).contains(&what) {
            let heading = self.heading(index, StreamKind::Depth, event_ms);
            let zero = (price(0), quantity(0));
            let (mut bids, mut asks) = ([zero; MAX_LEVELS], [zero; MAX_LEVELS]);
            let bids = levels(&mut bids, random, |offset| self.bid - offset);
            let asks = levels(&mut asks, random, |offset| self.ask + offset);
            tape.depth(heading, bids, asks);
        }
    }

    fn heading(&self, index: usize, kind: StreamKind, event_ms: u64) -> Heading<'_> {
        Heading {
            stream: stream_number(index, kind),
            symbol: &self.symbol,
            lower: &self.lower,
            event_ms,
        }
    }
}

/// One to [`MAX_LEVELS`] price levels, going away from the best price.
fn levels<'a>(
    room: &'a mut [Level; MAX_LEVELS],
    random: &mut Random,
    price_at: impl Fn(u64) -> u64,
) -> &'a [Level] {
    let mut offset = 0;
    let mut count = 0;
    for level in room.iter_mut() {
        *level = (price(price_at(offset)), quantity(random.below(10_000_000)));
        offset += 1 + random.below(4);
        count += 1;
        if random.below(2) == 0 {
            break;
        }
    }
    &room[..count]
}

fn price(units: u64) -> Decimal {
    Decimal {
        units,
        decimals: PRICE_DECIMALS,
    }
}

fn quantity(units: u64) -> Decimal {
    Decimal {
        units,
        decimals: QUANTITY_DECIMALS,
    }
}

/// A small generator (SplitMix64): good enough for a market, useless for secrets.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`; the tiny bias of the remainder does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 0 up to, but not including, 1.
    fn fraction(&mut self) -> f64 {
        // The 53 bits that a double holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many of many unlikely things happen, `mean` on average (Knuth's method, in pieces, as it
    /// needs the exponential of the mean not to vanish).
    fn poisson(&mut self, mut mean: f64) -> u32 {
        const PIECE: f64 = 16.0;
        let mut count = 0;
        while mean > 0.0 && count < MAX_EVENTS_PER_STEP {
            let limit = (-mean.min(PIECE)).exp();
            let mut product = self.fraction();
            while product > limit {
                count += 1;
                product *= self.fraction();
            }
            mean -= PIECE;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, rate: f64, steps: u64) -> (usize, Vec<String>, Vec<usize>) {
        let mut market = Market::new(seed);
        // Two subscribers for every stream of the first ten instruments.
        market.set_rate(rate, |stream| if stream < 30 { 2 } else { 0 });
        let mut tape = Tape::default();
        let (mut delivered, mut texts, mut per_step) = (0, Vec::new(), Vec::new());
        for step in 0..steps {
            tape.clear();
            market.step(step, &mut tape);
            assert!(tape.messages.iter().all(|message| message.stream < 30));
            delivered += 2 * tape.messages.len();
            per_step.push(tape.messages.len());
            for message in &tape.messages {
                let text = str::from_utf8(tape.payload(message)).unwrap();
                texts.push(text.to_owned());
            }
        }
        (delivered, texts, per_step)
    }

    #[test]
    fn the_same_seed_gives_the_same_market() {
        let (_, first, _) = run(1, 50_000.0, 200);
        let (_, second, _) = run(1, 50_000.0, 200);
        let (_, other, _) = run(2, 50_000.0, 200);
        assert!(first.len() > 1_000);
        assert_eq!(first, second);
        assert_ne!(first, other);
    }

    #[test]
    fn the_rate_is_met_on_average() {
        for rate in [5_000.0, 200_000.0] {
            let seconds = 5;
            let (delivered, _, _) = run(3, rate, seconds * 1000);
            let ratio = delivered as f64 / (rate * seconds as f64);
            assert!((0.9..1.1).contains(&ratio), "{rate}: {ratio}");
        }
    }

    /// Independent events would give a variance near the mean; clusters give several times it, over
    /// windows that are longer than a cluster.
    #[test]
    fn events_come_in_bursts() {
        let (_, _, per_step) = run(4, 20_000.0, 10_000);
        let windows: Vec<f64> = per_step
            .chunks(20)
            .map(|window| window.iter().sum::<usize>() as f64)
            .collect();
        let mean = windows.iter().sum::<f64>() / windows.len() as f64;
        let squares: f64 = windows.iter().map(|count| (count - mean).powi(2)).sum();
        let variance = squares / windows.len() as f64;
        assert!(variance > 8.0 * mean, "variance {variance}, mean {mean}");
    }

    #[test]
    fn poisson_numbers_have_their_mean() {
        let mut random = Random(5);
        for mean in [0.01, 1.0, 15.0, 40.0] {
            let total: u64 = (0..20_000).map(|_| u64::from(random.poisson(mean))).sum();
            let ratio = total as f64 / 20_000.0 / mean;
            assert!((0.8..1.2).contains(&ratio), "{mean}: {ratio}");
        }
    }

    #[test]
    fn streams_are_named_and_numbered_alike() {
        let market = Market::new(0);
        let streams: Vec<String> = market.streams().collect();
        assert_eq!(streams.len(), symbols().len() * 3);
        assert_eq!(
            streams[stream_number(0, StreamKind::Trade)],
            "btcusdt@trade"
        );
        assert_eq!(
            streams[stream_number(1, StreamKind::Depth)],
            "ethusdt@depth"
        );
    }
}
