//! Black-box tests: the real binary, real TLS, real sockets; one file per promise.

#[cfg(test)]
mod admin_listener;
#[cfg(test)]
mod api_keys;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod basic;
#[cfg(test)]
mod bound_tokens;
#[cfg(test)]
mod chains;
#[cfg(test)]
mod check_verb;
#[cfg(test)]
mod client_certificates;
#[cfg(test)]
mod client_key_sets;
#[cfg(test)]
mod client_signed;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod demo;
mod denials;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod dpop;
#[cfg(test)]
mod events;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod external;
#[cfg(test)]
mod forwarded_certificates;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod hmac;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod interop_jwt;
#[cfg(test)]
mod interop_provider;
#[cfg(test)]
mod interop_signatures;
#[cfg(test)]
mod introspection;
#[cfg(test)]
mod introspection_hostile;
#[cfg(test)]
mod key_ids;
#[cfg(test)]
mod key_sets;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limit_kinds;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod managed_clients;
#[cfg(test)]
mod managed_keys;
#[cfg(test)]
mod message_signatures;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod ocsp;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod ozone;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod proxies_in_front;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod pushed_revocations;
#[cfg(test)]
mod registered_certificates;
#[cfg(test)]
mod reload;
mod revoked_tokens;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod shadow;
#[cfg(test)]
mod shared_failover;
#[cfg(test)]
mod shared_store;
#[cfg(test)]
mod test_verb;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod usage_of_callers;
