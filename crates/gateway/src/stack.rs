//! The path of a request, in order. Nothing else decides order.

use std::convert::Infallible;

use http::Response;
use tower::{Service, ServiceBuilder, service_fn};

use crate::exchange::{Accepted, Exchange};
use crate::stage::stage;
use crate::stages::authenticate::authenticate;
use crate::stages::authorize::authorize;
use crate::stages::forward::forward;
use crate::stages::limit::limit;
use crate::stages::observe::{ObserveLayer, ObservedBody};
use crate::stages::resolve::resolve;
use crate::stages::respond::RespondLayer;
use crate::stages::route::route;

/// Builds the stack. It holds no state: what a request needs travels in its [`Exchange`].
pub(crate) fn stack()
-> impl Service<Exchange<Accepted>, Response = Response<ObservedBody>, Error = Infallible> + Copy {
    ServiceBuilder::new()
        .layer(ObserveLayer) //           Reply         -> Response; every request ends here
        .layer(RespondLayer) //           Ended         -> Reply
        .layer(stage(route)) //           Accepted      -> Routed
        .layer(stage(authenticate)) //    Routed        -> Authenticated
        .layer(stage(resolve)) //         Authenticated -> Entitled
        .layer(stage(authorize)) //       Entitled      -> Authorized
        .layer(stage(limit)) //           Authorized    -> Admitted
        .service(service_fn(forward)) //  Admitted      -> Reply
}
