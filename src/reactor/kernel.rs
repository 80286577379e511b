//! What Linux's kernel gives beyond sockets and readiness: a core for a thread. Elsewhere it is
//! refused.

pub(super) use given::*;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod given {
    use nix::sched::{CpuSet, sched_setaffinity};
    use nix::unistd::Pid;
    use std::io;

    /// Keeps the calling thread on one core, and with it the threads that it begins from now on.
    pub(in crate::reactor) fn pin(core: usize) -> io::Result<()> {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        // Zero is the calling thread.
        Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod given {
    use std::io;

    pub(in crate::reactor) fn pin(_core: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
