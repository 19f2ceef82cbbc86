//! Whether a request is allowed: a list of rules, of which the first that fits wins. None fits: denied.

mod methods;
mod reach;
mod spec;
mod tell;
pub(crate) mod template;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_core::{Diagnostic, Faults, Place, Reason, Rejection, Scheme, Spanned};

use crate::Facts;
use crate::expression::Expression;
pub(crate) use methods::MethodSet;
pub use methods::is_known as is_known_method;
use spec::RuleSpec;
pub use spec::RulesSpec;
pub(crate) use spec::{read_methods, read_paths};
pub use tell::{Told, Verdict};
use template::PathTemplate;

/// The compiled rules of one API, in the order written.
#[derive(Debug)]
pub struct Rules {
    rules: Box<[Rule]>,
}

/// One rule. Every condition that is there must hold; one that is absent asks nothing.
#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    place: Place,
    methods: Option<MethodSet>,
    paths: Option<Box<[PathTemplate]>>,
    scope: Box<[Arc<str>]>,
    any_scope: Box<[Arc<str>]>,
    groups: Option<Box<[Arc<str>]>>,
    from: Option<Box<[IpNet]>>,
    when: Option<Expression>,
}

/// Which rule allowed a request, for the log. Only [`Rules::authorize`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permit {
    rule: usize,
    path: Option<usize>,
}

/// What of a rule fits a request.
enum Fit {
    /// All of it.
    Whole { path: Option<usize> },
    /// All but the scope, as far as could be said without evaluating `when`.
    AllButScope,
    /// Not even that.
    Not(Miss),
}

/// What of a request is something else than a rule is about; the first of these that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Its method.
    Method,
    /// Its path.
    Path,
    /// The caller's group.
    Group,
    /// The caller's address.
    Address,
}

impl RulesSpec {
    /// Compiles the rules. Expressions are checked, and so is that every name is unique and every rule can be
    /// reached. SECURITY: rules of which one has a fault are no rules at all, because what is left might allow
    /// what the missing one would have kept to itself.
    pub fn compile(self, faults: &mut Faults) -> Option<Rules> {
        let count = self.rules.len();
        let rules: Vec<Rule> = self.rules.into_iter().filter_map(|rule| compile_rule(rule, faults)).collect();
        let mut good = self.complete && rules.len() == count;
        for (at, rule) in rules.iter().enumerate() {
            let earlier = rules.get(..at).unwrap_or_default();
            if let Some(same) = earlier.iter().find(|earlier| earlier.name == rule.name) {
                faults.push(
                    Diagnostic::error(
                        "duplicate",
                        rule.place,
                        format!("there are two rules `{}`", rule.name),
                    )
                    .related(same.place, "the other one is here"),
                );
                good = false;
            }
            // Whose plans do not give the earlier one come to the later one.
            if let Some(shadow) = earlier.iter().find(|earlier| earlier.takes_all_of(rule)) {
                faults.push(unreachable(rule, shadow));
                good = false;
            }
        }
        good.then(|| Rules { rules: rules.into() })
    }
}

fn unreachable(rule: &Rule, shadow: &Rule) -> Diagnostic {
    let message = format!("rule `{}` can never be reached", rule.name);
    Diagnostic::error("unreachable_rule", rule.place, message)
        .related(shadow.place, format!("rule `{}` already takes every request it would take", shadow.name))
        .note("the first rule that fits wins: put the narrower rule first")
}

fn compile_rule(spec: RuleSpec, faults: &mut Faults) -> Option<Rule> {
    let when = match &spec.when {
        None => None,
        Some(text) => Some(Expression::compile(text, faults)?),
    };
    Some(Rule {
        name: spec.name.value.into(),
        place: spec.name.place,
        methods: spec.methods,
        paths: spec.paths.map(Vec::into_boxed_slice),
        scope: shared(spec.scope),
        any_scope: shared(spec.any_scope),
        groups: spec.group.map(shared),
        from: spec.from.map(Vec::into_boxed_slice),
        when,
    })
}

fn shared(words: Vec<Spanned<String>>) -> Box<[Arc<str>]> {
    words.into_iter().map(|word| word.value.into()).collect()
}

impl Rules {
    /// Finds the first rule that fits.
    ///
    /// # Errors
    /// [`Reason::NotInPlan`] if the caller's plans do not give it; [`Reason::ScopeInsufficient`], naming the scope that would do, if some rule fits in everything but its
    /// scope; otherwise [`Reason::AccessDenied`].
    pub fn authorize(&self, facts: &Facts<'_>) -> Result<Permit, Rejection> {
        let method = MethodSet::of(&facts.head.method);
        for (at, rule) in self.rules.iter().enumerate() {
            if let Fit::Whole { path } = rule.fit(method, facts)
                && rule.when.as_ref().is_none_or(|when| when.holds(facts) == Ok(true))
            {
                // SECURITY: the first rule that fits decides here, too. Were it passed over, a wider one behind it would
                // give what the plan leaves out.
                return if facts.is_given(at) {
                    Ok(Permit { rule: at, path })
                } else {
                    Err(rule.not_in_plan())
                };
            }
        }
        Err(self.refusal(method, facts))
    }

    /// The name of the rule that allowed it.
    pub fn rule_name(&self, permit: Permit) -> Option<&Arc<str>> {
        self.rules.get(permit.rule).map(|rule| &rule.name)
    }

    /// The path template that fitted, if the rule names paths.
    pub fn path_template(&self, permit: Permit) -> Option<&PathTemplate> {
        self.rules.get(permit.rule)?.paths.as_ref()?.get(permit.path?)
    }

    /// The names of all rules, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().map(|rule| &rule.name)
    }

    /// Walks the rules once more to say why none fitted. Kept off the good path, which keeps no notes.
    fn refusal(&self, method: MethodSet, facts: &Facts<'_>) -> Rejection {
        let mut undecided = None;
        for rule in &self.rules {
            let fit = rule.fit(method, facts);
            if matches!(fit, Fit::Not(_)) {
                continue;
            }
            match rule.when.as_ref().map_or(Ok(true), |when| when.holds(facts)) {
                Ok(true) if matches!(fit, Fit::AllButScope) => return rule.scope_refusal(),
                Ok(_) => {}
                Err(why) => {
                    undecided.get_or_insert_with(|| format!("; rule `{}`: `when`: {why}", rule.name));
                }
            }
        }
        let undecided = undecided.unwrap_or_default();
        Rejection::new(Reason::AccessDenied).because(format!("no rule fits{undecided}"))
    }
}

impl Rule {
    /// Judges everything but `when`, the cheapest first.
    fn fit(&self, method: MethodSet, facts: &Facts<'_>) -> Fit {
        if self.methods.is_some_and(|methods| !methods.meets(method)) {
            return Fit::Not(Miss::Method);
        }
        let path = match &self.paths {
            None => None,
            Some(paths) => {
                let fitting = paths.iter().position(|path| path.matches(facts.path_in_api).is_some());
                if fitting.is_none() {
                    return Fit::Not(Miss::Path);
                }
                fitting
            }
        };
        if !self.takes_group(facts.principal.group.as_deref()) {
            return Fit::Not(Miss::Group);
        }
        if !self.takes_address(facts.address) {
            return Fit::Not(Miss::Address);
        }
        if self.scope.is_empty() && self.any_scope.is_empty() {
            return Fit::Whole { path };
        }
        let grant = facts.grant();
        let all = self.scope.iter().all(|scope| grant.has_scope(scope));
        let any = self.any_scope.is_empty() || self.any_scope.iter().any(|scope| grant.has_scope(scope));
        if all && any { Fit::Whole { path } } else { Fit::AllButScope }
    }

    fn takes_group(&self, group: Option<&str>) -> bool {
        match (&self.groups, group) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(groups), Some(group)) => groups.iter().any(|wanted| **wanted == *group),
        }
    }

    fn takes_address(&self, address: IpAddr) -> bool {
        match &self.from {
            None => true,
            // SECURITY: canonical, so that `::ffff:10.0.0.1` cannot be both inside and outside of 10.0.0.0/8.
            Some(networks) => {
                let address = address.to_canonical();
                networks.iter().any(|network| network.contains(&address))
            }
        }
    }

    /// Names scopes that would do: all of `scope`, and of `any_scope` the first.
    fn needed_scope(&self) -> String {
        let mut needed: Vec<&str> = self.scope.iter().map(|scope| &**scope).collect();
        needed.extend(
            self.any_scope
                .first()
                .map(|scope| &**scope)
                .filter(|any| !self.scope.iter().any(|scope| **scope == **any)),
        );
        needed.join(" ")
    }

    fn not_in_plan(&self) -> Rejection {
        let why = format!("rule `{}` is in no plan of the caller", self.name);
        Rejection::new(Reason::NotInPlan).because(why)
    }

    fn scope_refusal(&self) -> Rejection {
        Rejection::new(Reason::ScopeInsufficient)
            .of(Scheme::Bearer)
            .needing_scope(self.needed_scope())
            .because(format!("rule `{}` fits but for its scope", self.name))
    }
}
