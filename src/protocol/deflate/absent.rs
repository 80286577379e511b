//! The feature `deflate` is off: there are no inflaters, and nothing is deflated.

use super::Agreed;
use crate::protocol::buffer::MessageBuffer;
use crate::protocol::error::ProtocolError;

/// Cannot exist.
pub enum Inflater {}

impl Inflater {
    pub(crate) fn with_context(_bits: u8) -> Self {
        unreachable!("the extension is never offered without the feature `deflate`")
    }

    pub(crate) fn without_context() -> Self {
        Self::with_context(0)
    }

    pub(crate) fn inflate(
        &mut self,
        _input: &[u8],
        _message: &mut MessageBuffer,
        _limit: u64,
    ) -> Result<(), ProtocolError> {
        match *self {}
    }

    pub(crate) fn finish(
        &mut self,
        _message: &mut MessageBuffer,
        _limit: u64,
    ) -> Result<(), ProtocolError> {
        match *self {}
    }
}

/// Deflates nothing.
#[derive(Default)]
pub struct Deflaters {}

impl Deflaters {
    pub(crate) fn deflate(&mut self, _agreed: &Agreed, _message: &[u8]) -> Option<&[u8]> {
        None
    }
}
