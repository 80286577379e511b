//! Policies of a request that cannot work, found when the request is built.

use std::fmt;

/// A policy of a request that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// A time that must not be zero is.
    Zero(&'static str),
    /// The shortest delay is longer than the longest.
    Bounds,
    /// The factor is below one, or not a number: delays would shrink.
    Factor,
    /// A deadline that is later than the next heartbeat.
    Deadline,
    /// A low-water mark above the high-water mark.
    Marks,
    /// No address to connect to.
    NoAddress,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "{what} must not be zero"),
            Self::Bounds => f.write_str("the shortest delay is longer than the longest"),
            Self::Factor => f.write_str("the factor must be a number of at least one"),
            Self::Deadline => {
                f.write_str("a heartbeat's deadline must not be longer than its interval")
            }
            Self::Marks => f.write_str("the low-water mark is above the high-water mark"),
            Self::NoAddress => f.write_str("the list of addresses to connect to is empty"),
        }
    }
}

impl std::error::Error for PolicyError {}
