//! Black-box tests: the real binary, real TLS, real sockets; one file per promise.

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tidy;
