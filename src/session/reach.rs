//! Reaching the peer: which address to try when, and how long each stage took.
//!
//! RFC 8305 ("Happy Eyeballs"): the addresses of both families take turns, the next one is tried
//! 250 ms after the last or as soon as one has failed, and the first to connect wins.

use super::Time;
use crate::stats::StageTimes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// RFC 8305 §5: "One recommended value for a default delay is 250 milliseconds."
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// One attempt on its way to an open connection.
pub(super) struct Reach {
    pub(super) times: StageTimes,
    /// Where the proxy is to connect to, if that was looked up on this side.
    pub(super) behind_proxy: Option<SocketAddr>,
    /// Where else the server may be, if the proxy does not get there.
    others: VecDeque<SocketAddr>,
    /// Who was reached.
    pub(super) peer: Option<SocketAddr>,
    began: Time,
    /// When the stage under way began.
    since: Time,
    addresses: Vec<SocketAddr>,
    /// The next address to try.
    next: usize,
    /// Addresses that are being tried.
    outstanding: usize,
    /// When the next one is tried, if none has won or failed before.
    next_start: Option<Time>,
}

/// What comes after an address has failed.
pub(super) enum Next {
    /// Try this one.
    Connect(SocketAddr),
    /// Others are under way.
    Wait,
    /// None is left.
    Failed,
}

impl Reach {
    pub(super) fn new(now: Time) -> Self {
        Self {
            times: StageTimes::default(),
            behind_proxy: None,
            peer: None,
            others: VecDeque::new(),
            began: now,
            since: now,
            addresses: Vec::new(),
            next: 0,
            outstanding: 0,
            next_start: None,
        }
    }

    /// The same attempt at another server, after a redirect; its time runs on, but for what it has
    /// waited to be admitted.
    pub(super) fn redirected(&self, now: Time, waited: Duration) -> Self {
        Self {
            began: self.began.after(waited),
            ..Self::new(now)
        }
    }

    pub(super) fn began(&self) -> Time {
        self.began
    }

    /// The stage under way has ended; returns how long it took.
    pub(super) fn lap(&mut self, now: Time) -> Option<Duration> {
        let took = now.since(self.since);
        self.since = now;
        Some(took)
    }

    /// The server behind the proxy has these addresses; the proxy is told one at a time.
    pub(super) fn set_behind_proxy(&mut self, addresses: Vec<SocketAddr>) {
        self.others = interleave(addresses).into();
        self.next_behind_proxy();
    }

    /// On to the next of them; false if there is none.
    pub(super) fn next_behind_proxy(&mut self) -> bool {
        let next = self.others.pop_front();
        self.behind_proxy = next.or(self.behind_proxy);
        next.is_some()
    }

    /// These are the addresses; returns the first to try.
    pub(super) fn race(&mut self, addresses: Vec<SocketAddr>, now: Time) -> io::Result<SocketAddr> {
        self.addresses = interleave(addresses);
        (self.next, self.outstanding) = (0, 0);
        self.start_next(now)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
    }

    fn start_next(&mut self, now: Time) -> Option<SocketAddr> {
        let address = *self.addresses.get(self.next)?;
        self.next += 1;
        self.outstanding += 1;
        self.next_start = (self.next < self.addresses.len()).then(|| now.after(ATTEMPT_DELAY));
        Some(address)
    }

    pub(super) fn next_start(&self) -> Option<Time> {
        self.next_start
    }

    /// The next address, if its time has come.
    pub(super) fn due(&mut self, now: Time) -> Option<SocketAddr> {
        if self.next_start.is_none_or(|start| now < start) {
            return None;
        }
        self.start_next(now)
    }

    /// One of those under way has failed.
    pub(super) fn handle_error(&mut self, now: Time) -> Next {
        self.outstanding = self.outstanding.saturating_sub(1);
        match self.start_next(now) {
            Some(address) => Next::Connect(address),
            None if self.outstanding > 0 => Next::Wait,
            None => Next::Failed,
        }
    }

    /// One has won.
    pub(super) fn handle_connected(&mut self) {
        self.next_start = None;
        self.outstanding = 0;
        self.addresses = Vec::new();
    }
}

/// RFC 8305 §4: the addresses, in the order of the resolver, with the families taking turns.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_family = addresses.first().map(SocketAddr::is_ipv6);
    let of_first = |address: &SocketAddr| Some(address.is_ipv6()) == first_family;
    if addresses.iter().all(of_first) {
        return addresses;
    }
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(of_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return interleaved;
        }
        interleaved.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let expected = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(mixed), expected);
        let other = addresses(&["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(interleave(other.clone()), other);
        assert_eq!(interleave(vec![]), vec![]);
    }

    #[test]
    fn the_next_address_starts_after_a_while_or_a_failure() {
        let list = addresses(&["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"]);
        let at = |milliseconds| Time::ZERO.after(Duration::from_millis(milliseconds));
        let mut reach = Reach::new(at(0));
        assert_eq!(reach.race(list.clone(), at(0)).unwrap(), list[0]);
        assert_eq!(reach.next_start(), Some(at(250)));
        assert_eq!(reach.due(at(249)), None);
        assert_eq!(reach.due(at(250)), Some(list[1]));
        // The first fails: the third starts at once, and nothing more is planned.
        assert!(matches!(reach.handle_error(at(300)), Next::Connect(a) if a == list[2]));
        assert_eq!(reach.next_start(), None);
        assert!(matches!(reach.handle_error(at(310)), Next::Wait));
        assert!(matches!(reach.handle_error(at(320)), Next::Failed));
    }

    #[test]
    fn a_redirect_goes_on_with_the_attempts_time_but_for_what_it_has_waited() {
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        let reach = Reach::new(at(5)).redirected(at(20), Duration::from_secs(8));
        assert_eq!(reach.began(), at(13));
    }

    #[test]
    fn no_address_is_an_error() {
        assert!(Reach::new(Time::ZERO).race(vec![], Time::ZERO).is_err());
    }
}
