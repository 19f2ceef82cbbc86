//! The variables an expression can use, and their types.
//!
//! Deliberately absent: the query string and the body, about which two readers can disagree, and the
//! certificate's names as printed text, which cannot be split safely (OZ-06).

/// What is known about a value before there is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// A number of either kind.
    Number,
    Text,
    Null,
    List(Box<Type>),
    Record(&'static Record),
    /// Known only when the request is there.
    Dynamic,
}

/// A group of named values.
#[derive(Debug)]
pub(super) struct Record {
    /// The members that are known by name.
    pub(super) members: &'static [(&'static str, Member)],
    /// What any other member is; `None` where there is no other.
    pub(super) others: Option<Member>,
}

impl PartialEq for Record {
    /// Records are declared once each, so which one it is decides.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// The type of a member, in a form that a table can hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    Int,
    Number,
    Text,
    Texts,
    Dynamic,
    Record(&'static Record),
}

impl Member {
    pub(super) fn as_type(self) -> Type {
        match self {
            Self::Int => Type::Int,
            Self::Number => Type::Number,
            Self::Text => Type::Text,
            Self::Texts => Type::List(Box::new(Type::Text)),
            Self::Dynamic => Type::Dynamic,
            Self::Record(record) => Type::Record(record),
        }
    }
}

impl Record {
    const fn closed(members: &'static [(&'static str, Member)]) -> Self {
        Self { members, others: None }
    }

    const fn open(members: &'static [(&'static str, Member)], others: Member) -> Self {
        Self { members, others: Some(others) }
    }

    pub(super) fn member(&self, name: &str) -> Option<Member> {
        self.members.iter().find(|(known, _)| *known == name).map(|(_, member)| *member).or(self.others)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|(name, _)| *name)
    }
}

impl Type {
    /// The type in the words of messages.
    pub(super) const fn words(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int | Self::Double | Self::Number => "a number",
            Self::Text => "text",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Record(_) => "a group of values",
            Self::Dynamic => "a value",
        }
    }

    pub(super) const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Number)
    }
}

/// Everything an expression can name.
pub(super) static VARIABLES: Record = Record::closed(&[
    ("request", Member::Record(&REQUEST)),
    ("identity", Member::Record(&IDENTITY)),
    ("claims", Member::Record(&CLAIMS)),
    ("certificate", Member::Record(&CERTIFICATE)),
    ("client", Member::Record(&CLIENT)),
]);

static REQUEST: Record = Record::closed(&[
    ("method", Member::Text),
    ("path", Member::Text),
    ("host", Member::Text),
    ("headers", Member::Record(&HEADERS)),
    // Seconds since 1970, the form of `exp`, `nbf` and `iat`.
    ("time", Member::Int),
]);

static HEADERS: Record = Record::open(&[], Member::Text);

static IDENTITY: Record = Record::closed(&[
    ("name", Member::Text),
    ("key", Member::Text),
    ("group", Member::Text),
    ("method", Member::Text),
    ("issuer", Member::Text),
    ("subject", Member::Text),
    ("key_id", Member::Text),
    ("scopes", Member::Texts),
]);

/// The claims whose type RFC 7519 section 4.1 fixes; `aud` is text or a list and stays dynamic.
static CLAIMS: Record = Record::open(
    &[
        ("iss", Member::Text),
        ("sub", Member::Text),
        ("jti", Member::Text),
        ("exp", Member::Number),
        ("nbf", Member::Number),
        ("iat", Member::Number),
    ],
    Member::Dynamic,
);

static CERTIFICATE: Record = Record::closed(&[
    ("subject", Member::Record(&SUBJECT)),
    ("thumbprint", Member::Text),
    ("serial", Member::Text),
    ("dns_names", Member::Texts),
    ("uris", Member::Texts),
    ("trusted_by", Member::Texts),
]);

static SUBJECT: Record = Record::closed(&[
    ("cn", Member::Text),
    ("serial_number", Member::Text),
    ("c", Member::Text),
    ("l", Member::Text),
    ("st", Member::Text),
    ("street", Member::Text),
    ("o", Member::Text),
    ("ou", Member::Text),
    ("business_category", Member::Text),
    ("organization_identifier", Member::Text),
    ("email", Member::Text),
    ("uid", Member::Text),
    ("dc", Member::Text),
]);

static CLIENT: Record =
    Record::closed(&[("name", Member::Text), ("attributes", Member::Record(&ATTRIBUTES))]);

static ATTRIBUTES: Record = Record::open(&[], Member::Dynamic);

/// The object identifiers of the subject attributes above (RFC 4519, RFC 5280 appendix A, ETSI EN 319 412-1).
pub(super) fn subject_oid(name: &str) -> Option<&'static str> {
    Some(match name {
        "cn" => "2.5.4.3",
        "serial_number" => "2.5.4.5",
        "c" => "2.5.4.6",
        "l" => "2.5.4.7",
        "st" => "2.5.4.8",
        "street" => "2.5.4.9",
        "o" => "2.5.4.10",
        "ou" => "2.5.4.11",
        "business_category" => "2.5.4.15",
        "organization_identifier" => "2.5.4.97",
        "email" => "1.2.840.113549.1.9.1",
        "uid" => "0.9.2342.19200300.100.1.1",
        "dc" => "0.9.2342.19200300.100.1.25",
        _ => return None,
    })
}
