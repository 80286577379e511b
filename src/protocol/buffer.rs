//! Byte buffers that are zeroed once and then reused: the storage of incomplete messages and of
//! output. Also the one place that turns validated bytes into `&str` without a second look.
//!
//! A [`Buffer`] keeps its storage initialised beyond what is filled, so that a socket can read, or
//! the masking can write, straight into it without zeroing it before every use (pitfall 8) and
//! without touching uninitialised memory (pitfall 35).

#![allow(unsafe_code)]

use super::utf8::{self, InvalidUtf8, Validator};

/// Growth never asks for less than this, in bytes.
const LEAST_GROWTH: usize = 4096;

/// A growable byte buffer whose spare room is initialised.
#[derive(Default)]
pub struct Buffer {
    /// All of it initialised; the content is `storage[..filled]`.
    storage: Vec<u8>,
    filled: usize,
}

impl Buffer {
    /// An empty buffer that owns no memory.
    pub const fn new() -> Self {
        Self {
            storage: Vec::new(),
            filled: 0,
        }
    }

    /// Bytes of content.
    #[inline]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Nothing in it?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Bytes of memory owned.
    pub fn capacity(&self) -> usize {
        self.storage.capacity()
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[..self.filled]
    }

    /// The content, to change in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[..self.filled]
    }

    /// At least `length` bytes of room behind the content; [`advance`](Self::advance) makes what
    /// was written there content.
    #[inline]
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        if self.storage.len() - self.filled < length {
            self.grow(length);
        }
        &mut self.storage[self.filled..]
    }

    /// `N` bytes of room, to be written and then [taken](Spare::take) as content. `None` if the buffer had
    /// to grow for that.
    #[inline(always)]
    pub fn spare<const N: usize>(&mut self) -> Option<Spare<'_, N>> {
        let start = self.filled;
        let room = self.storage.get_mut(start..start + N)?;
        Some(Spare {
            room: room.try_into().ok()?,
            start,
            filled: &mut self.filled,
        })
    }

    /// Doubles the storage, or more where `length` asks for it.
    #[cold]
    fn grow(&mut self, length: usize) {
        let needed = self.filled + length;
        let size = needed.max(self.storage.len() * 2).max(LEAST_GROWTH);
        // The content is at most half of what is copied here in the worst case; the vector grows in
        // place where the allocator can.
        self.storage.reserve_exact(size - self.storage.len());
        self.storage.resize(size, 0);
    }

    /// Takes `length` bytes of the room as content.
    ///
    /// # Panics
    /// When there is less room than that.
    #[inline]
    pub fn advance(&mut self, length: usize) {
        assert!(length <= self.storage.len() - self.filled);
        self.filled += length;
    }

    /// Appends `bytes`.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        let length = bytes.len();
        // One look at the storage where there is room, which is nearly always.
        let spare = self.storage.get_mut(self.filled..);
        if let Some(place) = spare.and_then(|spare| spare.get_mut(..length)) {
            place.copy_from_slice(bytes);
        } else {
            self.room(length)[..length].copy_from_slice(bytes);
        }
        self.filled += length;
    }

    /// Removes the first `length` bytes of the content.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn consume(&mut self, length: usize) {
        self.storage.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    /// Empties it and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

/// Room behind the content of a [`Buffer`].
pub struct Spare<'a, const N: usize> {
    room: &'a mut [u8; N],
    start: usize,
    filled: &'a mut usize,
}

impl<'a, const N: usize> Spare<'a, N> {
    /// Takes the first `length` bytes as content; they, and what is behind them, are to be written.
    ///
    /// # Panics
    /// When `length` is more than `N`.
    #[inline(always)]
    pub fn take(self, length: usize) -> &'a mut [u8; N] {
        assert!(length <= N);
        *self.filled = self.start + length;
        self.room
    }
}

/// The bytes of one incoming message, validated as they come if it is text.
///
/// Invariant: everything up to `validated` went through `validator` without an error.
#[derive(Default)]
pub(crate) struct MessageBuffer {
    bytes: Buffer,
    validator: Validator,
    validated: usize,
}

impl MessageBuffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.validator = Validator::new();
        self.validated = 0;
    }

    /// Room for bytes that are written straight into the message.
    #[inline]
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        self.bytes.room(length)
    }

    #[inline]
    pub(crate) fn advance(&mut self, length: usize) {
        self.bytes.advance(length);
    }

    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The bytes from `start` on, to be unmasked in place. Only what is not validated yet.
    #[inline]
    pub(crate) fn unvalidated_from(&mut self, start: usize) -> &mut [u8] {
        assert!(start >= self.validated);
        &mut self.bytes.as_mut_slice()[start..]
    }

    /// Validates what came since the last call.
    #[inline]
    pub(crate) fn validate(&mut self) -> Result<(), InvalidUtf8> {
        if self.validated < self.bytes.len() {
            self.validator
                .update(&self.bytes.as_slice()[self.validated..])?;
            self.validated = self.bytes.len();
        }
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The whole message as text, with no second pass over what was validated while it arrived.
    pub(crate) fn as_str(&mut self) -> Result<&str, InvalidUtf8> {
        // Nothing was validated while it arrived, because all of it came at once.
        if self.validated == 0 {
            return utf8::validate(self.bytes.as_slice());
        }
        self.validate()?;
        self.validator.finish()?;
        // SAFETY: `validate` has passed all bytes, in order and each once, through the validator,
        // which refuses whatever is not UTF-8, and `finish` has made sure that the last code point
        // is complete. Bytes before `validated` cannot have changed since: `unvalidated_from`
        // refuses to lend them, and `clear` starts anew.
        Ok(unsafe { std::str::from_utf8_unchecked(self.bytes.as_slice()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extends_consumes_and_reuses_its_memory() {
        let mut buffer = Buffer::new();
        assert_eq!(buffer.capacity(), 0);
        buffer.extend(b"hello world");
        buffer.consume(6);
        assert_eq!(buffer.as_slice(), b"world");
        let capacity = buffer.capacity();
        buffer.clear();
        buffer.extend(&vec![7; capacity]);
        assert_eq!(buffer.capacity(), capacity);
        assert!(buffer.room(1).len() >= capacity);
    }

    #[test]
    fn spare_room_becomes_content_when_it_is_taken() {
        let mut buffer = Buffer::new();
        assert!(buffer.spare::<4>().is_none(), "it does not grow");
        buffer.extend(b"ab");
        assert!(buffer.spare::<4>().is_some());
        assert_eq!(buffer.as_slice(), b"ab");
        let room = buffer.spare::<4>().unwrap().take(3);
        *room = *b"cdex";
        assert_eq!(buffer.as_slice(), b"abcde");
    }

    #[test]
    fn text_is_validated_once_and_in_pieces() {
        let text = "añ€𝄞z".as_bytes();
        for split in 0..=text.len() {
            let mut message = MessageBuffer::default();
            message.bytes.extend(&text[..split]);
            message.validate().unwrap();
            message.bytes.extend(&text[split..]);
            assert_eq!(message.as_str().unwrap().as_bytes(), text);
        }
        let mut message = MessageBuffer::default();
        message.bytes.extend(&text[..text.len() - 2]);
        assert!(message.as_str().is_err(), "a cut code point is no text");
    }
}
