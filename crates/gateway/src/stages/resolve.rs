//! `Authenticated` → `Entitled`: what the caller's own record says.

use portcullis_core::Reason;

use crate::exchange::{Authenticated, Ended, Entitled, Exchange};

/// A registered client may have expired since its credential was made.
pub(crate) async fn resolve(exchange: Exchange<Authenticated>) -> Result<Exchange<Entitled>, Ended> {
    let now = exchange.now().unix_seconds();
    let identities = exchange.proof.principal.identities();
    let expired =
        identities.filter_map(|identity| identity.client.as_ref()?.expires_at).any(|end| now >= end);
    if expired {
        return Err(exchange.refuse(Reason::ClientInactive));
    }
    Ok(exchange.advance(|authenticated| Entitled { authenticated }))
}
