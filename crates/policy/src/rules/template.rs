//! Path templates: `/accounts`, `/accounts/{id}`, `/orders/*`.
//!
//! A template is matched against the whole of a path in normal form, byte for byte, never decoded: what was
//! matched is exactly what is forwarded. There are deliberately no regular expressions: an unanchored one
//! allows more than its reader sees.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use portcullis_core::{Diagnostic, Faults, Spanned};

use crate::place::part_of;
use crate::spelling::{escaped, plainly_spelled};

/// One path or a family of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    text: Arc<str>,
    segments: Box<[Segment]>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Exactly this; empty after a final slash.
    Literal(Box<str>),
    /// `{name}`: one segment that is not empty.
    Parameter,
    /// `*`, at the end: one segment or more, whatever they are.
    Rest,
}

impl PathTemplate {
    /// Reads a template, or says at its place what is wrong with it.
    pub fn parse(text: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        match segments(&text.value) {
            Ok(segments) => Some(Self { text: text.value.as_str().into(), segments }),
            Err(fault) => {
                faults.push(fault.at(text));
                None
            }
        }
    }

    /// The template as written.
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether the whole path fits, and if so what the `*` stands for, with the slash before it: for
    /// `/open-banking/v3/*` and `/open-banking/v3/accounts` that is `/accounts`. Without a `*` it is `/`.
    pub fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mut rest = path;
        for segment in &*self.segments {
            // Every segment starts with its slash, so a path that has ended cannot match another segment.
            let after = rest.strip_prefix('/')?;
            let end = after.bytes().position(|byte| byte == b'/').unwrap_or(after.len());
            let (here, next) = after.split_at_checked(end)?;
            match segment {
                Segment::Rest => return Some(rest),
                Segment::Literal(text) if **text == *here || **text == *plainly_spelled(here) => {}
                Segment::Parameter if !here.is_empty() => {}
                Segment::Literal(_) | Segment::Parameter => return None,
            }
            rest = next;
        }
        rest.is_empty().then_some("/")
    }

    /// Whether every path that `other` takes is also taken by `self`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.segments.iter();
        for own in &*self.segments {
            match (own, theirs.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Parameter, Some(Segment::Parameter)) => {}
                (Segment::Parameter, Some(Segment::Literal(text))) if !text.is_empty() => {}
                (Segment::Literal(text), Some(Segment::Literal(same))) if text == same => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether both take exactly the same paths; names of parameters do not matter.
    pub fn takes_the_same_as(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// Orders the more specific template first: at the first difference a literal comes before a parameter and
    /// a parameter before a rest. In a list in this order the first match is the most specific one.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let (mut ours, mut theirs) = (self.segments.iter(), other.segments.iter());
        loop {
            let ordering = match (ours.next(), theirs.next()) {
                (None, None) => return self.text.cmp(&other.text),
                (own, their) => rank(own).cmp(&rank(their)),
            };
            if ordering.is_ne() {
                return ordering;
            }
        }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The order of kinds, and of literals among themselves so that equal texts stand together.
fn rank(segment: Option<&Segment>) -> (u8, &str) {
    match segment {
        None => (0, ""),
        Some(Segment::Literal(text)) => (1, text),
        Some(Segment::Parameter) => (2, ""),
        Some(Segment::Rest) => (3, ""),
    }
}

/// What is wrong with a template, and which part of it.
struct Fault {
    from: usize,
    length: usize,
    message: String,
    note: Option<&'static str>,
}

impl Fault {
    fn new(from: usize, length: usize, message: impl Into<String>) -> Self {
        Self { from, length, message: message.into(), note: None }
    }

    fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    fn at(self, text: &Spanned<String>) -> Diagnostic {
        let place = part_of(text, self.from, self.length);
        let fault = Diagnostic::error("bad_path", place, self.message);
        match self.note {
            Some(note) => fault.note(note),
            None => fault,
        }
    }
}

fn segments(text: &str) -> Result<Box<[Segment]>, Fault> {
    let Some(after) = text.strip_prefix('/') else {
        return Err(Fault::new(0, text.len(), format!("the path `{text}` does not start with `/`")));
    };
    let mut from = 1;
    let mut found: Vec<Segment> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut parts = after.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        let segment = segment(part, last).map_err(|fault| Fault { from: from + fault.from, ..fault })?;
        if segment == Segment::Parameter {
            if names.contains(&part) {
                return Err(Fault::new(from, part.len(), format!("`{part}` stands twice in one path")));
            }
            names.push(part);
        }
        from += part.len() + 1;
        found.push(segment);
    }
    Ok(found.into())
}

fn segment(part: &str, last: bool) -> Result<Segment, Fault> {
    let whole = |message: String| Fault::new(0, part.len(), message);
    match part {
        "*" if last => return Ok(Segment::Rest),
        "*" => {
            return Err(whole("`*` stands for the rest of a path, so only at its end".to_owned())
                .note("write `{name}` for one segment"));
        }
        "" if last => return Ok(Segment::Literal("".into())),
        "" => return Err(whole("a path in normal form has no doubled slash".to_owned())),
        "." | ".." => return Err(whole(format!("a path in normal form has no `{part}`"))),
        _ => {}
    }
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        return if good {
            Ok(Segment::Parameter)
        } else {
            Err(whole(format!("`{part}` is not a name in braces such as `{{id}}`")))
        };
    }
    if part.contains(['{', '}', '*']) {
        return Err(whole(format!("`{part}` mixes text with a parameter or `*`"))
            .note("`{name}` and `*` stand for whole segments: matching is never by a part of one"));
    }
    literal(part)
}

/// SECURITY: a request whose path is not in normal form never reaches a rule, so text that no such path can
/// hold would be a rule that silently never fits.
fn literal(part: &str) -> Result<Segment, Fault> {
    let bytes = part.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            escape(part, at)?;
            at += 3;
        } else if byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@".contains(&byte) {
            at += 1;
        } else {
            let found = part.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
            return Err(Fault::new(at, found.len_utf8(), format!("`{found}` cannot stand in a path"))
                .note("other characters are percent-encoded in UTF-8: `é` is `%C3%A9`"));
        }
    }
    Ok(Segment::Literal(part.into()))
}

fn escape(part: &str, at: usize) -> Result<(), Fault> {
    let triplet = part.get(at..at + 3).unwrap_or("%");
    let fault = |message: String| Err(Fault::new(at, triplet.len(), message));
    let digits = triplet.get(1..).unwrap_or_default();
    if digits.len() != 2 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) {
        return fault("`%` is followed by two upper-case hexadecimal digits".to_owned());
    }
    match u8::from_str_radix(digits, 16).unwrap_or(0) {
        b if b.is_ascii_alphanumeric() || b"-._~*".contains(&b) || escaped(digits).is_some() => {
            fault(format!("a path in normal form has `{}`, not `{triplet}`", char::from(b)))
        }
        b'/' | b'\\' | 0..=31 | 127 => fault(format!("a path in normal form has no `{triplet}`")),
        _ => Ok(()),
    }
}
