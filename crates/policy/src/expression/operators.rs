//! What operators and functions take and give.

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, IdedExpr};
use portcullis_core::diagnostic;

use super::check::{Checker, listed};
use super::reading::Problem;
use super::source::operator;
use super::vocabulary::Type;

/// Functions written `f(x)`.
const FUNCTIONS: [&str; 4] = ["size", "int", "double", "string"];

/// Functions written `x.f(...)`, loops included: those reach us as calls only when their arguments are wrong.
const METHODS: [&str; 9] =
    ["contains", "startsWith", "endsWith", "size", "all", "exists", "exists_one", "map", "filter"];

impl Checker<'_> {
    pub(super) fn operator_or_function(&mut self, call: &CallExpr, expr: &IdedExpr) -> Type {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, sides) => {
                sides.iter().for_each(|side| self.condition(side));
                Type::Bool
            }
            (op::LOGICAL_NOT, [operand]) => {
                self.condition(operand);
                Type::Bool
            }
            (op::CONDITIONAL, [condition, yes, no]) => {
                self.condition(condition);
                let (yes, no) = (self.type_of(yes), self.type_of(no));
                if yes == no { yes } else { Type::Dynamic }
            }
            (op::EQUALS | op::NOT_EQUALS, [left, right]) => self.equality(call, left, right, expr),
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right]) => {
                self.ordering(call, left, right, expr)
            }
            (op::IN, [item, list]) => self.membership(item, list, expr),
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [left, right]) => {
                self.arithmetic(call, left, right, expr)
            }
            (op::NEGATE, [operand]) => {
                let found = self.type_of(operand);
                if found.is_number() || found == Type::Dynamic {
                    return found;
                }
                let message = format!("`-` needs a number, `{}` is {}", self.text(operand), found.words());
                self.report(Problem::new("type_clash", self.span(operand), message))
            }
            (op::INDEX, [list, index]) => self.index(list, index, expr),
            (name, arguments) => self.function(name, arguments, expr),
        }
    }

    fn equality(&mut self, call: &CallExpr, left: &IdedExpr, right: &IdedExpr, expr: &IdedExpr) -> Type {
        let (a, b) = (self.type_of(left), self.type_of(right));
        if let Some((group, side)) =
            [(&a, left), (&b, right)].into_iter().find(|(found, _)| matches!(found, Type::Record(_)))
        {
            let message = format!("`{}` is {}: compare one of its members", self.text(side), group.words());
            self.report(Problem::new("type_clash", self.span(side), message));
        } else if !a.meets(&b) {
            self.clash("compares", call, (left, &a), (right, &b), expr);
        }
        Type::Bool
    }

    fn ordering(&mut self, call: &CallExpr, left: &IdedExpr, right: &IdedExpr, expr: &IdedExpr) -> Type {
        let (a, b) = (self.type_of(left), self.type_of(right));
        for (found, side) in [(&a, left), (&b, right)] {
            if !(found.is_number() || matches!(found, Type::Text | Type::Dynamic)) {
                let sign = operator(&call.func_name);
                let message =
                    format!("`{sign}` needs numbers or texts, `{}` is {}", self.text(side), found.words());
                self.report(Problem::new("type_clash", self.span(side), message));
                return Type::Bool;
            }
        }
        if !a.meets(&b) {
            self.clash("compares", call, (left, &a), (right, &b), expr);
        }
        Type::Bool
    }

    fn membership(&mut self, item: &IdedExpr, list: &IdedExpr, expr: &IdedExpr) -> Type {
        let (wanted, within) = (self.type_of(item), self.type_of(list));
        match &within {
            Type::Dynamic => {}
            Type::List(found) if found.meets(&wanted) => {}
            Type::List(found) => {
                let message =
                    format!("`in` looks for {} among items that are {}", wanted.words(), found.words());
                self.report(Problem::new("type_clash", self.span(expr), message));
            }
            Type::Record(_) if matches!(wanted, Type::Text | Type::Dynamic) => {}
            Type::Record(_) => {
                let message =
                    format!("members are looked for by name, `{}` is {}", self.text(item), wanted.words());
                self.report(Problem::new("type_clash", self.span(item), message));
            }
            Type::Text => {
                let message = format!("`in` looks into a list, `{}` is text", self.text(list));
                let meant = format!("did you mean `{}.contains({})`?", self.text(list), self.text(item));
                self.report(Problem::new("type_clash", self.span(expr), message).label(meant));
            }
            other => {
                let message = format!("`in` looks into a list, `{}` is {}", self.text(list), other.words());
                self.report(Problem::new("type_clash", self.span(list), message));
            }
        }
        Type::Bool
    }

    fn arithmetic(&mut self, call: &CallExpr, left: &IdedExpr, right: &IdedExpr, expr: &IdedExpr) -> Type {
        let (a, b) = (self.type_of(left), self.type_of(right));
        let joins = call.func_name == op::ADD;
        let fraction = [(left, &a), (right, &b)].into_iter().find(|(_, found)| **found == Type::Double);
        if let (op::MODULO, Some((side, _))) = (call.func_name.as_str(), fraction) {
            let message = format!("`%` needs whole numbers, `{}` is none", self.text(side));
            return self.report(Problem::new("type_clash", self.span(side), message));
        }
        match (&a, &b) {
            (Type::Dynamic, other) | (other, Type::Dynamic)
                if other.is_number() || *other == Type::Dynamic || (joins && other.can_be_joined()) =>
            {
                Type::Dynamic
            }
            (Type::Int, Type::Double) | (Type::Double, Type::Int) => {
                let sign = operator(&call.func_name);
                let message = format!("`{sign}` mixes a whole number with a fraction");
                let problem = Problem::new("type_clash", self.span(expr), message);
                self.report(problem.note("write `double(...)` around the whole number"))
            }
            (a, b) if a.is_number() && b.is_number() => {
                if a == b {
                    a.clone()
                } else {
                    Type::Number
                }
            }
            (Type::Text, Type::Text) if joins => Type::Text,
            (Type::List(a), Type::List(b)) if joins && a.meets(b) => {
                Type::List(if a == b { a.clone() } else { Box::new(Type::Dynamic) })
            }
            _ => self.clash("combines", call, (left, &a), (right, &b), expr),
        }
    }

    fn clash(
        &mut self,
        does: &str,
        call: &CallExpr,
        (left, a): (&IdedExpr, &Type),
        (right, b): (&IdedExpr, &Type),
        expr: &IdedExpr,
    ) -> Type {
        let sign = operator(&call.func_name);
        let message = format!("`{sign}` {does} {} with {}", a.words(), b.words());
        let label =
            format!("`{}` is {}, `{}` is {}", self.text(left), a.words(), self.text(right), b.words());
        self.report(Problem::new("type_clash", self.span(expr), message).label(label))
    }

    fn index(&mut self, list: &IdedExpr, index: &IdedExpr, expr: &IdedExpr) -> Type {
        let (within, by) = (self.type_of(list), self.type_of(index));
        match (within, by) {
            (Type::Dynamic, Type::Dynamic | Type::Int | Type::Number | Type::Text) => Type::Dynamic,
            (Type::List(item), Type::Dynamic | Type::Int | Type::Number) => *item,
            (Type::Record(record), Type::Dynamic | Type::Text) if record.others.is_some() => {
                record.others.map_or(Type::Dynamic, super::vocabulary::Member::as_type)
            }
            (Type::Record(_), Type::Dynamic | Type::Text) => {
                let owner = self.text(list);
                let message = format!("`{owner}` has a fixed set of members: write `{owner}.name`");
                self.report(Problem::new("type_clash", self.span(expr), message))
            }
            (within, by) => {
                let message = format!(
                    "`{}` is {} and cannot be indexed by {}",
                    self.text(list),
                    within.words(),
                    by.words()
                );
                self.report(Problem::new("type_clash", self.span(expr), message))
            }
        }
    }

    /// `size(x)`, `int(x)`, `double(x)`, `string(x)`.
    fn function(&mut self, name: &str, arguments: &[IdedExpr], expr: &IdedExpr) -> Type {
        let types: Vec<Type> = arguments.iter().map(|argument| self.type_of(argument)).collect();
        if !FUNCTIONS.contains(&name) {
            return self.unknown_function(name, METHODS.contains(&name), expr);
        }
        let (Some(argument), [found]) = (arguments.first(), types.as_slice()) else {
            return self.wrong_count(name, 1, types.len(), expr);
        };
        let takes = match name {
            "size" => matches!(found, Type::Text | Type::List(_) | Type::Dynamic),
            "int" | "double" => found.is_number() || matches!(found, Type::Text | Type::Dynamic),
            _ => found.is_number() || matches!(found, Type::Text | Type::Bool | Type::Dynamic),
        };
        if !takes {
            let message = format!("`{name}` does not take {}", found.words());
            return self.report(Problem::new("type_clash", self.span(argument), message));
        }
        match name {
            "size" | "int" => Type::Int,
            "double" => Type::Double,
            _ => Type::Text,
        }
    }

    /// `x.contains(y)` and its like.
    pub(super) fn method(&mut self, call: &CallExpr, target: &IdedExpr, expr: &IdedExpr) -> Type {
        let receiver = self.type_of(target);
        let name = call.func_name.as_str();
        let wanted = match name {
            "contains" | "startsWith" | "endsWith" => 1,
            "size" => 0,
            // A loop with the right number of arguments is no call any more.
            "map" | "filter" | "all" | "exists" | "exists_one" => {
                return self.wrong_count(name, 2, call.args.len(), expr);
            }
            _ => {
                for argument in &call.args {
                    self.type_of(argument);
                }
                return self.unknown_function(name, FUNCTIONS.contains(&name), expr);
            }
        };
        let types: Vec<Type> = call.args.iter().map(|argument| self.type_of(argument)).collect();
        if types.len() != wanted {
            return self.wrong_count(name, wanted, types.len(), expr);
        }
        let takes = match name {
            "size" => matches!(receiver, Type::Text | Type::List(_) | Type::Dynamic),
            _ => matches!(receiver, Type::Text | Type::Dynamic),
        };
        if !takes {
            let message = format!("`{}` is {}: it has no `{name}`", self.text(target), receiver.words());
            let problem = Problem::new("type_clash", self.span(expr), message);
            return self.report(match (name, &receiver, call.args.first()) {
                ("contains", Type::List(_), Some(item)) => {
                    let meant = format!("did you mean `{} in {}`?", self.text(item), self.text(target));
                    problem.label(meant)
                }
                _ => problem,
            });
        }
        for (argument, found) in call.args.iter().zip(&types) {
            if !matches!(found, Type::Text | Type::Dynamic) {
                let message = format!("`{name}` needs text, `{}` is {}", self.text(argument), found.words());
                self.report(Problem::new("type_clash", self.span(argument), message));
            }
        }
        if name == "size" { Type::Int } else { Type::Bool }
    }

    fn wrong_count(&mut self, name: &str, wanted: usize, found: usize, expr: &IdedExpr) -> Type {
        let message =
            format!("`{name}` takes {wanted} argument{}, not {found}", if wanted == 1 { "" } else { "s" });
        self.report(Problem::new("wrong_arguments", self.span(expr), message))
    }

    fn unknown_function(&mut self, name: &str, other_form: bool, expr: &IdedExpr) -> Type {
        let problem =
            Problem::new("unknown_function", self.span(expr), format!("there is no function `{name}` here"));
        self.report(match name {
            "matches" => problem.note(
                "there are no regular expressions: use `==`, `in`, `startsWith`, `endsWith` or `contains`",
            ),
            "timestamp" | "duration" | "now" => problem
                .note("times are numbers here: seconds since 1970, as in `request.time` and `claims.exp`"),
            "has" => problem.note("`has` takes one member: `has(claims.acr)`"),
            _ if other_form && METHODS.contains(&name) => {
                problem.label(format!("write it behind the value: `value.{name}(...)`"))
            }
            _ if other_form => problem.label(format!("write it around the value: `{name}(value)`")),
            _ => match diagnostic::nearest(name, METHODS.into_iter().chain(FUNCTIONS)) {
                Some(near) => problem.label(format!("did you mean `{near}`?")),
                None => {
                    let all = METHODS.into_iter().chain(FUNCTIONS.into_iter().skip(1)).chain(["has"]);
                    problem.note(format!("functions here: {}", listed(all)))
                }
            },
        })
    }
}

impl Type {
    /// Whether values of the two types can ever be equal.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dynamic, _) | (_, Self::Dynamic) => true,
            (Self::List(items), Self::List(others)) => items.meets(others),
            (a, b) => a == b || (a.is_number() && b.is_number()),
        }
    }

    const fn can_be_joined(&self) -> bool {
        matches!(self, Self::Text | Self::List(_))
    }
}
