//! From text to a checked tree.

use std::ops::Range;
use std::thread;

use cel::common::ast::IdedExpr;
use cel::parser::{ParseError, ParseErrors, Parser};
use portcullis_core::{Diagnostic, Spanned};

use super::check;
use crate::place::part_of;

/// Longest text of an expression, in bytes.
const MAX_TEXT: usize = 2048;

/// Deepest nesting of brackets and `?:`.
const MAX_NESTING: u16 = 24;

/// The parser descends once per bracket and takes about 100 KiB of stack for it when not optimised.
const STACK: usize = 16 << 20;

/// One thing wrong with an expression.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    code: &'static str,
    span: Range<usize>,
    message: String,
    label: Option<String>,
    note: Option<String>,
}

impl Problem {
    pub(super) fn new(code: &'static str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { code, span, message: message.into(), label: None, note: None }
    }

    /// Whether it is that kind of problem.
    pub(super) fn is_about(&self, code: &str) -> bool {
        self.code == code
    }

    pub(super) fn label(mut self, text: impl Into<String>) -> Self {
        self.label = Some(text.into());
        self
    }

    pub(super) fn note(mut self, text: impl Into<String>) -> Self {
        self.note = Some(text.into());
        self
    }

    /// The fault of a file whose text this is.
    pub(super) fn at(self, text: &Spanned<String>) -> Diagnostic {
        let place = part_of(text, self.span.start, self.span.len());
        let mut fault = Diagnostic::error(self.code, place, self.message);
        fault.label = self.label;
        fault.notes.extend(self.note);
        fault
    }
}

/// Parses and checks. SECURITY: on a thread of its own with a stack that the bounds above cannot exhaust, and
/// where a panic of the parser is one more fault of the file instead of the end of the process.
pub(super) fn read(text: &str) -> Result<IdedExpr, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        let message = format!("the expression is longer than {MAX_TEXT} bytes");
        return Err(vec![Problem::new("bad_expression", 0..text.len(), message)]);
    }
    let unreadable = || vec![Problem::new("bad_expression", 0..text.len(), "the expression cannot be read")];
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || parse_and_check(text))
            .map_err(|_| unreadable())?;
        reader.join().unwrap_or_else(|_| Err(unreadable()))
    })
}

fn parse_and_check(text: &str) -> Result<IdedExpr, Vec<Problem>> {
    let parser = Parser::new().max_recursion_depth(MAX_NESTING);
    let (tree, info) = parser.parse_with_source_info(text).map_err(|errors| vec![syntax(text, &errors)])?;
    let problems = check::check(&tree, &info);
    if problems.is_empty() { Ok(tree) } else { Err(problems) }
}

/// The first thing the parser stumbled over; what follows is mostly a consequence of it.
fn syntax(text: &str, errors: &ParseErrors) -> Problem {
    let Some(error) = errors.errors.first() else {
        return Problem::new("bad_expression", 0..text.len(), "the expression cannot be read");
    };
    if error.msg.contains("UNKNOWN") || error.msg.contains("Recursion limit") {
        return Problem::new("bad_expression", 0..text.len(), "the expression is nested too deeply");
    }
    let from = offset(text, error);
    let found = word_at(text, from);
    let span = from..from + found.len();
    if !error.msg.starts_with("Syntax error") {
        return Problem::new("bad_expression", span, own_words(&error.msg, found));
    }
    if found.is_empty() {
        return Problem::new("bad_expression", span, "the expression ends too early");
    }
    let problem = Problem::new("bad_expression", span, format!("unexpected `{found}`"));
    match found {
        "and" | "AND" => problem.label("did you mean `&&`?"),
        "or" | "OR" => problem.label("did you mean `||`?"),
        "not" | "NOT" => problem.label("did you mean `!`?"),
        "=" => problem.label("did you mean `==`?"),
        "'" | "\"" if text.get(from + 1..).is_some_and(|rest| !rest.contains(found)) => {
            problem.label("this text does not end")
        }
        _ if text.get(..from).is_some_and(|before| before.trim_end().ends_with("not")) => {
            problem.label("did you mean `!`?")
        }
        _ => problem,
    }
}

/// What the parser reports beyond syntax, in our words.
fn own_words(message: &str, found: &str) -> String {
    if message.contains("has() macro") {
        "`has` takes one member: `has(claims.acr)`".to_owned()
    } else if message.starts_with("reserved identifier") {
        format!("`{found}` is a reserved word")
    } else if message.starts_with("invalid int") || message.starts_with("invalid double") {
        format!("`{found}` is no number that fits")
    } else if message.starts_with("argument must be a simple name") {
        "the items need a simple name: `list.exists(item, ...)`".to_owned()
    } else if message.starts_with("unsupported syntax") {
        "this form is not offered here".to_owned()
    } else {
        message.to_owned()
    }
}

/// The parser counts lines and characters from 1.
fn offset(text: &str, error: &ParseError) -> usize {
    let line = usize::try_from(error.pos.0).unwrap_or(1).max(1);
    let column = usize::try_from(error.pos.1).unwrap_or(1).max(1);
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    start + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at)
}

fn word_at(text: &str, from: usize) -> &str {
    let rest = text.get(from..).unwrap_or_default();
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
    rest.get(..length).unwrap_or_default()
}
