//! What is wrong with a policy file, and where.

use std::fmt;

/// Which file of a load; the loader keeps the names and texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A stretch of a policy file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// First line, counted from 1.
    pub line: u32,
    /// First column in characters, counted from 1.
    pub column: u32,
    /// First byte, counted from 0.
    pub offset: u32,
    /// Length in bytes; 0 where only a point is known.
    pub length: u32,
}

impl Place {
    /// The part of this place that starts `from` bytes in and is `length` bytes long. For text without line
    /// ends or escapes, such as an expression in a plain scalar.
    #[must_use]
    pub fn part(self, from: usize, length: usize) -> Self {
        let from = u32::try_from(from).unwrap_or(0);
        Self {
            column: self.column.saturating_add(from),
            offset: self.offset.saturating_add(from),
            length: u32::try_from(length).unwrap_or(0),
            ..self
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Spanned<T> {
    /// Puts a value and its place together.
    pub const fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    /// Changes the value, keeps the place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), place: self.place }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The files are not loaded.
    Error,
    /// The files are loaded; somebody should look.
    Warning,
}

/// One thing to mend, in words for the person who wrote the file: lower case, no full stop, their own words in
/// backticks, no type names.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable code in snake case (`unknown_key`), for searching and for machines.
    pub code: &'static str,
    /// Where; `None` for a whole directory or the environment.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// Said at the caret itself (`did you mean ...`).
    pub label: Option<String>,
    /// Other places that matter, each with a word about it.
    pub related: Vec<(Place, String)>,
    /// Said below.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            place: Some(place),
            message: message.into(),
            label: None,
            related: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// An error that has no place in a file.
    pub fn nowhere(code: &'static str, message: impl Into<String>) -> Self {
        Self { place: None, ..Self::error(code, Place::default(), message) }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// Says something at the caret.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label = Some(text.into());
        self
    }

    /// Says something below.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Points at another place.
    #[must_use]
    pub fn related(mut self, place: Place, text: impl Into<String>) -> Self {
        self.related.push((place, text.into()));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}[{}]: {}",
            if self.severity == Severity::Error { "error" } else { "warning" },
            self.code,
            self.message
        )
    }
}

/// Everything found so far. Reading goes on after a fault, so that one run names them all.
#[derive(Debug, Default)]
pub struct Faults(Vec<Diagnostic>);

impl Faults {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds an error at a place.
    pub fn error(&mut self, code: &'static str, place: Place, message: impl Into<String>) {
        self.push(Diagnostic::error(code, place, message));
    }

    /// Whether there is any error among them.
    pub fn any_error(&self) -> bool {
        self.0.iter().any(|fault| fault.severity == Severity::Error)
    }

    /// All of them, sorted by file and position, those without a place first.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.0.sort_by_key(|fault| fault.place);
        self.0
    }

    /// A name was used that nothing defines: says so, with the nearest defined one and where each stands.
    pub fn undefined(&mut self, what: &str, name: &Spanned<String>, defined: &[(String, Place)]) {
        let mut fault =
            Diagnostic::error("undefined", name.place, format!("{what} `{}` is not defined", name.value));
        if let Some(near) = nearest(&name.value, defined.iter().map(|(name, _)| name.as_str())) {
            fault = fault.label(format!("did you mean `{near}`?"));
        }
        fault = if defined.is_empty() {
            fault.note(format!("no {what} is defined"))
        } else {
            defined.iter().fold(fault, |fault, (name, place)| {
                fault.related(*place, format!("`{name}` is defined here"))
            })
        };
        self.push(fault);
    }
}

/// The word that was probably meant, if one is near enough to be worth saying.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["issuer", "bound_to", "audience"];
        assert_eq!(nearest("isuser", known), Some("issuer"));
        assert_eq!(nearest("boundto", known), Some("bound_to"));
        assert_eq!(nearest("zebra", known), None);
    }
}
