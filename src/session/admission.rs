//! Who may begin an attempt to connect, and when: the gate that all attempts of a reactor pass.
//!
//! Before this comes an attempt that is due ([`Step::Admit`](super::Step::Admit)); after it, the
//! attempt itself ([`connecting`](super::connecting)). What waits here has no socket and no deadline
//! yet, and only what waits is in the tables: an open connection costs nothing.
//!
//! ```text
//! due -> ask ---------- at once -----------> place taken -> ... -> open or failed -> release
//!          `-> queue of its host -> next --^
//! ```

use super::Time;
use crate::error::PolicyError;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

/// How many connections of a reactor may be on their way at the same time, and how fast they may
/// begin; set with [`ReactorBuilder::admission`](crate::ReactorBuilder::admission). Thousands that
/// are to connect at once, or were lost together, so do not fall upon a server as a herd, and those
/// that are open are served meanwhile.
///
/// An attempt that is due and not admitted waits ([`ConnectionState::Queued`]) without a socket;
/// its deadlines begin when it does. First come, first served for each host; hosts take turns. A
/// host is the name or address in the URL, without the port, whether it is reached directly or
/// through a proxy. A redirect asks anew, for the host that it leads to.
///
/// | | default | why |
/// | --- | --- | --- |
/// | [`connecting`](Self::connecting) | 256 | one host has half of it, 128: the shortest queue that servers commonly accept from (`SOMAXCONN` of older kernels, and the standard library's). Beyond that a SYN may be dropped, which costs a second |
/// | [`rate`](Self::rate) | any | the cap already keeps to the speed at which the server accepts; what a venue allows beyond that, only its rules say |
/// | [`floor`](Self::floor) | none | it would be a second rate for many connections to one host; for one connection there is the [`ReconnectPolicy`](crate::ReconnectPolicy) |
/// | [`handshakes_per_turn`](Self::handshakes_per_turn) | 4 | a step takes one to three tenths of a millisecond, so about one millisecond is the longest that TLS holds up the open connections in a turn. It costs nothing: with 128 on their way to one server, 4 a turn used less CPU than no limit, because more sessions were resumed (`benches/storm.rs`) |
///
/// Venues publish what they allow: 300 connects in five minutes, for example, is
///
/// ```
/// use std::time::Duration;
/// use websockex::{Admission, Reactor};
///
/// # fn main() -> Result<(), websockex::Error> {
/// let admission = Admission::default().rate(300, Duration::from_secs(300))?;
/// let reactor = Reactor::builder().admission(admission).build()?;
/// # Ok(()) }
/// ```
///
/// [`ConnectionState::Queued`]: crate::ConnectionState::Queued
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    connecting: u32,
    /// Between two of a host, so that the rate is kept evenly.
    pace: Duration,
    floor: Duration,
    handshakes: u32,
}

const CONNECTING: u32 = 256;
const HANDSHAKES: u32 = 4;

/// A poll returns a little late, where there is no timer but its own up to a millisecond, and a turn takes
/// its time: what a host's pace has lost
/// so is made up for, and no more than this.
const SLACK: Duration = Duration::from_millis(2);

/// Attempts that begin in one turn. Each opens a socket, which costs some tens of microseconds.
const STARTS_PER_TURN: u32 = 16;

/// Hosts that are remembered before it is first looked which of them are needed.
const FEW_HOSTS: usize = 64;

impl Default for Admission {
    fn default() -> Self {
        Self {
            connecting: CONNECTING,
            pace: Duration::ZERO,
            floor: Duration::ZERO,
            handshakes: HANDSHAKES,
        }
    }
}

impl Admission {
    /// At most so many connections are on their way, from the look-up of the name until they are open
    /// or have failed; 256 by default. One host has at most half (rounded up) of what the others have
    /// left of it, so that one that does not answer does not keep the others out.
    ///
    /// An attempt whose addresses race (RFC 8305) counts once.
    ///
    /// # Errors
    /// [`PolicyError::Zero`].
    pub const fn connecting(mut self, most: u32) -> Result<Self, PolicyError> {
        if most == 0 {
            return Err(PolicyError::Zero("the number of connections on their way"));
        }
        self.connecting = most;
        Ok(self)
    }

    /// At most so many attempts in `period` to one host, evenly: each begins a `connects`-th of the
    /// period after the one before. Any number by default, as fast as places become free. Attempts
    /// that wait for the same look-up of a name then go on together.
    ///
    /// # Errors
    /// [`PolicyError::Zero`]: no connects, or no period.
    pub const fn rate(mut self, connects: u32, period: Duration) -> Result<Self, PolicyError> {
        if period.is_zero() {
            return Err(PolicyError::Zero("the period of the connects"));
        }
        match period.checked_div(connects) {
            Some(pace) => self.pace = pace,
            None => return Err(PolicyError::Zero("the number of connects in a period")),
        }
        Ok(self)
    }

    /// At least so long between two attempts to the same host, whichever connections they are of and
    /// whatever their [`ReconnectPolicy`](crate::ReconnectPolicy) or handler says. Unlike the
    /// [`rate`](Self::rate), which makes up for a turn that came late, this is never shortened. None
    /// by default.
    #[must_use]
    pub const fn floor(mut self, least: Duration) -> Self {
        self.floor = least;
        self
    }

    /// At most so many steps of TLS handshakes in one turn of the reactor, 4 by default. A step is
    /// what one connection does of its handshake with what has arrived.
    ///
    /// # Errors
    /// [`PolicyError::Zero`].
    pub const fn handshakes_per_turn(mut self, most: u32) -> Result<Self, PolicyError> {
        if most == 0 {
            return Err(PolicyError::Zero("the number of TLS handshakes in a turn"));
        }
        self.handshakes = most;
        Ok(self)
    }
}

/// What a connection has of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// A place in the queue of its host.
    Queued { host: u32, number: u64 },
    /// It may be on its way.
    Admitted { host: u32 },
}

/// Who comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) id: u64,
    pub(crate) permit: Permit,
    /// How long it has waited.
    pub(crate) waited: Duration,
}

/// The gate of a reactor.
pub(crate) struct Gate {
    policy: Admission,
    /// By the number that permits name.
    hosts: Vec<Host>,
    free: Vec<u32>,
    numbers: HashMap<Box<str>, u32>,
    /// From so many hosts on it is looked which of them are needed.
    many_hosts: usize,
    /// Hosts with a queue, in turn. A host with a queue is either here or in `paced`.
    rotation: VecDeque<u32>,
    /// Hosts whose next attempt has its time.
    paced: BinaryHeap<Reverse<(Time, u32)>>,
    /// Connections on their way.
    under_way: u32,
    /// Attempts that may still begin in this turn.
    starts: u32,
    /// Something has happened since it was found that no host in the rotation may begin.
    stirred: bool,
    /// Counts the queued.
    asked: u64,
}

#[derive(Default)]
struct Host {
    /// First come, first served.
    queue: BTreeMap<u64, Waiter>,
    under_way: u32,
    /// When the next attempt may begin, by the rate.
    pace: Time,
    /// Likewise by the floor.
    floor: Time,
    /// In `rotation` or in `paced`.
    listed: bool,
}

struct Waiter {
    id: u64,
    since: Time,
}

impl Host {
    /// When the next attempt may begin.
    fn opens(&self) -> Time {
        self.pace.max(self.floor)
    }

    /// An attempt begins that was due at `since`.
    fn start(&mut self, policy: &Admission, since: Time, now: Time) {
        self.under_way += 1;
        // Who was waiting when the time came is not to blame that nobody looked.
        let due = self.pace.max(since);
        let lost = now.since(due).saturating_sub(SLACK);
        self.pace = due.after(lost).after(policy.pace);
        self.floor = now.after(policy.floor);
    }
}

impl Gate {
    pub(crate) fn new(policy: Admission) -> Self {
        Self {
            policy,
            hosts: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            many_hosts: FEW_HOSTS,
            rotation: VecDeque::new(),
            paced: BinaryHeap::new(),
            under_way: 0,
            starts: STARTS_PER_TURN,
            stirred: false,
            asked: 0,
        }
    }

    /// Steps of TLS handshakes in one turn.
    #[cfg(feature = "tls")]
    pub(crate) fn handshakes_per_turn(&self) -> u32 {
        self.policy.handshakes
    }

    /// A turn of the reactor is over; in the next one, as many may begin again.
    pub(crate) fn end_turn(&mut self) {
        self.starts = STARTS_PER_TURN;
    }

    /// The connection `id` wants to connect to `host`: now, or in its turn.
    pub(crate) fn ask(&mut self, host: &str, id: u64, now: Time) -> Permit {
        let number = self.number(host, now);
        // Hosts in the rotation were there before; if nothing has stirred, they cannot go anyway.
        let nobody_waits = !self.stirred || self.rotation.is_empty();
        let fits = self.fits(number);
        let host = &mut self.hosts[number as usize];
        if host.queue.is_empty() && nobody_waits && fits && host.opens() <= now {
            self.starts -= 1;
            self.under_way += 1;
            host.start(&self.policy, now, now);
            return Permit::Admitted { host: number };
        }
        self.asked += 1;
        let waiter = Waiter { id, since: now };
        if !host.listed {
            host.listed = true;
            if host.opens() > now {
                self.paced.push(Reverse((host.opens(), number)));
            } else {
                self.rotation.push_back(number);
                // The next turn has a chance for it; a place that is missing has to be given back.
                self.stirred |= self.starts == 0;
            }
        }
        host.queue.insert(self.asked, waiter);
        Permit::Queued {
            host: number,
            number: self.asked,
        }
    }

    /// Connections that wait for the host of `permit`, itself included.
    pub(crate) fn queue_length(&self, permit: Permit) -> usize {
        match permit {
            Permit::Queued { host, .. } => self.hosts[host as usize].queue.len(),
            Permit::Admitted { .. } => 0,
        }
    }

    /// Whoever had `permit` no longer needs it: its attempt came to an end, or is not wanted any more.
    pub(crate) fn give_back(&mut self, permit: Permit) {
        match permit {
            Permit::Queued { host, number } => {
                self.hosts[host as usize].queue.remove(&number);
            }
            Permit::Admitted { host } => {
                self.hosts[host as usize].under_way -= 1;
                self.under_way -= 1;
                self.stirred = true;
            }
        }
    }

    /// The next one that may begin now, if there is one.
    pub(crate) fn next(&mut self, now: Time) -> Option<Admitted> {
        while let Some(Reverse((time, number))) = self.paced.peek()
            && *time <= now
        {
            self.rotation.push_back(*number);
            self.paced.pop();
            self.stirred = true;
        }
        if !self.stirred || self.starts == 0 {
            return None;
        }
        for _ in 0..self.rotation.len() {
            if self.under_way == self.policy.connecting {
                break;
            }
            let number = self.rotation.pop_front()?;
            let fits = self.fits(number);
            let host = &mut self.hosts[number as usize];
            if host.queue.is_empty() {
                host.listed = false;
                continue;
            }
            if host.opens() > now {
                self.paced.push(Reverse((host.opens(), number)));
                continue;
            }
            self.rotation.push_back(number);
            if !fits {
                continue;
            }
            let (_, waiter) = host.queue.pop_first()?;
            host.start(&self.policy, waiter.since, now);
            self.starts -= 1;
            self.under_way += 1;
            return Some(Admitted {
                id: waiter.id,
                permit: Permit::Admitted { host: number },
                waited: now.since(waiter.since),
            });
        }
        // Nothing changes for them until a place becomes free or a time has come.
        self.stirred = false;
        None
    }

    /// When [`next`](Self::next) is worth a call, if nothing else happens; now at the earliest.
    pub(crate) fn wakes_at(&self) -> Option<Time> {
        if self.under_way == self.policy.connecting {
            return None;
        }
        if self.stirred && !self.rotation.is_empty() {
            return Some(Time::ZERO);
        }
        self.paced.peek().map(|Reverse((time, _))| *time)
    }

    /// Is there a place for one more to this host, and time in this turn?
    fn fits(&self, host: u32) -> bool {
        let own = self.hosts[host as usize].under_way;
        let left = self.policy.connecting - (self.under_way - own);
        self.starts > 0 && self.under_way < self.policy.connecting && own < left.div_ceil(2)
    }

    /// The number of `host`, a new one if it has none.
    fn number(&mut self, host: &str, now: Time) -> u32 {
        if let Some(number) = self.numbers.get(host) {
            return *number;
        }
        if self.numbers.len() >= self.many_hosts {
            self.forget_hosts(now);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.hosts.push(Host::default());
            u32::try_from(self.hosts.len() - 1).expect("each has a connection, which u32 numbers")
        });
        self.numbers.insert(host.into(), number);
        number
    }

    /// Forgets hosts whom nobody is on the way to and for whom no time is kept.
    fn forget_hosts(&mut self, now: Time) {
        let Self {
            hosts,
            free,
            numbers,
            ..
        } = self;
        numbers.retain(|_, number| {
            let host = &mut hosts[*number as usize];
            let needed = host.listed || host.under_way > 0 || host.opens() > now;
            if !needed {
                *host = Host::default();
                free.push(*number);
            }
            needed
        });
        self.many_hosts = FEW_HOSTS.max(2 * self.numbers.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::ZERO.after(Duration::from_millis(milliseconds))
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Without a rate, so that only places count.
    fn places(most: u32) -> Gate {
        Gate::new(Admission::default().connecting(most).unwrap())
    }

    fn paced(connects: u32, period: Duration) -> Gate {
        let policy = Admission::default().connecting(10_000).unwrap();
        Gate::new(policy.rate(connects, period).unwrap())
    }

    /// All that begin in one turn at `now`.
    fn turn(gate: &mut Gate, now: Time) -> Vec<u64> {
        gate.end_turn();
        std::iter::from_fn(|| gate.next(now))
            .map(|admitted| admitted.id)
            .collect()
    }

    fn is_admitted(permit: Permit) -> bool {
        matches!(permit, Permit::Admitted { .. })
    }

    #[test]
    fn one_host_has_half_of_what_the_others_leave() {
        let mut gate = places(8);
        let mut admitted = |host: &str, asks: u64| -> usize {
            gate.end_turn();
            let asked = (0..asks).map(|id| gate.ask(host, id, at(0)));
            asked.filter(|permit| is_admitted(*permit)).count()
        };
        assert_eq!(admitted("a", 9), 4);
        assert_eq!(admitted("b", 9), 2);
        assert_eq!(admitted("c", 9), 1);
        assert_eq!(admitted("d", 9), 1);
        assert_eq!(admitted("e", 9), 0);
        let mut single = places(1);
        assert!(is_admitted(single.ask("a", 1, at(0))));
        assert!(!is_admitted(single.ask("b", 2, at(0))));
    }

    #[test]
    fn a_place_that_is_given_back_goes_to_whoever_waited_longest() {
        let mut gate = places(2);
        let first = gate.ask("a", 1, at(0));
        for id in 2..6 {
            assert!(!is_admitted(gate.ask("a", id, at(id))));
        }
        assert_eq!(turn(&mut gate, at(10)), []);
        assert_eq!(gate.wakes_at(), None, "only a place can help");
        gate.give_back(first);
        assert_eq!(gate.wakes_at(), Some(Time::ZERO));
        // Whoever asks now does not go before those who wait.
        assert!(!is_admitted(gate.ask("a", 6, at(20))));
        gate.end_turn();
        let next = gate.next(at(20)).unwrap();
        assert_eq!((next.id, next.waited), (2, ms(18)));
        assert_eq!(gate.next(at(20)), None);
        gate.give_back(next.permit);
        assert_eq!(turn(&mut gate, at(21)), [3]);
    }

    #[test]
    fn hosts_take_turns() {
        let mut gate = places(1);
        let mut place = gate.ask("a", 0, at(0));
        for id in 1..4 {
            gate.ask("a", id, at(0));
        }
        for id in 11..13 {
            gate.ask("b", id, at(0));
        }
        gate.ask("c", 21, at(0));
        let mut order = Vec::new();
        for _ in 0..6 {
            gate.give_back(place);
            gate.end_turn();
            let next = gate.next(at(1)).expect("somebody waits");
            order.push(next.id);
            place = next.permit;
        }
        assert_eq!(order, [1, 11, 21, 2, 12, 3]);
    }

    #[test]
    fn a_rate_is_kept_evenly() {
        let mut gate = paced(10, Duration::from_secs(1));
        assert!(is_admitted(gate.ask("a", 0, at(500))), "nobody was before");
        for id in 1..5 {
            gate.ask("a", id, at(500));
        }
        let mut begun = Vec::new();
        for millisecond in 500..=1000 {
            for id in turn(&mut gate, at(millisecond)) {
                begun.push((millisecond, id));
            }
        }
        assert_eq!(begun, [(600, 1), (700, 2), (800, 3), (900, 4)]);
        // A pause is not saved up.
        assert!(is_admitted(gate.ask("a", 5, at(9000))));
        assert!(!is_admitted(gate.ask("a", 6, at(9000))));
        assert_eq!(turn(&mut gate, at(9099)), []);
        assert_eq!(gate.wakes_at(), Some(at(9100)));
    }

    #[test]
    fn turns_that_come_a_little_late_keep_the_rate() {
        let mut gate = paced(1000, Duration::from_secs(1));
        for id in 0..600 {
            gate.ask("a", id, at(0));
        }
        let mut begun = 1;
        for half in 1..=250 {
            begun += turn(&mut gate, at(2 * half)).len();
        }
        assert_eq!(begun, 501, "in half a second");
        // Much too late: what was lost is lost, but for the slack.
        assert_eq!(turn(&mut gate, at(10_000)).len(), 3);
    }

    #[test]
    fn the_floor_is_never_shortened() {
        let policy = Admission::default().floor(ms(5));
        let mut gate = Gate::new(policy);
        for id in 0..100 {
            gate.ask("a", id, at(0));
        }
        let mut last = 0;
        for millisecond in (1..300).step_by(3) {
            let begun = turn(&mut gate, at(millisecond)).len();
            assert!(begun <= 1);
            if begun == 1 {
                assert!(millisecond >= last + 5, "{last} and {millisecond}");
                last = millisecond;
            }
        }
        assert!(last > 290, "it went on");
        // Another host has its own.
        assert!(is_admitted(gate.ask("b", 1, at(300))));
        assert!(!is_admitted(gate.ask("b", 2, at(304))));
        assert!(turn(&mut gate, at(305)).contains(&2));
    }

    #[test]
    fn few_begin_in_one_turn() {
        let mut gate = places(1000);
        gate.end_turn();
        let asked = (0..100).map(|id| gate.ask("a", id, at(0)));
        let at_once = asked.filter(|permit| is_admitted(*permit)).count();
        assert_eq!(at_once, STARTS_PER_TURN as usize);
        assert_eq!(
            gate.wakes_at(),
            Some(Time::ZERO),
            "at once, in the next turn"
        );
        let next = STARTS_PER_TURN as u64..2 * STARTS_PER_TURN as u64;
        assert!(turn(&mut gate, at(0)).into_iter().eq(next));
    }

    #[test]
    fn a_host_that_waits_for_its_time_lets_the_others_go() {
        let mut gate = paced(1, Duration::from_secs(10));
        gate.ask("a", 1, at(0));
        gate.ask("a", 2, at(0));
        assert_eq!(turn(&mut gate, at(0)), []);
        assert!(is_admitted(gate.ask("b", 3, at(1))));
        gate.ask("b", 4, at(1));
        assert_eq!(turn(&mut gate, at(1)), []);
        assert_eq!(gate.wakes_at(), Some(at(10_000)));
        assert_eq!(turn(&mut gate, at(10_000)), [2]);
        assert_eq!(turn(&mut gate, at(10_001)), [4]);
        assert_eq!(gate.wakes_at(), None);
    }

    #[test]
    fn those_that_give_up_waiting_are_passed_over() {
        let mut gate = places(1);
        let place = gate.ask("a", 0, at(0));
        let waiting: Vec<Permit> = (1..1000).map(|id| gate.ask("a", id, at(0))).collect();
        assert_eq!(gate.queue_length(waiting[500]), 999);
        for permit in &waiting[..998] {
            gate.give_back(*permit);
        }
        assert_eq!(gate.queue_length(waiting[998]), 1);
        gate.give_back(place);
        assert_eq!(turn(&mut gate, at(1)), [999]);
        assert_eq!(gate.wakes_at(), None, "nobody is left");
    }

    #[test]
    fn hosts_that_nobody_needs_are_forgotten() {
        let mut gate = paced(1, Duration::from_secs(1));
        for number in 0..100_000 {
            gate.end_turn();
            let permit = gate.ask(&format!("host-{number}"), number, at(number));
            assert!(is_admitted(permit));
            gate.give_back(permit);
        }
        // Those of the last second, and as many that were not looked at since.
        assert!(gate.hosts.len() <= 2 * 1000 + 1, "{}", gate.hosts.len());
        assert_eq!(gate.under_way, 0);
    }

    /// Whatever happens in whatever order, the places are counted right and nobody is forgotten.
    #[test]
    fn any_order_of_events_keeps_the_cap_and_serves_everybody() {
        for seed in 1..50_u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let most = 1 + u32::try_from(random(8)).unwrap();
            let policy = Admission::default().connecting(most).unwrap();
            let policy = policy.rate(1, ms(1 + random(4))).unwrap();
            let mut gate = Gate::new(policy.floor(ms(random(4))));
            let mut permits: HashMap<u64, Permit> = HashMap::new();
            let mut now = 0;
            for id in 0..500 {
                now += random(3);
                if random(3) == 0 {
                    gate.end_turn();
                }
                let host = ["a", "b", "c", "d"][usize::try_from(random(4)).unwrap()];
                permits.insert(id, gate.ask(host, id, at(now)));
                if let Some(permit) = permits.remove(&random(id + 1)) {
                    gate.give_back(permit);
                }
                if let Some(admitted) = gate.next(at(now)) {
                    permits.insert(admitted.id, admitted.permit);
                }
                let under_way = permits.values().filter(|permit| is_admitted(**permit));
                assert_eq!(under_way.count(), gate.under_way as usize);
                assert!(gate.under_way <= most);
            }
            // From here on all that is admitted succeeds at once.
            while !permits.is_empty() {
                for (_, permit) in permits.extract_if(|_, permit| is_admitted(*permit)) {
                    gate.give_back(permit);
                }
                gate.end_turn();
                while let Some(admitted) = gate.next(at(now)) {
                    let before = permits.insert(admitted.id, admitted.permit);
                    assert!(matches!(before, Some(Permit::Queued { .. })));
                }
                let Some(wake) = gate.wakes_at() else {
                    // Only a place can help, so somebody must have one.
                    let has_place = permits.values().any(|permit| is_admitted(*permit));
                    assert!(has_place || permits.is_empty());
                    continue;
                };
                now = now.max(wake.nanoseconds() / 1_000_000);
            }
        }
    }

    #[test]
    fn policies_that_cannot_work_are_refused() {
        let policy = Admission::default();
        let second = Duration::from_secs(1);
        let refused = |result| matches!(result, Err(PolicyError::Zero(_)));
        assert!(refused(policy.connecting(0)));
        assert!(refused(policy.rate(0, second)));
        assert!(refused(policy.rate(1, Duration::ZERO)));
        assert!(refused(policy.handshakes_per_turn(0)));
    }
}
