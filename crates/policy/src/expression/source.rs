//! Where a part of an expression stands in its text.

use std::ops::Range;

use cel::common::ast::operators as op;
use cel::common::ast::{Expr, IdedExpr, SourceInfo};

/// The bytes of the text that a part of the tree was read from. The parser keeps one token per part (an
/// operator's, a dot, a bracket), so this is the stretch that covers a part's own token and all below it.
pub(super) fn span(expr: &IdedExpr, info: &SourceInfo) -> Range<usize> {
    let mut span = token(expr.id, info);
    let mut cover = |part: &IdedExpr| {
        let inner = self::span(part, info);
        if !inner.is_empty() {
            span = if span.is_empty() { inner } else { span.start.min(inner.start)..span.end.max(inner.end) };
        }
    };
    match &expr.expr {
        Expr::Select(select) => {
            cover(&select.operand);
            span.end = after_word(&info.source, span.end, &select.field);
            if select.test {
                span = call_around(&info.source, span, "has");
            }
        }
        Expr::Call(call) => {
            call.target.iter().for_each(|target| cover(target));
            call.args.iter().for_each(&mut cover);
            if call.func_name == op::INDEX {
                span.end = after_word(&info.source, span.end, "]");
            } else if call.target.is_some() {
                span.end = after_word(&info.source, span.end, ")");
            } else if !is_operator(&call.func_name) {
                span = call_around(&info.source, span, &call.func_name);
            }
        }
        Expr::List(list) => {
            list.elements.iter().for_each(&mut cover);
            span.end = after_word(&info.source, span.end, "]");
        }
        // The steps of a loop carry the token of its bracket, so the range is what is worth pointing at.
        Expr::Comprehension(comprehension) => cover(&comprehension.iter_range),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) => {}
    }
    span
}

/// The token of one part alone.
pub(super) fn token(id: u64, info: &SourceInfo) -> Range<usize> {
    info.offset_for(id).map_or(0..0, |(first, last)| first as usize..last as usize + 1)
}

/// The text of a part.
pub(super) fn text<'s>(expr: &IdedExpr, info: &'s SourceInfo) -> &'s str {
    info.source.get(span(expr, info)).unwrap_or_default().trim()
}

/// The end of `word`, if nothing but space stands between `from` and it; else `from`.
fn after_word(source: &str, from: usize, word: &str) -> usize {
    let Some(rest) = source.get(from..) else { return from };
    let trimmed = rest.trim_start();
    if trimmed.starts_with(word) { from + (rest.len() - trimmed.len()) + word.len() } else { from }
}

/// Widens the arguments of `name(...)` to the whole call.
fn call_around(source: &str, arguments: Range<usize>, name: &str) -> Range<usize> {
    let end = after_word(source, arguments.end, ")");
    let before = source.get(..arguments.start).unwrap_or_default().trim_end();
    let before = before.strip_suffix('(').unwrap_or(before).trim_end();
    match before.strip_suffix(name) {
        Some(start) => start.len()..end,
        None => arguments.start..end,
    }
}

fn is_operator(function: &str) -> bool {
    operator(function) != function
}

/// How people write what the tree calls `_==_`.
pub(super) fn operator(function: &str) -> &str {
    match function {
        op::CONDITIONAL => "?:",
        op::LOGICAL_AND => "&&",
        op::LOGICAL_OR => "||",
        op::LOGICAL_NOT => "!",
        op::SUBSTRACT | op::NEGATE => "-",
        op::ADD => "+",
        op::MULTIPLY => "*",
        op::DIVIDE => "/",
        op::MODULO => "%",
        op::EQUALS => "==",
        op::NOT_EQUALS => "!=",
        op::GREATER_EQUALS => ">=",
        op::LESS_EQUALS => "<=",
        op::GREATER => ">",
        op::LESS => "<",
        op::INDEX => "[]",
        op::IN => "in",
        "_._" => ".",
        other => other,
    }
}
