//! What a signature covers: component identifiers (RFC 9421 section 2).

use http::HeaderName;
use sfv::{BareItem, FieldType as _, Item, Parameters};

/// A derived component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    QueryParam,
    Status,
}

/// What a component is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Derived(Derived),
    Field(HeaderName),
}

/// How its value is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// As a structured field, written strictly.
    pub(crate) sf: bool,
    /// One member of a dictionary.
    pub(crate) key: Option<String>,
    /// Every line wrapped as bytes.
    pub(crate) bs: bool,
    /// From the trailers.
    pub(crate) tr: bool,
    /// From the request that a response answers.
    pub(crate) req: bool,
    /// Which parameter of the query.
    pub(crate) name: Option<String>,
}

/// One component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: Name,
    pub(crate) how: How,
    /// The identifier, strictly written, with its parameters in the order they came.
    pub(crate) identifier: String,
}

/// Why something is no component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// Not a string.
    #[error("a covered component is not a string")]
    NotString,
    /// No field and no derived component is called that.
    #[error("a covered component has a name that nothing has")]
    Name,
    /// A parameter we do not know, of a wrong kind, or that does not go with the others.
    #[error("a covered component has a parameter that it cannot have")]
    Parameter,
}

const DERIVED: &[(&str, Derived)] = &[
    ("@method", Derived::Method),
    ("@target-uri", Derived::TargetUri),
    ("@authority", Derived::Authority),
    ("@scheme", Derived::Scheme),
    ("@request-target", Derived::RequestTarget),
    ("@path", Derived::Path),
    ("@query", Derived::Query),
    ("@query-param", Derived::QueryParam),
    ("@status", Derived::Status),
];

impl Component {
    pub(crate) fn of(item: &Item) -> Result<Self, ComponentError> {
        let name = item.bare_item.as_string().ok_or(ComponentError::NotString)?.as_str();
        let how = How::of(&item.params)?;
        let name = match DERIVED.iter().find(|(own, _)| *own == name) {
            Some((_, derived)) => Name::Derived(*derived),
            // SECURITY: names are lower case (section 2.1), or one field could be listed as two.
            None if name.bytes().any(|byte| byte.is_ascii_uppercase()) => return Err(ComponentError::Name),
            None => Name::Field(HeaderName::from_bytes(name.as_bytes()).map_err(|_| ComponentError::Name)?),
        };
        let fits = match &name {
            Name::Field(_) => how.name.is_none() && !(how.bs && (how.sf || how.key.is_some())),
            Name::Derived(derived) => {
                let of_fields = how.sf || how.bs || how.tr || how.key.is_some();
                !of_fields && how.name.is_some() == (*derived == Derived::QueryParam)
            }
        };
        if !fits {
            return Err(ComponentError::Parameter);
        }
        Ok(Self { name, how, identifier: item.serialize() })
    }

    /// Whether a signature that covers this covers all of what `required` asks for.
    pub(crate) fn satisfies(&self, required: &Self) -> bool {
        let strict = How { sf: false, bs: false, ..self.how.clone() };
        self.name == required.name && (self.how == required.how || strict == required.how)
    }

    /// Whether it is that field of this message, with all of its lines.
    pub(crate) fn is_whole(&self, field: &HeaderName) -> bool {
        matches!(&self.name, Name::Field(own) if own == field)
            && !self.how.tr
            && !self.how.req
            && self.how.key.is_none()
    }
}

impl How {
    fn of(parameters: &Parameters) -> Result<Self, ComponentError> {
        let mut how = Self::default();
        for (name, value) in parameters {
            match (name.as_str(), value) {
                ("sf", BareItem::Boolean(true)) => how.sf = true,
                ("bs", BareItem::Boolean(true)) => how.bs = true,
                ("tr", BareItem::Boolean(true)) => how.tr = true,
                ("req", BareItem::Boolean(true)) => how.req = true,
                ("key", BareItem::String(key)) => how.key = Some(key.as_str().to_owned()),
                ("name", BareItem::String(name)) => how.name = Some(name.as_str().to_owned()),
                _ => return Err(ComponentError::Parameter),
            }
        }
        Ok(how)
    }
}
