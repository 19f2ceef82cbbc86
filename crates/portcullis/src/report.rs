//! Shows what is wrong with policy files: for people as an excerpt of the file with a caret, for machines as
//! JSON.

use std::io::IsTerminal;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use anyhow::anyhow;
use portcullis_core::{Diagnostic, FileId, Place, Severity};
use portcullis_gateway::{Loaded, Plan, SourceMap};
use serde::Serialize;

use crate::output;

/// Names and texts of the files that diagnostics point into.
pub(crate) trait Texts {
    /// The name as it is shown, relative to the directory of policies.
    fn name(&self, file: FileId) -> &str;

    /// The text as it was read.
    fn text(&self, file: FileId) -> &str;
}

impl Texts for SourceMap {
    fn name(&self, file: FileId) -> &str {
        Self::name(self, file)
    }

    fn text(&self, file: FileId) -> &str {
        Self::text(self, file)
    }
}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// For files, pipes and `NO_COLOR`.
    Plain,
    /// For a terminal.
    Coloured,
}

impl Look {
    /// Colour only where somebody can see it and has not declined it (<https://no-color.org>).
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !declined { Self::Coloured } else { Self::Plain }
    }

    fn renderer(self) -> Renderer {
        match self {
            Self::Plain => Renderer::plain(),
            Self::Coloured => Renderer::styled(),
        }
        .decor_style(DecorStyle::Ascii)
    }
}

/// How many errors and warnings there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// What keeps the files from being loaded.
    pub(crate) errors: usize,
    /// What somebody should look at.
    pub(crate) warnings: usize,
}

impl Tally {
    /// Counts.
    pub(crate) fn of<'d>(diagnostics: impl IntoIterator<Item = &'d Diagnostic>) -> Self {
        diagnostics.into_iter().fold(Self::default(), |tally, diagnostic| match diagnostic.severity {
            Severity::Error => Self { errors: tally.errors + 1, ..tally },
            Severity::Warning => Self { warnings: tally.warnings + 1, ..tally },
        })
    }

    /// `2 errors, 1 warning`.
    pub(crate) fn words(self) -> String {
        format!("{}, {}", counted(self.errors, "error"), counted(self.warnings, "warning"))
    }
}

/// `1 rule`, `2 rules`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// All diagnostics for people, one after another with a blank line between, ending in a line end.
pub(crate) fn human(diagnostics: &[Diagnostic], texts: &impl Texts, look: Look) -> String {
    let renderer = look.renderer();
    let mut out = String::new();
    for diagnostic in diagnostics {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&renderer.render(&[group(diagnostic, texts)]));
        out.push('\n');
    }
    out
}

/// Hands out the plan of what was loaded, after showing every fault on standard error.
///
/// # Errors
/// There is no plan, because a fault is an error.
pub(crate) fn plan(loaded: Loaded) -> anyhow::Result<Plan> {
    let Loaded { sources, faults, plan, .. } = loaded;
    output::say(&human(&faults, &sources, Look::of(&std::io::stderr())));
    plan.ok_or_else(|| {
        let directory = sources.directory().display();
        anyhow!("the policies in `{directory}` are not served: {}", Tally::of(&faults).words())
    })
}

fn group<'a>(diagnostic: &'a Diagnostic, texts: &'a impl Texts) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    for snippet in snippets(diagnostic, texts) {
        group = group.element(snippet);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    group
}

/// One excerpt per file, the file of the fault itself first.
fn snippets<'a>(diagnostic: &'a Diagnostic, texts: &'a impl Texts) -> Vec<Snippet<'a, Annotation<'a>>> {
    let mut files: Vec<(FileId, Vec<Annotation<'a>>)> = Vec::new();
    if let Some(place) = diagnostic.place {
        let annotation = annotation(AnnotationKind::Primary, place, texts);
        files.push((place.file, vec![annotation.label(diagnostic.label.as_deref())]));
    }
    for (place, words) in &diagnostic.related {
        let annotation = annotation(AnnotationKind::Context, *place, texts).label(words.as_str());
        match files.iter_mut().find(|(file, _)| *file == place.file) {
            Some((_, annotations)) => annotations.push(annotation),
            None => files.push((place.file, vec![annotation])),
        }
    }
    files
        .into_iter()
        .map(|(file, annotations)| {
            Snippet::source(texts.text(file)).path(texts.name(file)).annotations(annotations)
        })
        .collect()
}

/// The bytes to mark, cut to what the text has: a place may come from a file that was changed or shortened
/// while it was read, and a report must not fail for that.
fn annotation<'a>(kind: AnnotationKind, place: Place, texts: &impl Texts) -> Annotation<'a> {
    let text = texts.text(place.file);
    let bounded = |offset: u64| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    };
    let start = bounded(u64::from(place.offset));
    let end = bounded(u64::from(place.offset) + u64::from(place.length)).max(start);
    kind.span(start..end)
}

/// A diagnostic for machines. Its members are a public contract.
#[derive(Debug, Serialize)]
pub(crate) struct Finding<'a> {
    severity: &'static str,
    code: &'a str,
    #[serde(flatten)]
    place: Option<Location<'a>>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related: Vec<Related<'a>>,
}

#[derive(Debug, Serialize)]
struct Location<'a> {
    file: &'a str,
    line: u32,
    column: u32,
}

#[derive(Debug, Serialize)]
struct Related<'a> {
    #[serde(flatten)]
    place: Location<'a>,
    message: &'a str,
}

/// All diagnostics for machines.
pub(crate) fn findings<'a>(diagnostics: &'a [Diagnostic], texts: &'a impl Texts) -> Vec<Finding<'a>> {
    let location =
        |place: &Place| Location { file: texts.name(place.file), line: place.line, column: place.column };
    diagnostics
        .iter()
        .map(|diagnostic| Finding {
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            code: diagnostic.code,
            place: diagnostic.place.as_ref().map(location),
            message: &diagnostic.message,
            label: diagnostic.label.as_deref(),
            notes: &diagnostic.notes,
            related: diagnostic
                .related
                .iter()
                .map(|(place, message)| Related { place: location(place), message })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Look, Tally, Texts, findings, human};
    use portcullis_core::{Diagnostic, FileId, Place};

    struct TwoFiles;

    const API: &str = "api: demo\nauthenticate:\n  jwt:\n    isuser: bank-ipd\n";
    const GATEWAY: &str = "issuers:\n  bank-idp:\n    issuer: https://idp\n";

    impl Texts for TwoFiles {
        fn name(&self, file: FileId) -> &str {
            if file == FileId(0) { "apis/demo.yaml" } else { "gateway.yaml" }
        }

        fn text(&self, file: FileId) -> &str {
            if file == FileId(0) { API } else { GATEWAY }
        }
    }

    /// The place of a word, so that the tests need no counting.
    fn place(file: u32, word: &str) -> Place {
        let text = TwoFiles.text(FileId(file));
        let offset = text.find(word).expect("the word is in the text");
        let before = &text[..offset];
        Place {
            file: FileId(file),
            line: u32::try_from(before.lines().count().max(1)).expect("small"),
            column: u32::try_from(before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1)
                .expect("small"),
            offset: u32::try_from(offset).expect("small"),
            length: u32::try_from(word.len()).expect("small"),
        }
    }

    fn shown(diagnostic: Diagnostic) -> String {
        human(&[diagnostic], &TwoFiles, Look::Plain)
    }

    #[test]
    fn a_fault_shows_line_caret_suggestion_and_the_known_words() {
        let fault = Diagnostic::error("unknown_key", place(0, "isuser"), "unknown key `isuser` in jwt")
            .label("did you mean `issuer`?")
            .note("keys here: issuer, bound_to");
        assert_eq!(
            shown(fault),
            "\
error[unknown_key]: unknown key `isuser` in jwt
 --> apis/demo.yaml:4:5
  |
4 |     isuser: bank-ipd
  |     ^^^^^^ did you mean `issuer`?
  |
  = note: keys here: issuer, bound_to
"
        );
    }

    #[test]
    fn a_missing_name_shows_where_the_known_ones_are_defined() {
        let fault = Diagnostic::error("undefined", place(0, "bank-ipd"), "issuer `bank-ipd` is not defined")
            .label("did you mean `bank-idp`?")
            .related(place(1, "bank-idp"), "`bank-idp` is defined here");
        assert_eq!(
            shown(fault),
            "\
error[undefined]: issuer `bank-ipd` is not defined
 --> apis/demo.yaml:4:13
  |
4 |     isuser: bank-ipd
  |             ^^^^^^^^ did you mean `bank-idp`?
  |
 ::: gateway.yaml:2:3
  |
2 |   bank-idp:
  |   -------- `bank-idp` is defined here
"
        );
    }

    #[test]
    fn a_fault_of_no_file_is_one_line() {
        let fault = Diagnostic::nowhere("no_files", "there is no `gateway.yaml` in `policies`");
        assert_eq!(shown(fault), "error[no_files]: there is no `gateway.yaml` in `policies`\n");
    }

    #[test]
    fn a_place_outside_the_text_is_shown_at_its_end() {
        let beyond = Place { file: FileId(0), line: 9, column: 1, offset: 9_000, length: 9_000 };
        let text = shown(Diagnostic::warning("odd", beyond, "something is odd"));
        assert!(text.starts_with("warning[odd]: something is odd\n --> apis/demo.yaml:"), "{text}");
    }

    #[test]
    fn a_place_within_a_character_is_shown_at_its_start() {
        struct Accented;
        impl Texts for Accented {
            fn name(&self, _: FileId) -> &str {
                "gateway.yaml"
            }
            fn text(&self, _: FileId) -> &str {
                "näme: x\n"
            }
        }
        let inside = Place { file: FileId(0), line: 1, column: 2, offset: 2, length: 1 };
        let text = human(&[Diagnostic::error("odd", inside, "odd")], &Accented, Look::Plain);
        assert!(text.contains("1 | näme: x\n  |  ^\n"), "{text}");
    }

    #[test]
    fn machines_get_the_same_facts() {
        let faults = [
            Diagnostic::error("undefined", place(0, "bank-ipd"), "issuer `bank-ipd` is not defined")
                .related(place(1, "bank-idp"), "`bank-idp` is defined here"),
            Diagnostic::nowhere("no_files", "nothing"),
        ];
        let json = serde_json::to_string(&findings(&faults, &TwoFiles)).expect("serializes");
        assert_eq!(
            json,
            r#"[{"severity":"error","code":"undefined","file":"apis/demo.yaml","line":4,"column":13,"message":"issuer `bank-ipd` is not defined","related":[{"file":"gateway.yaml","line":2,"column":3,"message":"`bank-idp` is defined here"}]},{"severity":"error","code":"no_files","message":"nothing"}]"#
        );
    }

    #[test]
    fn totals_are_counted_in_words() {
        let faults = [
            Diagnostic::error("a", Place::default(), "a"),
            Diagnostic::warning("b", Place::default(), "b"),
            Diagnostic::warning("c", Place::default(), "c"),
        ];
        assert_eq!(Tally::of(&faults).words(), "1 error, 2 warnings");
    }
}
