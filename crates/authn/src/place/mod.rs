//! Where in a request's head a credential is looked for, and how it is taken out before the request is forwarded.

mod cookie;
mod header;
pub(crate) mod query;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use portcullis_core::{Reason, Rejection, Scheme};

pub(crate) use cookie::cookie_name;
pub(crate) use header::{header_name, scheme_word};
pub(crate) use query::parameter_name;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The whole value of a header.
    Header(HeaderName),
    /// What follows a scheme, written in lower case, in a header.
    Scheme(HeaderName, Box<str>),
    /// A header whose presence says that the request carries such a credential, and which may be a list over
    /// several fields (RFC 9110 section 5.3): its authenticator reads it. Two markers of one credential are no
    /// contradiction.
    Marker(HeaderName),
    /// A parameter of the query.
    Query(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// The places of one authenticator. They are alternatives: a credential is at one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(Box<[Place]>);

/// A credential, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found<'p, 'h> {
    pub(crate) place: &'p Place,
    /// Its bytes as sent; of a query parameter, percent-decoded.
    pub(crate) credential: Cow<'h, [u8]>,
}

/// Why what stands at a place cannot be taken for one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It occurs more than once.
    #[error("the credential occurs more than once")]
    Repeated,
    /// The scheme is right, what follows it is not a credential.
    #[error("the scheme is not followed by exactly one credential")]
    Broken,
    /// Other readers of the query or the cookies could see another credential than we do.
    #[error("it cannot be told where the credential begins or ends")]
    Unclear,
}

impl PlaceError {
    /// The refusal. SECURITY: two fields are never weighed against each other, because the upstream may read
    /// the other one (BRR-04, KEY-01).
    pub(crate) fn rejection(self, scheme: Scheme) -> Rejection {
        let reason = match self {
            Self::Repeated => Reason::CredentialsAmbiguous,
            Self::Broken | Self::Unclear => Reason::CredentialsMalformed,
        };
        Rejection::new(reason).of(scheme).because(self.to_string())
    }
}

impl Place {
    /// What follows `scheme` in `Authorization`.
    pub(crate) fn authorization(scheme: &str) -> Self {
        Self::Scheme(AUTHORIZATION, scheme.to_ascii_lowercase().into())
    }

    /// `Authorization: Bearer <credential>`.
    pub(crate) fn bearer() -> Self {
        Self::authorization("bearer")
    }

    /// The credential's bytes; `None` if there is nothing, or something of another scheme.
    ///
    /// # Errors
    /// The place is filled more than once, or what stands there cannot be told to be one credential.
    pub fn find<'h>(&self, head: &'h Parts) -> Result<Option<Cow<'h, [u8]>>, PlaceError> {
        match self {
            Self::Header(name) => header::whole(&head.headers, name).map(|found| found.map(Cow::Borrowed)),
            Self::Scheme(name, scheme) => {
                header::after_scheme(&head.headers, name, scheme).map(|found| found.map(Cow::Borrowed))
            }
            Self::Marker(name) => Ok(head.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()))),
            Self::Query(name) => query::find(head.uri.query().unwrap_or_default(), name),
            Self::Cookie(name) => cookie::find(&head.headers, name).map(|found| found.map(Cow::Borrowed)),
        }
    }

    /// The header that goes when the credential is removed; `None` where only a part of something goes.
    pub(crate) const fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) | Self::Scheme(name, _) | Self::Marker(name) => Some(name),
            Self::Query(_) | Self::Cookie(_) => None,
        }
    }

    /// Takes a credential out of the query or out of the cookies, and nothing else (KEY-03). Headers go another way:
    /// in every spelling that some server reads as their name.
    pub fn strip(&self, head: &mut Parts) {
        match self {
            Self::Header(_) | Self::Scheme(..) | Self::Marker(_) => {}
            Self::Query(name) => query::strip(&mut head.uri, name),
            Self::Cookie(name) => cookie::strip(&mut head.headers, name),
        }
    }

    /// Whether a credential at this place could be taken for one at another place that is not the same.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            // The whole value of a header is also whatever scheme it begins with.
            (Self::Header(own) | Self::Marker(own), other)
            | (other, Self::Header(own) | Self::Marker(own)) => other.header() == Some(own),
            (Self::Query(own), Self::Query(other)) | (Self::Cookie(own), Self::Cookie(other)) => {
                own.eq_ignore_ascii_case(other)
            }
            (own, other) => own == other,
        }
    }

    /// What it is called in a message.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Header(name) | Self::Marker(name) => format!("header `{name}`"),
            Self::Scheme(name, scheme) => format!("scheme `{scheme}` of header `{name}`"),
            Self::Query(name) => format!("query parameter `{name}`"),
            Self::Cookie(name) => format!("cookie `{name}`"),
        }
    }
}

impl Places {
    /// Several places.
    pub(crate) fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self(places.into_iter().collect())
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Place> + Clone {
        self.0.iter()
    }

    /// The one credential at these places.
    ///
    /// # Errors
    /// There is more than one, or one that is broken.
    pub(crate) fn find<'p, 'h>(&'p self, head: &'h Parts) -> Result<Option<Found<'p, 'h>>, PlaceError> {
        let mut found: Option<Found<'p, 'h>> = None;
        for place in &self.0 {
            let Some(credential) = place.find(head)? else { continue };
            match (&found, place) {
                (None, _) => found = Some(Found { place, credential }),
                (Some(_), Place::Marker(_)) => {}
                (Some(_), _) => return Err(PlaceError::Repeated),
            }
        }
        Ok(found)
    }

    /// Whether anything at all stands at one of them.
    pub(crate) fn are_filled(&self, head: &Parts) -> bool {
        !matches!(self.find(head), Ok(None))
    }
}

impl From<Place> for Places {
    fn from(place: Place) -> Self {
        Self(Box::new([place]))
    }
}
