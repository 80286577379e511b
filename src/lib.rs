//! A WebSocket client for very many feeds at once.
pub mod protocol;
pub mod trace;
