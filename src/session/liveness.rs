//! Staying alive: heartbeats that ask the peer for a sign of life, and watchdogs that wait for one.
//!
//! All clocks here are lazy. Receiving stores the time of the turn and nothing else; when the
//! reactor looks again, it is worked out what is due. A breach is a disconnect with a reason of its
//! own, [`Watch`].

use super::policy::fraction;
use super::{Entropy, Time};
use crate::error::{PolicyError, Watch};
use std::sync::Arc;
use std::time::Duration;

/// A question sent again and again, and how long its answer may take.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Beat {
    interval: Duration,
    deadline: Duration,
    /// `None`: a protocol ping.
    text: Option<Arc<str>>,
}

/// Heartbeats spread over this part of their interval, so that those of many connections that
/// opened together do not go out together.
const JITTER: f64 = 0.1;

impl Beat {
    pub(crate) fn new(
        interval: Duration,
        deadline: Duration,
        text: Option<&str>,
    ) -> Result<Self, PolicyError> {
        if interval.is_zero() {
            return Err(PolicyError::Zero("a heartbeat's interval"));
        }
        if deadline.is_zero() {
            return Err(PolicyError::Zero("a heartbeat's deadline"));
        }
        // Only one question is open at a time, so its answer must be due before the next.
        if deadline > interval {
            return Err(PolicyError::Deadline);
        }
        Ok(Self {
            interval,
            deadline,
            text: text.map(Arc::from),
        })
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LivenessOptions {
    pub(crate) ping: Option<Beat>,
    pub(crate) text: Option<Beat>,
    pub(crate) any_byte: Option<Duration>,
    pub(crate) data: Option<Duration>,
    pub(crate) first_data: Option<Duration>,
}

impl LivenessOptions {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When the peer was last heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// When the connection opened and, once there was a message, when the first one came: then nobody
    /// asks any more when it opened.
    since: Time,
    pub(crate) any_byte: Time,
    /// `None`: no message since the connection opened.
    pub(crate) data: Option<Time>,
}

impl Heard {
    pub(crate) fn open(now: Time) -> Self {
        Self {
            since: now,
            any_byte: now,
            data: None,
        }
    }

    pub(crate) fn message(&mut self, now: Time) {
        if self.data.is_none() {
            self.since = now;
        }
        self.data = Some(now);
    }

    /// Over how long a time data has come in.
    pub(crate) fn data_span(&self) -> Option<Duration> {
        Some(self.data?.since(self.since))
    }
}

/// The heartbeats and watchdogs of an open connection.
pub(crate) struct Liveness {
    ping: Option<Pulse>,
    text: Option<Pulse>,
    /// Tells the answer to the newest ping from all others.
    pings: u64,
    pub(crate) round_trip: Option<Duration>,
    /// Since when the peer can be expected to be heard: since it opened, or was read again.
    since: Time,
}

/// One heartbeat.
struct Pulse {
    next: Time,
    /// When the question went out that is not answered yet.
    asked: Option<Time>,
}

impl Pulse {
    fn new(beat: &Beat, now: Time, entropy: &mut Entropy) -> Self {
        let mut pulse = Self {
            next: now,
            asked: None,
        };
        pulse.plan(beat, now, entropy);
        pulse
    }

    fn plan(&mut self, beat: &Beat, now: Time, entropy: &mut Entropy) {
        let shorter = 1.0 - JITTER * fraction(entropy.take());
        self.next = now.after(beat.interval.mul_f64(shorter));
    }

    fn due(&self, beat: &Beat) -> Time {
        self.asked
            .map_or(self.next, |asked| asked.after(beat.deadline))
    }

    /// An answer is late only if it was not among what had come until `seen`.
    fn is_due(&self, beat: &Beat, now: Time, seen: Time) -> bool {
        let time = if self.asked.is_some() { seen } else { now };
        time >= self.due(beat)
    }
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a ping with this payload.
    Ping([u8; 8]),
    /// Send this text.
    Text(Arc<str>),
    /// The peer is taken for dead.
    Breach(Watch, Duration),
}

impl Liveness {
    pub(crate) fn new(options: &LivenessOptions, now: Time, entropy: &mut Entropy) -> Self {
        let mut pulse =
            |beat: &Option<Beat>| beat.as_ref().map(|beat| Pulse::new(beat, now, entropy));
        Self {
            ping: pulse(&options.ping),
            text: pulse(&options.text),
            pings: 0,
            round_trip: None,
            since: now,
        }
    }

    /// When to look again. Watchdogs are looked at when they would bark if nothing came from now on.
    pub(crate) fn next(&self, options: &LivenessOptions, heard: &Heard) -> Option<Time> {
        let pulse =
            |pulse: &Option<Pulse>, beat: &Option<Beat>| Some(pulse.as_ref()?.due(beat.as_ref()?));
        let watchdog = |limit: Option<Duration>, since: Time| {
            limit.map(|limit| since.max(self.since).after(limit))
        };
        let first = match heard.data {
            None => watchdog(options.first_data, heard.since),
            Some(_) => None,
        };
        [
            pulse(&self.ping, &options.ping),
            pulse(&self.text, &options.text),
            watchdog(options.any_byte, heard.any_byte),
            watchdog(options.data, heard.data.unwrap_or(heard.since)),
            first,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is due now, when all is read that had come until `seen`; to be asked until it says nothing
    /// more.
    pub(crate) fn due(
        &mut self,
        options: &LivenessOptions,
        heard: &Heard,
        (now, seen): (Time, Time),
        entropy: &mut Entropy,
    ) -> Option<Due> {
        if let Some(breach) = self.breach(options, heard, seen) {
            return Some(breach);
        }
        if let (Some(pulse), Some(beat)) = (&mut self.text, &options.text) {
            // Any message since the question is an answer.
            if let (Some(asked), Some(data)) = (pulse.asked, heard.data)
                && data >= asked
            {
                pulse.asked = None;
            }
            if pulse.is_due(beat, now, seen) {
                if pulse.asked.is_some() {
                    return Some(Due::Breach(Watch::Answer, beat.deadline));
                }
                pulse.plan(beat, now, entropy);
                pulse.asked = Some(now);
                return beat.text.clone().map(Due::Text);
            }
        }
        if let (Some(pulse), Some(beat)) = (&mut self.ping, &options.ping)
            && pulse.is_due(beat, now, seen)
        {
            if pulse.asked.is_some() {
                return Some(Due::Breach(Watch::Pong, beat.deadline));
            }
            pulse.plan(beat, now, entropy);
            pulse.asked = Some(now);
            self.pings += 1;
            return Some(Due::Ping(self.pings.to_be_bytes()));
        }
        None
    }

    /// Nothing was read for a while, by this side's own choice: nothing is overdue.
    pub(crate) fn forgive(&mut self, now: Time) {
        self.since = now;
        for pulse in [&mut self.ping, &mut self.text].into_iter().flatten() {
            pulse.asked = pulse.asked.map(|_| now);
        }
    }

    /// The text could not be sent.
    pub(crate) fn not_asked(&mut self) {
        if let Some(pulse) = &mut self.text {
            pulse.asked = None;
        }
    }

    /// A pong has come; true if it answers the newest ping of the heartbeat.
    pub(crate) fn handle_pong(&mut self, payload: &[u8], now: Time) -> bool {
        let Some(pulse) = &mut self.ping else {
            return false;
        };
        if payload != self.pings.to_be_bytes() {
            return false;
        }
        let Some(asked) = pulse.asked.take() else {
            return false;
        };
        self.round_trip = Some(now.since(asked));
        true
    }

    fn breach(&self, options: &LivenessOptions, heard: &Heard, now: Time) -> Option<Due> {
        let barks = |limit: Option<Duration>, since: Time, watch: Watch| {
            limit
                .filter(|limit| now.since(since.max(self.since)) >= *limit)
                .map(|limit| Due::Breach(watch, limit))
        };
        let first = match heard.data {
            None => barks(options.first_data, heard.since, Watch::FirstData),
            Some(_) => None,
        };
        first
            .or_else(|| barks(options.data, heard.data.unwrap_or(heard.since), Watch::Data))
            .or_else(|| barks(options.any_byte, heard.any_byte, Watch::AnyByte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy() -> Entropy {
        Entropy::new(Box::new(|bytes| {
            bytes.fill(0);
            Ok(())
        }))
        .unwrap()
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pings_go_out_and_their_answers_are_awaited() {
        let options = LivenessOptions {
            ping: Some(Beat::new(seconds(10), seconds(4), None).unwrap()),
            ..LivenessOptions::default()
        };
        let (heard, mut entropy) = (Heard::open(at(0)), entropy());
        let mut liveness = Liveness::new(&options, at(0), &mut entropy);
        assert_eq!(liveness.next(&options, &heard), Some(at(10)));
        assert_eq!(
            liveness.due(&options, &heard, (at(9), at(9)), &mut entropy),
            None
        );
        let first = 1_u64.to_be_bytes();
        assert_eq!(
            liveness.due(&options, &heard, (at(10), at(10)), &mut entropy),
            Some(Due::Ping(first))
        );
        assert_eq!(liveness.next(&options, &heard), Some(at(14)));
        assert!(!liveness.handle_pong(b"unasked", at(11)));
        assert!(liveness.handle_pong(&first, at(12)));
        assert!(!liveness.handle_pong(&first, at(13)));
        assert_eq!(liveness.round_trip, Some(seconds(2)));
        assert_eq!(liveness.next(&options, &heard), Some(at(20)));
        let second = Due::Ping(2_u64.to_be_bytes());
        assert_eq!(
            liveness.due(&options, &heard, (at(20), at(20)), &mut entropy),
            Some(second)
        );
        assert!(
            !liveness.handle_pong(&first, at(21)),
            "that was the earlier one"
        );
        assert_eq!(
            liveness.due(&options, &heard, (at(24), at(24)), &mut entropy),
            Some(Due::Breach(Watch::Pong, seconds(4)))
        );
    }

    #[test]
    fn any_message_answers_a_text() {
        let options = LivenessOptions {
            text: Some(Beat::new(seconds(10), seconds(10), Some("ping")).unwrap()),
            ..LivenessOptions::default()
        };
        let (mut heard, mut entropy) = (Heard::open(at(0)), entropy());
        let mut liveness = Liveness::new(&options, at(0), &mut entropy);
        let text = Some(Due::Text("ping".into()));
        assert_eq!(
            liveness.due(&options, &heard, (at(10), at(10)), &mut entropy),
            text
        );
        heard.message(at(11));
        assert_eq!(
            liveness.due(&options, &heard, (at(20), at(20)), &mut entropy),
            text
        );
        assert_eq!(
            liveness.due(&options, &heard, (at(30), at(30)), &mut entropy),
            Some(Due::Breach(Watch::Answer, seconds(10)))
        );
    }

    /// Each watchdog has a clock of its own: pings and pongs are bytes, but no data.
    #[test]
    fn watchdogs_have_clocks_of_their_own() {
        let options = LivenessOptions {
            any_byte: Some(seconds(5)),
            data: Some(seconds(20)),
            first_data: Some(seconds(8)),
            ..LivenessOptions::default()
        };
        let (mut heard, mut entropy) = (Heard::open(at(0)), entropy());
        let mut liveness = Liveness::new(&options, at(0), &mut entropy);
        assert_eq!(liveness.next(&options, &heard), Some(at(5)));
        heard.any_byte = at(4);
        assert_eq!(
            liveness.due(&options, &heard, (at(5), at(5)), &mut entropy),
            None
        );
        assert_eq!(liveness.next(&options, &heard), Some(at(8)));
        heard.any_byte = at(7);
        let breach = |watch, limit| Some(Due::Breach(watch, seconds(limit)));
        assert_eq!(
            liveness.due(&options, &heard, (at(8), at(8)), &mut entropy),
            breach(Watch::FirstData, 8)
        );
        heard.message(at(7));
        assert_eq!(liveness.next(&options, &heard), Some(at(12)));
        assert_eq!(
            liveness.due(&options, &heard, (at(12), at(12)), &mut entropy),
            breach(Watch::AnyByte, 5)
        );
        heard.any_byte = at(27);
        assert_eq!(
            liveness.due(&options, &heard, (at(27), at(27)), &mut entropy),
            breach(Watch::Data, 20)
        );
        heard.message(at(27));
        assert_eq!(heard.data_span(), Some(seconds(20)));
    }

    /// After a time without reading, by this side's choice, every clock begins anew; what was heard, and
    /// over how long, stays what it was.
    #[test]
    fn reading_again_starts_all_clocks_anew() {
        let options = LivenessOptions {
            any_byte: Some(seconds(20)),
            data: Some(seconds(10)),
            first_data: Some(seconds(5)),
            ..LivenessOptions::default()
        };
        let (mut heard, mut entropy) = (Heard::open(at(0)), entropy());
        let mut liveness = Liveness::new(&options, at(0), &mut entropy);
        liveness.forgive(at(60));
        assert_eq!(liveness.next(&options, &heard), Some(at(65)));
        assert_eq!(
            liveness.due(&options, &heard, (at(64), at(64)), &mut entropy),
            None
        );
        heard.message(at(61));
        heard.any_byte = at(61);
        assert_eq!(liveness.next(&options, &heard), Some(at(71)));
        liveness.forgive(at(90));
        assert_eq!(
            liveness.due(&options, &heard, (at(99), at(99)), &mut entropy),
            None
        );
        assert_eq!(heard.data_span(), Some(seconds(0)));
        assert_eq!(
            liveness.due(&options, &heard, (at(100), at(100)), &mut entropy),
            Some(Due::Breach(Watch::Data, seconds(10)))
        );
    }

    #[test]
    fn beats_that_cannot_work_are_refused() {
        let zero = Duration::ZERO;
        assert!(matches!(
            Beat::new(zero, zero, None),
            Err(PolicyError::Zero(_))
        ));
        assert!(matches!(
            Beat::new(seconds(1), zero, None),
            Err(PolicyError::Zero(_))
        ));
        assert_eq!(
            Beat::new(seconds(1), seconds(2), None),
            Err(PolicyError::Deadline)
        );
    }
}
