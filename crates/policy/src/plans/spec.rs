//! `plans.yaml`.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, Place, PlanId, Spanned};

use super::{Plan, PlanRights, Plans, unknown};
use crate::limits::reach::Reach;
use crate::limits::{Callers, OfPlan, PlanLimitSpec, PlanSlots};
use crate::rules::Rules;

/// Most plans there can be.
const MOST: usize = 10_000;
/// Longest name of a plan, in bytes.
const LONGEST_NAME: usize = 32;

/// All plans as written.
#[derive(Debug, Default)]
pub struct PlansSpec {
    plans: Vec<Plan>,
}

/// What a plan gives of one API.
#[derive(Debug)]
pub(super) struct GrantSpec {
    pub(super) api: Spanned<String>,
    /// The rules by name; `None` for all of them.
    rules: Option<Vec<Spanned<String>>>,
    reach: Reach,
    limits: Vec<PlanLimitSpec>,
}

impl PlansSpec {
    /// Reads the `plans:` mapping. SECURITY: a plan with a fault is left out, and the fault stops the load.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let entries = node.named(faults)?;
        if entries.len() > MOST {
            let message = format!("there are at most {MOST} plans, these are {}", entries.len());
            faults.error("too_many", node.place, message);
            return None;
        }
        let numbers = (0..=u16::MAX).map(PlanId);
        let plans =
            entries.iter().zip(numbers).map(|(entry, id)| Plan::read(&entry.key, id, &entry.value, faults));
        let read: Vec<Option<Plan>> = plans.collect();
        Some(Self { plans: read.into_iter().collect::<Option<_>>()? })
    }

    /// Freezes them. Whether there are such APIs is judged here; whether these have such rules, for each of them.
    pub fn compile(self, apis: &[(String, Place)], faults: &mut Faults) -> Plans {
        let known = || apis.iter().map(|(name, _)| name.as_str());
        for grant in self.plans.iter().flat_map(|plan| plan.allow.iter().flatten()) {
            if !known().any(|name| name == grant.api.value) {
                let message = format!("there is no API `{}`", grant.api.value);
                faults.push(unknown("unknown_api", &grant.api, message, known()));
            }
        }
        let by_name = self.plans.iter().zip(0..=u16::MAX);
        let by_name: HashMap<_, _> =
            by_name.map(|(plan, number)| (Arc::clone(&plan.name), Arc::from([PlanId(number)]))).collect();
        Plans { plans: self.plans, by_name }
    }
}

impl Plan {
    fn read(name: &Spanned<String>, id: PlanId, node: &Node, faults: &mut Faults) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good_name = name.value.len() <= LONGEST_NAME && name.value.bytes().all(plain);
        if !good_name {
            let message = format!(
                "a plan's name has at most {LONGEST_NAME} letters, digits, dashes, dots or underscores"
            );
            faults.error("bad_name", name.place, message);
        }
        let of_plan = OfPlan { id, name: name.value.as_str().into(), of_one_api: false };
        let mut fields = Fields::of(node, "a plan", faults)?;
        let (allow, limits, disabled) = (fields.get("allow"), fields.get("limits"), fields.get("disabled"));
        fields.finish(faults);
        let allow = allow.map(|node| read_grants(node, &of_plan, faults));
        let limits = limits.map(|node| PlanLimitSpec::read_all(node, &of_plan, faults));
        let disabled = disabled.map(|node| node.boolean(faults));
        if allow.is_none() && limits.is_none() {
            faults.error("missing_key", node.place, "a plan needs `allow`, `limits` or both");
            return None;
        }
        good_name.then_some(())?;
        Some(Self {
            name: of_plan.name,
            place: name.place,
            disabled: disabled.map_or(Some(false), |read| read)?,
            allow: allow.map_or(Some(None), |read| read.map(Some))?,
            limits: limits.unwrap_or_else(|| Some(Vec::new()))?,
        })
    }
}

fn read_grants(node: &Node, plan: &OfPlan, faults: &mut Faults) -> Option<Vec<GrantSpec>> {
    let entries = node.named(faults)?;
    let plan = OfPlan { of_one_api: true, ..plan.clone() };
    let read: Vec<_> =
        entries.iter().map(|entry| GrantSpec::read(&entry.key, &entry.value, &plan, faults)).collect();
    read.into_iter().collect()
}

impl GrantSpec {
    /// Reads `all`, a list of rules, or a mapping that says more.
    fn read(api: &Spanned<String>, node: &Node, plan: &OfPlan, faults: &mut Faults) -> Option<Self> {
        if !matches!(node.content, Content::Map(_)) {
            let (rules, reach) = (read_rules(node, faults)?, Reach::default());
            return Some(Self { api: api.clone(), rules, reach, limits: Vec::new() });
        }
        let mut fields = Fields::of(node, "what a plan gives of an API", faults)?;
        let (rules, limits) = (fields.get("rules"), fields.get("limits"));
        let (methods, paths) = (fields.get("methods"), fields.get("paths"));
        fields.finish(faults);
        let rules = rules.map_or(Some(None), |node| read_rules(node, faults));
        let limits =
            limits.map_or_else(|| Some(Vec::new()), |node| PlanLimitSpec::read_all(node, plan, faults));
        let reach = Reach::read(methods, paths, faults);
        Some(Self { api: api.clone(), rules: rules?, reach: reach?, limits: limits? })
    }
}

/// The names of rules; the inner `None` is `all`.
#[expect(clippy::option_option, reason = "unreadable, all and some are three things")]
fn read_rules(node: &Node, faults: &mut Faults) -> Option<Option<Vec<Spanned<String>>>> {
    match &node.content {
        Content::List(_) => node.texts(faults).map(Some),
        _ => node.one_of(&[("all", ())], faults).map(|()| None),
    }
}

impl Plans {
    /// What the plans give of an API that takes plans, and how often.
    pub fn of_api(
        &self,
        api: &Spanned<String>,
        rules: &Rules,
        callers: Callers,
        faults: &mut Faults,
    ) -> Option<(PlanRights, PlanSlots)> {
        let (mut rights, mut slots, mut good) = (PlanRights::default(), PlanSlots::default(), true);
        for (id, plan) in self.all() {
            let grant = plan.allow.as_ref().map(|all| all.iter().find(|grant| grant.api.value == api.value));
            let grant = match grant {
                // A plan that gives nothing by itself limits what others give.
                None => None,
                Some(None) => continue,
                Some(Some(grant)) => Some(grant),
            };
            if let Some(grant) = grant {
                match grant.rules_of(rules, api, faults) {
                    Some(named) => rights.add(id, named, grant.reach.clone()),
                    None => good = false,
                }
            }
            let of_api = || grant.into_iter().flat_map(|grant| &grant.limits);
            let of_all = plan.limits.iter();
            let of_all = of_all.filter(|limit| !of_api().any(|other| other.is_about_the_same_as(limit)));
            for limit in of_api().chain(of_all) {
                good &= limit.fits(callers, faults);
                slots.add(limit.clone());
            }
        }
        good.then_some((rights, slots))
    }

    /// Complains of plans that give an API which takes none.
    pub fn refuse_for(&self, api: &Spanned<String>, faults: &mut Faults) {
        let grants = self.plans.iter().flat_map(|plan| plan.allow.iter().flatten());
        for grant in grants.filter(|grant| grant.api.value == api.value) {
            faults.push(
                Diagnostic::error("no_plans", grant.api.place, format!("API `{}` takes no plans", api.value))
                    .related(api.place, "write `plans: {}` there to take those of clients")
                    .note("as it is, whoever its own `allow` lets in may do all of it, whatever their plan"),
            );
        }
    }
}

impl GrantSpec {
    /// The positions of its rules; the inner `None` is all of them.
    #[expect(clippy::option_option, reason = "faulty, all and some are three things")]
    fn rules_of(
        &self,
        rules: &Rules,
        api: &Spanned<String>,
        faults: &mut Faults,
    ) -> Option<Option<Box<[usize]>>> {
        let Some(names) = &self.rules else { return Some(None) };
        let known = || rules.names().map(|name| &**name);
        let position = |name: &Spanned<String>| {
            let found = known().position(|known| *known == *name.value);
            if found.is_none() {
                let message = format!("API `{}` has no rule `{}`", api.value, name.value);
                let fault = unknown("unknown_rule", name, message, known());
                faults.push(fault.related(api.place, "its rules are in this file"));
            }
            found
        };
        let positions: Vec<Option<usize>> = names.iter().map(position).collect();
        positions.into_iter().collect::<Option<Box<[usize]>>>().map(Some)
    }
}
