//! Incremental UTF-8 validation.

/// The first bad byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8 {
    /// Its offset.
    pub position: u64,
}

impl std::fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid UTF-8 at byte {}", self.position)
    }
}

/// Validates a whole text.
///
/// # Errors
/// Not UTF-8.
pub fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    std::str::from_utf8(bytes).map_err(|e| InvalidUtf8 {
        position: e.valid_up_to() as u64,
    })
}

/// Validates in pieces.
#[derive(Clone, Copy, Default)]
pub struct Validator {
    pending: [u8; 4],
    length: usize,
    position: u64,
}

impl Validator {
    /// New.
    pub const fn new() -> Self {
        Self {
            pending: [0; 4],
            length: 0,
            position: 0,
        }
    }

    /// The next piece.
    ///
    /// # Errors
    /// Not UTF-8.
    pub fn update(&mut self, chunk: &[u8]) -> Result<(), InvalidUtf8> {
        let mut bytes = self.pending[..self.length].to_vec();
        bytes.extend(chunk);
        match std::str::from_utf8(&bytes) {
            Ok(_) => self.length = 0,
            Err(e) if e.error_len().is_none() => {
                let rest = &bytes[e.valid_up_to()..];
                self.length = rest.len();
                self.pending[..rest.len()].copy_from_slice(rest);
            }
            Err(_) => {
                return Err(InvalidUtf8 {
                    position: self.position,
                });
            }
        }
        self.position += chunk.len() as u64;
        Ok(())
    }

    /// Is it complete?
    ///
    /// # Errors
    /// A cut code point.
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.length == 0 {
            Ok(())
        } else {
            Err(InvalidUtf8 {
                position: self.position,
            })
        }
    }
}
