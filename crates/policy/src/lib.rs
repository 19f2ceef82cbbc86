//! What a principal may do, and how often.
