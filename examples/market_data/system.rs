//! What the operating system knows about this process, where it tells in files (Linux); elsewhere
//! the answers are `None`.

use std::fs;
use std::time::Duration;

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_time() -> Option<Duration> {
    // The first field is the time on a CPU in nanoseconds.
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// CPU time of the whole process, to a hundredth of a second.
pub(crate) fn process_cpu_time() -> Option<Duration> {
    /// The unit of the file is 1/100 s on every architecture (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, and may contain anything.
    let (_, fields) = text.rsplit_once(')')?;
    // Of the whole line these are fields 14 and 15: time in user mode and in the kernel.
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user + TICK * system)
}

/// How many files and sockets the process may have open.
pub(crate) fn open_file_limit() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    // "unlimited" is no number, and no limit.
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_passes_with_work() {
        let (thread, process) = (thread_cpu_time().unwrap(), process_cpu_time().unwrap());
        let mut number = 1_u64;
        while thread_cpu_time().unwrap() < thread + Duration::from_millis(60) {
            for _ in 0..100_000 {
                number = std::hint::black_box(number.wrapping_mul(3));
            }
        }
        assert!(process_cpu_time().unwrap() >= process + Duration::from_millis(30));
    }

    #[test]
    fn there_is_a_limit_on_open_files() {
        assert!(open_file_limit().is_none_or(|limit| limit > 2));
    }
}
