//! The path of a request, in order. Nothing else decides order.

use std::convert::Infallible;

use http::Response;
use tower::{Service, ServiceBuilder, service_fn};

use crate::exchange::{Accepted, Admitted, Ended, Exchange, Reply};
use crate::stage::stage;
use crate::stages::authenticate::authenticate;
use crate::stages::authorize::authorize;
use crate::stages::forward::forward;
use crate::stages::limit::limit;
use crate::stages::observe::{ObserveLayer, ObservedBody};
use crate::stages::resolve::resolve;
use crate::stages::respond::RespondLayer;
use crate::stages::route::route;
use crate::stages::usage::usage;

/// The stack that serves.
pub(crate) fn stack() -> impl Stack {
    stack_over(service_fn(forward))
}

/// The stack over any terminal. It holds no state: what a request needs travels in its [`Exchange`].
pub(crate) fn stack_over<T>(terminal: T) -> impl Stack
where
    T: Service<Exchange<Admitted>, Response = Reply, Error = Ended> + Copy + 'static,
    T::Future: 'static,
{
    ServiceBuilder::new()
        .layer(ObserveLayer) //           Reply         -> Response; every request ends here
        .layer(RespondLayer) //           Ended         -> Reply
        .layer(stage(route)) //           Accepted      -> Routed
        .layer(stage(authenticate)) //    Routed        -> Authenticated
        .layer(stage(resolve)) //         Authenticated -> Entitled
        .layer(stage(usage)) //           Entitled      -> Entitled, or what is left
        .layer(stage(authorize)) //       Entitled      -> Authorized
        .layer(stage(limit)) //           Authorized    -> Admitted
        .service(terminal) //             Admitted      -> Reply
}

/// What [`stack`] gives, by a name of its own.
pub(crate) trait Stack:
    Service<Exchange<Accepted>, Response = Response<ObservedBody>, Error = Infallible, Future: 'static>
    + Copy
    + 'static
{
}

impl<T> Stack for T where
    T: Service<Exchange<Accepted>, Response = Response<ObservedBody>, Error = Infallible, Future: 'static>
        + Copy
        + 'static
{
}
