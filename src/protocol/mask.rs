//! Masking (RFC 6455 §5.3).

/// A masking key.
pub type MaskKey = [u8; 4];

/// The key as it stands at payload byte `offset`.
pub fn rotate(key: MaskKey, offset: usize) -> MaskKey {
    std::array::from_fn(|i| key[(offset + i) % 4])
}

/// Masks in place.
pub fn apply(bytes: &mut [u8], key: MaskKey) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

/// Copies and masks.
pub fn copy(destination: &mut [u8], source: &[u8], key: MaskKey) {
    destination.copy_from_slice(source);
    apply(destination, key);
}
