//! State that outlives a request: rate cells and durable quotas.
