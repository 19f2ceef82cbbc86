//! The check of a syntax tree against the declared variables.
//!
//! Each part gets a type. Where the types of two parts are known and cannot go together, that is a problem;
//! where one of them is only known at run time, it is not. A part with a problem counts as of unknown type, so
//! that one mistake is reported once.

use std::ops::Range;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo};
use portcullis_core::diagnostic;

use super::reading::Problem;
use super::source::{span, text, token};
use super::vocabulary::{Record, Type, VARIABLES};

/// Deepest tree, so that evaluating it never needs much of a worker's stack.
const MAX_DEPTH: usize = 64;

/// How deep loops may stand inside each other. SECURITY: lists in a token hold at most 256 items, so this
/// bounds what a caller's token can make an expression cost.
const MAX_LOOPS: usize = 2;

/// Finds everything wrong with a tree; nothing, if it is an expression that is true or false.
pub(super) fn check(tree: &IdedExpr, info: &SourceInfo) -> Vec<Problem> {
    let mut checker = Checker { info, locals: Vec::new(), problems: Vec::new(), depth: 0 };
    let result = checker.type_of(tree);
    if !matches!(result, Type::Bool | Type::Dynamic) {
        let message = format!("the expression is {}, not true or false", result.words());
        checker.report(Problem::new("not_a_condition", span(tree, info), message));
    }
    checker.problems
}

/// The walk over one tree.
pub(super) struct Checker<'t> {
    pub(super) info: &'t SourceInfo,
    /// Variables of the loops around, the innermost last.
    locals: Vec<(String, Type)>,
    problems: Vec<Problem>,
    depth: usize,
}

impl Checker<'_> {
    pub(super) fn report(&mut self, problem: Problem) -> Type {
        self.problems.push(problem);
        Type::Dynamic
    }

    pub(super) fn span(&self, expr: &IdedExpr) -> Range<usize> {
        span(expr, self.info)
    }

    pub(super) fn text(&self, expr: &IdedExpr) -> &str {
        text(expr, self.info)
    }

    pub(super) fn type_of(&mut self, expr: &IdedExpr) -> Type {
        if self.depth >= MAX_DEPTH {
            if self.problems.iter().any(|problem| problem.is_about("too_deep")) {
                return Type::Dynamic;
            }
            let whole = 0..self.info.source.len();
            return self.report(Problem::new("too_deep", whole, "the expression is nested too deeply"));
        }
        self.depth += 1;
        let found = self.type_of_kind(expr);
        self.depth -= 1;
        found
    }

    fn type_of_kind(&mut self, expr: &IdedExpr) -> Type {
        match &expr.expr {
            Expr::Literal(literal) => self.literal(literal, expr),
            Expr::Ident(name) => self.variable(name, expr),
            Expr::Select(select) => self.select(select, expr),
            Expr::Call(call) => self.call(call, expr),
            Expr::List(list) => {
                let mut item = None;
                for element in &list.elements {
                    let found = self.type_of(element);
                    item = Some(match item {
                        None => found,
                        Some(item) if item == found => item,
                        Some(_) => Type::Dynamic,
                    });
                }
                Type::List(Box::new(item.unwrap_or(Type::Dynamic)))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, expr),
            Expr::Map(_) => self.not_offered("a map", expr),
            Expr::Struct(message) => self.not_offered(&format!("`{}{{...}}`", message.type_name), expr),
            Expr::Unspecified => self.not_offered("this", expr),
        }
    }

    fn not_offered(&mut self, what: &str, expr: &IdedExpr) -> Type {
        let span = self.span(expr);
        self.report(Problem::new("not_offered", span, format!("{what} cannot be written here")))
    }

    fn literal(&mut self, literal: &LiteralValue, expr: &IdedExpr) -> Type {
        match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::Null => Type::Null,
            LiteralValue::Bytes(_) => self.not_offered("a byte string", expr),
            LiteralValue::UInt(_) => self.not_offered("an unsigned number", expr),
        }
    }

    fn variable(&mut self, name: &str, expr: &IdedExpr) -> Type {
        if let Some((_, local)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return local.clone();
        }
        if let Some(member) = VARIABLES.member(name) {
            return member.as_type();
        }
        let problem = Problem::new("unknown_name", self.span(expr), format!("`{name}` is not a variable"));
        let mut names: Vec<&str> = VARIABLES.names().collect();
        names.extend(self.locals.iter().map(|(local, _)| local.as_str()));
        let problem = match diagnostic::nearest(name, names) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem.note(format!("variables here: {}", listed(VARIABLES.names()))),
        };
        self.report(problem)
    }

    /// `a.b`, and `has(a.b)`, which is a test of the same member.
    fn select(&mut self, select: &SelectExpr, expr: &IdedExpr) -> Type {
        let operand = self.type_of(&select.operand);
        let found = match operand {
            Type::Dynamic => Type::Dynamic,
            Type::Record(record) => self.member(record, &select.field, select, expr),
            other => {
                let message = format!(
                    "`{}` is {} and has no member `{}`",
                    self.text(&select.operand),
                    other.words(),
                    select.field
                );
                self.report(Problem::new("unknown_name", self.span(expr), message))
            }
        };
        if select.test { Type::Bool } else { found }
    }

    fn member(&mut self, record: &Record, name: &str, select: &SelectExpr, expr: &IdedExpr) -> Type {
        if let Some(member) = record.member(name) {
            return member.as_type();
        }
        let owner = self.text(&select.operand);
        let problem =
            Problem::new("unknown_name", self.span(expr), format!("`{owner}` has no member `{name}`"));
        let problem = match diagnostic::nearest(name, record.names()) {
            Some(near) => problem.label(format!("did you mean `{owner}.{near}`?")),
            None => problem.note(format!("members of `{owner}`: {}", listed(record.names()))),
        };
        self.report(problem)
    }

    fn call(&mut self, call: &CallExpr, expr: &IdedExpr) -> Type {
        match &call.target {
            Some(target) => self.method(call, target, expr),
            None => self.operator_or_function(call, expr),
        }
    }

    /// `all`, `exists`, `exists_one`, `map` and `filter`, which the parser has already spelled out as a loop.
    fn comprehension(&mut self, comprehension: &ComprehensionExpr, expr: &IdedExpr) -> Type {
        let range = self.type_of(&comprehension.iter_range);
        let item = match range {
            Type::List(item) => *item,
            Type::Dynamic => Type::Dynamic,
            other => {
                let message = format!(
                    "`{}` is {}, not a list to look through",
                    self.text(&comprehension.iter_range),
                    other.words()
                );
                return self.report(Problem::new(
                    "type_clash",
                    self.span(&comprehension.iter_range),
                    message,
                ));
            }
        };
        let variable = &comprehension.iter_var;
        // The same name for two things would be read one way and evaluated the other.
        if VARIABLES.member(variable).is_some() || self.locals.iter().any(|(local, _)| local == variable) {
            let message = format!("`{variable}` is a variable already; the items need another name");
            return self.report(Problem::new("type_clash", token(expr.id, self.info), message));
        }
        if self.locals.len() >= MAX_LOOPS {
            let message = "loops can stand in each other only two deep";
            return self.report(Problem::new("too_deep", self.span(expr), message));
        }
        self.locals.push((variable.clone(), item));
        let result = self.loop_body(comprehension);
        self.locals.pop();
        result
    }

    /// The parser spells the five loops in four forms; `@result` is its own variable.
    fn loop_body(&mut self, comprehension: &ComprehensionExpr) -> Type {
        let Expr::Call(step) = &comprehension.loop_step.expr else { return Type::Dynamic };
        let counts = matches!(comprehension.accu_init.expr, Expr::Literal(LiteralValue::Int(_)));
        match step.args.as_slice() {
            // `@result && condition`, `@result || condition`
            [_, condition] if !matches!(condition.expr, Expr::List(_)) => {
                self.condition(condition);
                Type::Bool
            }
            // `@result + [value]`
            [_, value] => self.type_of(value),
            // `condition ? @result + 1 : @result`
            [condition, _, _] if counts => {
                self.condition(condition);
                Type::Bool
            }
            // `condition ? @result + [value] : @result`
            [condition, added, _] => {
                self.condition(condition);
                match &added.expr {
                    Expr::Call(added) => match added.args.as_slice() {
                        [_, value] => self.type_of(value),
                        _ => Type::Dynamic,
                    },
                    _ => Type::Dynamic,
                }
            }
            _ => Type::Dynamic,
        }
    }

    /// A part that has to be true or false.
    pub(super) fn condition(&mut self, expr: &IdedExpr) {
        let found = self.type_of(expr);
        if !matches!(found, Type::Bool | Type::Dynamic) {
            let message = format!("`{}` is {}, not true or false", self.text(expr), found.words());
            self.report(Problem::new("type_clash", self.span(expr), message));
        }
    }
}

pub(super) fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
