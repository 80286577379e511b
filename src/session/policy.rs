//! What happens after a connection has ended, where the handler leaves it to the request.

use super::Entropy;
use crate::error::PolicyError;
use crate::protocol::handshake::Rejection;
use std::time::Duration;

/// When to connect again, set with [`Request::reconnect`](crate::Request::reconnect) and used
/// wherever [`Handler::on_disconnect`](crate::Handler::on_disconnect) leaves the decision to it.
///
/// The default is [`exponential`](Self::exponential) from half a second to half a minute: the first
/// attempt comes at once, the second after a random part of half a second, then of one second, of
/// two, and so on, without end. It begins anew only after data has come in for ten seconds, so that
/// a server which accepts connections and drops them is not hammered.
///
/// A connection that was closed from this side is not opened again by any policy. A server's
/// `Retry-After` (RFC 9110 §10.2.3) with status 418, 429 or 503 is honoured, up to an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReconnectPolicy {
    backoff: Backoff,
    max_attempts: Option<u32>,
    reset_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Backoff {
    Never,
    Fixed(Duration),
    Exponential {
        least: Duration,
        most: Duration,
        factor: f64,
    },
}

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);
const FACTOR: f64 = 2.0;
const RESET_AFTER: Duration = Duration::from_secs(10);

/// A server may ask for patience, not for ever.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl ReconnectPolicy {
    const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            max_attempts: None,
            reset_after: RESET_AFTER,
        }
    }

    /// Never connect again: the first disconnect, or the first attempt that fails, is the end.
    pub const fn never() -> Self {
        Self::new(Backoff::Never)
    }

    /// Connect again after `delay`, as often as it takes.
    pub const fn fixed(delay: Duration) -> Self {
        Self::new(Backoff::Fixed(delay))
    }

    /// Connect again at once; if that fails, after a random part of a delay that begins with
    /// `least` and doubles up to `most` ("full jitter": a thousand connections that were lost
    /// together do not come back together).
    ///
    /// # Errors
    /// [`PolicyError`]: a zero, or bounds the wrong way round.
    pub fn exponential(least: Duration, most: Duration) -> Result<Self, PolicyError> {
        if least.is_zero() {
            return Err(PolicyError::Zero("the shortest delay"));
        }
        if least > most {
            return Err(PolicyError::Bounds);
        }
        let factor = FACTOR;
        Ok(Self::new(Backoff::Exponential {
            least,
            most,
            factor,
        }))
    }

    /// Multiplies the delay by `factor` from attempt to attempt instead of by two.
    ///
    /// # Errors
    /// [`PolicyError::Factor`]: below one, or not finite.
    pub fn factor(mut self, factor: f64) -> Result<Self, PolicyError> {
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(PolicyError::Factor);
        }
        if let Backoff::Exponential { factor: old, .. } = &mut self.backoff {
            *old = factor;
        }
        Ok(self)
    }

    /// Gives up after `attempts` attempts in a row that have failed. Unlimited by default.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Begins anew with the shortest delay only after a connection on which data has come in over
    /// this time; ten seconds by default.
    #[must_use]
    pub const fn reset_after(mut self, time: Duration) -> Self {
        self.reset_after = time;
        self
    }

    /// Has a connection been good, on which data came in over `time`?
    pub(super) fn resets(&self, time: Duration) -> bool {
        time >= self.reset_after
    }

    /// After so many failures in a row, as many as are allowed at most?
    pub(super) fn has_given_up(&self, failures: u32) -> Option<u32> {
        self.max_attempts.filter(|most| failures >= *most)
    }

    /// The wait before the next attempt, after `failures` failures in a row (a lost connection that
    /// was good is none); `None` ends the connection.
    pub(super) fn delay(&self, failures: u32, entropy: &mut Entropy) -> Option<Duration> {
        if self.has_given_up(failures).is_some() {
            return None;
        }
        match self.backoff {
            Backoff::Never => None,
            Backoff::Fixed(delay) => Some(delay),
            Backoff::Exponential { .. } if failures == 0 => Some(Duration::ZERO),
            Backoff::Exponential {
                least,
                most,
                factor,
            } => {
                // Far beyond any bound, and still a number.
                let exponent = i32::try_from(failures - 1).unwrap_or(i32::MAX).min(1000);
                let longest = (least.as_secs_f64() * factor.powi(exponent)).min(most.as_secs_f64());
                let part = fraction(entropy.take());
                Some(Duration::from_secs_f64(longest * part))
            }
        }
    }
}

/// A number from 0 to 1, one excluded.
pub(super) fn fraction(bytes: [u8; 4]) -> f64 {
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self::new(Backoff::Exponential {
            least: LEAST,
            most: MOST,
            factor: FACTOR,
        })
    }
}

/// How long a refusing server asks to be left alone.
pub(super) fn retry_after(rejection: &Rejection) -> Option<Duration> {
    if !matches!(rejection.status, 418 | 429 | 503) {
        return None;
    }
    let value = rejection.headers.first("retry-after")?.trim();
    // RFC 9110 §10.2.3: "delay-seconds = 1*DIGIT". No digit at all is not a number.
    let seconds = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for the type is too large for the limit as well.
        value.parse().unwrap_or(u64::MAX)
    } else {
        // RFC 9110 §10.2.3: an HTTP-date otherwise. The session has no clock; the server's own, in
        // its `Date` header, is the one that is meant.
        let then = http_date(value)?;
        let now = http_date(rejection.headers.first("date")?.trim())?;
        then.saturating_sub(now)
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Seconds since the year 0 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the
/// one form that a sender may generate). Only differences count.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split([' ', ':']);
    let (day, month) = (number(parts.next()?, 31)?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let year = number(parts.next()?, 9999)?;
    let hour = number(parts.next()?, 23)?;
    let minute = number(parts.next()?, 59)?;
    let second = number(parts.next()?, 60)?;
    // Days before the month, counted from March, so that the leap day comes last.
    let (year, month) = if month < 2 {
        (year.checked_sub(1)?, month + 10)
    } else {
        (year, month - 2)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Digits, and no more than `most`.
fn number(text: &str, most: u64) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|value| *value <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(byte: u8) -> Entropy {
        Entropy::new(Box::new(move |bytes| {
            bytes.fill(byte);
            Ok(())
        }))
        .unwrap()
    }

    #[test]
    fn delays_grow_between_their_bounds_with_full_jitter() {
        let policy =
            ReconnectPolicy::exponential(Duration::from_secs(1), Duration::from_secs(10)).unwrap();
        let longest: Vec<_> = (0..7)
            .map(|failures| policy.delay(failures, &mut entropy(0xff)).unwrap())
            .map(|delay| delay.as_secs_f64().round())
            .collect();
        assert_eq!(longest, [0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        for failures in 0..2000 {
            let shortest = policy.delay(failures, &mut entropy(0)).unwrap();
            assert_eq!(shortest, Duration::ZERO);
            assert!(policy.delay(failures, &mut entropy(0x80)).unwrap() <= Duration::from_secs(10));
        }
        assert!(policy.delay(u32::MAX, &mut entropy(0x80)).is_some());
    }

    #[test]
    fn policies_end_where_they_say() {
        assert_eq!(ReconnectPolicy::never().delay(0, &mut entropy(1)), None);
        let three = ReconnectPolicy::fixed(Duration::from_secs(1)).max_attempts(3);
        let delays: Vec<_> = (0..4)
            .map(|n| three.delay(n, &mut entropy(1)).is_some())
            .collect();
        assert_eq!(delays, [true, true, true, false]);
    }

    #[test]
    fn policies_that_cannot_work_are_refused() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(
            ReconnectPolicy::exponential(long, short),
            Err(PolicyError::Bounds)
        );
        assert!(matches!(
            ReconnectPolicy::exponential(Duration::ZERO, long),
            Err(PolicyError::Zero(_))
        ));
        for factor in [0.99, f64::NAN, f64::INFINITY, -2.0] {
            let policy = ReconnectPolicy::exponential(short, long).unwrap();
            assert_eq!(policy.factor(factor), Err(PolicyError::Factor));
        }
    }

    #[test]
    fn dates_differ_by_what_lies_between_them() {
        let base = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases = [
            ("Sun, 06 Nov 1994 08:49:38 GMT", 1),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 86_400),
            ("Mon, 06 Nov 1995 08:49:37 GMT", 365 * 86_400),
            ("Wed, 06 Nov 1996 08:49:37 GMT", (365 + 366) * 86_400),
        ];
        for (text, later) in cases {
            assert_eq!(http_date(text).unwrap() - base, later, "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994",
            "Sun, 06 Foo 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
