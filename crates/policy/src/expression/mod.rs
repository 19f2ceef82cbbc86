//! The expressions of `when`: CEL over declared, typed variables.
//!
//! The `cel` crate parses and evaluates. Between the two stands our own check of the syntax tree, made when
//! policies are loaded: a name nobody declared, a function that is not offered, a comparison that could never
//! be true are faults of the file, not surprises of a request. The language has no side effects and its work is
//! bounded (CHN-07): text and nesting are limited, loops run only over lists in the request's own facts, and
//! at most two deep. There are deliberately no regular expressions.

mod check;
mod operators;
mod reading;
mod source;
#[cfg(test)]
mod tests;
mod values;
mod vocabulary;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::{Context, Env, ExecutionError, Value};
use portcullis_core::{Faults, Spanned};

use crate::Facts;
use values::Variables;

/// The functions of the standard library; which of them an expression may call is decided by the check.
static LIBRARY: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A checked expression whose value is true or false.
#[derive(Debug)]
pub(crate) struct Expression {
    source: String,
    tree: IdedExpr,
}

impl Expression {
    /// Reads and checks an expression. Every fault points at its part of the text where that can be known.
    pub(crate) fn compile(text: &Spanned<String>, faults: &mut Faults) -> Option<Self> {
        match reading::read(&text.value) {
            Ok(tree) => Some(Self { source: text.value.clone(), tree }),
            Err(problems) => {
                problems.into_iter().for_each(|problem| faults.push(problem.at(text)));
                None
            }
        }
    }

    /// The expression as written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is true of a request.
    ///
    /// # Errors
    /// It is neither: something it needs is missing or of the wrong kind. The text names no value, so that it
    /// may be logged. SECURITY: whoever asks must treat this as "does not fit", never as true.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let variables = Variables::new(*facts);
        // SECURITY: a panic in the evaluator must not end the connection, which carries other requests too.
        // Nothing here outlives it in a half-changed state: facts are only read.
        catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(Arc::clone(&LIBRARY));
            context.set_variable_resolver(&variables);
            let value = Value::resolve_val(&self.tree, &context).map_err(|error| in_words(&error))?;
            value
                .downcast_ref::<CelBool>()
                .map(|truth| *truth.inner())
                .ok_or_else(|| "it is neither true nor false".to_owned())
        }))
        .unwrap_or_else(|_| Err("it cannot be evaluated".to_owned()))
    }
}

/// The crate's own messages quote values, which may be personal data, so they never pass.
fn in_words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("`{name}` is missing"),
        ExecutionError::InternalError(ours) => ours.clone(),
        ExecutionError::NoSuchOverload(call) => {
            format!(
                "`{}` does not go with {}",
                source::operator(call.function()),
                call.argument_types().join(" and ")
            )
        }
        ExecutionError::UnsupportedBinaryOperator(..) | ExecutionError::ValuesNotComparable(..) => {
            "two values do not go together".to_owned()
        }
        ExecutionError::UnexpectedType { want, .. } => format!("a value is not of the kind wanted ({want})"),
        ExecutionError::FunctionError { function, .. } => format!("`{function}` failed"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list has no such item".to_owned(),
        _ => "it cannot be evaluated".to_owned(),
    }
}
