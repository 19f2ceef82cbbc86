//! Signed tokens and keys as pure functions of bytes.
