//! Decides who is calling.
