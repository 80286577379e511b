//! The process as the operating system sees it: time on the processor, its core, its limits.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Measures between two moments of the process.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    start: Instant,
    user: Duration,
    system: Duration,
}

/// What a [`Meter`] has measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// On the clock.
    pub wall: Duration,
    /// On the processor, in the program; all threads.
    pub user: Duration,
    /// On the processor, in the kernel on the program's behalf; all threads.
    pub system: Duration,
}

impl Usage {
    /// User and system: the figure to compare.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

impl Meter {
    /// From now.
    pub fn start() -> Self {
        let (user, system) = processor_time();
        Self {
            start: Instant::now(),
            user,
            system,
        }
    }

    /// Until now.
    pub fn stop(&self) -> Usage {
        let (user, system) = processor_time();
        Usage {
            wall: self.start.elapsed(),
            user: user.saturating_sub(self.user),
            system: system.saturating_sub(self.system),
        }
    }
}

fn processor_time() -> (Duration, Duration) {
    // SAFETY: `rusage` is plain numbers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a `rusage` that lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(result, 0, "getrusage knows RUSAGE_SELF");
    (duration(usage.ru_utime), duration(usage.ru_stime))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of the stamps, the same in every process.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a `timespec` that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "every Linux has CLOCK_MONOTONIC");
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Keeps the process on one core.
///
/// # Errors
/// There is no such core, or it is not ours.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is plain bits, for which zeroes are a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: CPU_SET checks `cpu` against the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: pointer and size are of a set that lives through the call; 0 is this thread, and the
    // program has no other yet.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As many open files as the process may have.
///
/// # Errors
/// The operating system refuses.
pub fn raise_file_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a `rlimit` that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the socket end with a reset when it is dropped, so that its port is free at once.
///
/// # Errors
/// The operating system refuses.
pub fn reset_on_close(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: pointer and length are of a `linger` that lives through the call, and the borrowed
    // socket keeps its descriptor open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
