//! The comparison: which workloads there are, how they are run, and what came of it.

pub(crate) mod chart;
pub(crate) mod growth;
pub(crate) mod results;
pub(crate) mod runner;
pub(crate) mod workloads;
