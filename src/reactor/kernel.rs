//! What Linux's kernel gives beyond sockets and readiness: a core for a thread, the time at which bytes
//! arrived, timers that the poll reports, and the time it is in one number. Elsewhere the first and the
//! third are refused, the second is not known, and the last as the standard library has it.

pub(super) use given::*;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod given {
    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use nix::time::{ClockId, clock_gettime};
    use nix::unistd::Pid;
    use std::io::{self, IoSliceMut};
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    /// The time since a moment. It is asked for more than once for each socket that has news, and
    /// `Instant::elapsed` would take half of that with seconds and their fractions.
    pub(in crate::reactor) struct Stopwatch {
        /// By the clock that `Instant` reads, too.
        start: u64,
    }

    impl Stopwatch {
        pub(in crate::reactor) fn started_at(start: Instant) -> Self {
            let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Self {
                start: monotonic().saturating_sub(elapsed),
            }
        }

        /// In nanoseconds.
        #[inline]
        pub(in crate::reactor) fn elapsed(&self) -> u64 {
            monotonic().saturating_sub(self.start)
        }
    }

    /// A timer whose end the poll reports, once for each time that it is set.
    pub(in crate::reactor) struct Timer(TimerFd);

    impl Timer {
        /// Under `token`; not set.
        pub(in crate::reactor) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
            let timer = TimerFd::new(timerfd::ClockId::CLOCK_MONOTONIC, flags)?;
            let descriptor = timer.as_fd().as_raw_fd();
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
            Ok(Self(timer))
        }

        /// Ends when `watch` shows so many nanoseconds, and not when it was to end before, even if the poll
        /// has not reported that yet.
        pub(in crate::reactor) fn set(&self, watch: &Stopwatch, end: u64) -> io::Result<()> {
            // Zero would mean never.
            let end = Duration::from_nanos(watch.start.saturating_add(end).max(1));
            let end = Expiration::OneShot(TimeSpec::from_duration(end));
            Ok(self.0.set(end, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
        }
    }

    /// Nanoseconds since the machine was started, or so.
    #[inline]
    fn monotonic() -> u64 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    }

    /// Keeps the calling thread on one core, and with it the threads that it begins from now on.
    pub(in crate::reactor) fn pin(core: usize) -> io::Result<()> {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        // Zero is the calling thread.
        Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
    }

    /// Has the kernel stamp what the socket receives from now on.
    pub(in crate::reactor) fn stamp(socket: &impl AsFd) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
    }

    /// The stamp of what was read last. There is one for all connections of a reactor.
    pub(in crate::reactor) struct Stamps {
        /// Where the kernel puts it: room for one control message.
        control: Vec<u8>,
        pub(in crate::reactor) last: Option<SystemTime>,
    }

    impl Default for Stamps {
        fn default() -> Self {
            Self {
                control: nix::cmsg_space!(TimeSpec),
                last: None,
            }
        }
    }

    impl Stamps {
        /// Reads from a stamped socket, and keeps the stamp.
        pub(in crate::reactor) fn read(
            &mut self,
            stream: &mut impl AsRawFd,
            buffers: &mut [IoSliceMut<'_>],
        ) -> io::Result<usize> {
            let (fd, control) = (stream.as_raw_fd(), Some(&mut self.control[..]));
            let received = recvmsg::<()>(fd, buffers, control, MsgFlags::empty())?;
            // There is nothing else that it could have been cut short by.
            let mut messages = received.cmsgs().into_iter().flatten();
            self.last = messages.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(time) => {
                    UNIX_EPOCH.checked_add(Duration::from(time))
                }
                _ => None,
            });
            Ok(received.bytes)
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod given {
    use mio::{Registry, Token};
    use std::io::{self, IoSliceMut, Read};
    use std::time::{Instant, SystemTime};

    /// The time since a moment.
    pub(in crate::reactor) struct Stopwatch {
        start: Instant,
    }

    impl Stopwatch {
        pub(in crate::reactor) fn started_at(start: Instant) -> Self {
            Self { start }
        }

        /// In nanoseconds.
        pub(in crate::reactor) fn elapsed(&self) -> u64 {
            u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        }
    }

    /// There is none.
    pub(in crate::reactor) enum Timer {}

    impl Timer {
        pub(in crate::reactor) fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::reactor) fn set(&self, _watch: &Stopwatch, _end: u64) -> io::Result<()> {
            match *self {}
        }
    }

    pub(in crate::reactor) fn pin(_core: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// There is no such option, so it is left out.
    pub(in crate::reactor) fn stamp<S>(_socket: &S) -> io::Result<()> {
        Ok(())
    }

    /// No stamp of anything.
    #[derive(Default)]
    pub(in crate::reactor) struct Stamps {
        pub(in crate::reactor) last: Option<SystemTime>,
    }

    impl Stamps {
        pub(in crate::reactor) fn read(
            &mut self,
            stream: &mut impl Read,
            buffers: &mut [IoSliceMut<'_>],
        ) -> io::Result<usize> {
            stream.read_vectored(buffers)
        }
    }
}
