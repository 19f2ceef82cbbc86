//! The stages of a request's path, one file each, in the order `stack.rs` gives them.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod forward;
pub(crate) mod limit;
pub(crate) mod observe;
pub(crate) mod resolve;
pub(crate) mod respond;
pub(crate) mod route;
pub(crate) mod usage;
