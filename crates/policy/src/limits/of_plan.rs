//! Limits of plans.

use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults, PlanId};
use portcullis_store::LimitId;

use super::count::Count;
use super::key::Per;
use super::reach::Reach;
use super::spec::{Callers, LimitSpec, subjects};

/// What stands for no limit.
const UNLIMITED: &str = "unlimited";
/// Longest name of a limit together with its plan's, in bytes: it stands in header fields.
const LONGEST_NAME: usize = 64;

/// Whose limit it is.
#[derive(Clone, Debug)]
pub(crate) struct OfPlan {
    pub(crate) id: PlanId,
    pub(crate) name: Arc<str>,
    /// Whether it counts for one API alone, and not for all that the plan gives together.
    pub(crate) of_one_api: bool,
}

impl OfPlan {
    /// Its counters. They go on when callers have other plans for a while, and no choice of names makes them those of
    /// another limit: neither APIs nor limits have a `/` in their names.
    pub(super) fn counters(&self, api: &str, limit: &str) -> LimitId {
        let name = format!("plan {}/{limit}", self.name);
        if self.of_one_api { LimitId::new(api, &name) } else { LimitId::shared(&name) }
    }

    /// How the limit is called where it is told of.
    pub(super) fn shown(&self, limit: &str) -> String {
        format!("{}-{limit}", self.name)
    }
}

/// What a plan says about some requests: a limit, or that there is none.
#[derive(Clone, Debug)]
pub(crate) struct PlanLimitSpec {
    pub(super) plan: OfPlan,
    pub(super) is_quota: bool,
    pub(super) per: Vec<Per>,
    pub(super) reach: Reach,
    /// `None` where it says `unlimited`.
    pub(super) limit: Option<LimitSpec>,
}

impl PlanLimitSpec {
    /// Reads a list of them. A plan says one thing about the same requests: of several limits nobody could say which one
    /// another plan's is to be compared with.
    pub(crate) fn read_all(node: &Node, plan: &OfPlan, faults: &mut Faults) -> Option<Vec<Self>> {
        let nodes = node.list(faults)?;
        let mut read: Vec<Self> = Vec::new();
        let mut good = true;
        for node in nodes {
            let Some(limit) = Self::read(node, plan, faults) else {
                good = false;
                continue;
            };
            if read.iter().any(|other| other.is_about_the_same_as(&limit)) {
                let kind = if limit.is_quota { "quotas" } else { "rates" };
                faults.push(
                    Diagnostic::error(
                        "duplicate",
                        node.place,
                        format!("these are two {kind} for the same requests"),
                    )
                    .note("a plan has one; limits that hold whatever the plan are written in the API"),
                );
                good = false;
            }
            // SECURITY: counters go by name, so two of one name would be one counter under two rules.
            if let (Some(name), Some(place)) = (limit.name(), limit.limit.as_ref().map(|limit| limit.place))
                && read.iter().any(|other| other.name() == Some(name))
            {
                faults.push(
                    Diagnostic::error(
                        "duplicate",
                        place,
                        format!("there are two limits `{name}` in this list"),
                    )
                    .note("give one of them another `name`"),
                );
                good = false;
            }
            read.push(limit);
        }
        good.then_some(read)
    }

    fn read(node: &Node, plan: &OfPlan, faults: &mut Faults) -> Option<Self> {
        if is_unlimited(node) {
            return Self::read_unlimited(node, plan, faults);
        }
        let limit = LimitSpec::read(node, faults)?;
        let unfit = [
            (
                limit.own.is_some(),
                "the count of a plan is a number: what callers bring with them belongs to an API",
            ),
            (!limit.groups.is_empty(), "a plan has no groups: write another plan"),
            (limit.shared_as.is_some(), "a plan has counters of its own: `shared_as` belongs to an API"),
            (limit.shadow, "a limit of a plan is enforced: `mode` belongs to an API"),
            (
                limit.count == Count::Failures,
                "who is refused has no plan: `count: failures` belongs to an API",
            ),
            (limit.per.contains(&Per::Api), "a plan counts callers: `per: api` belongs to an API"),
        ];
        let mut good = true;
        for (_, why) in unfit.into_iter().filter(|(is_unfit, _)| *is_unfit) {
            faults.error("not_in_a_plan", node.place, why);
            good = false;
        }
        let shown = plan.shown(&limit.name);
        if shown.len() > LONGEST_NAME {
            let message =
                format!("`{shown}` is too long for the name of a limit: {LONGEST_NAME} bytes at most");
            faults.push(Diagnostic::error("bad_name", limit.place, message).note("give it a shorter `name`"));
            good = false;
        }
        good.then(|| Self {
            plan: plan.clone(),
            is_quota: limit.is_quota(),
            per: limit.per.clone(),
            reach: limit.reach.clone(),
            limit: Some(limit),
        })
    }

    fn read_unlimited(node: &Node, plan: &OfPlan, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "a limit that is none", faults)?;
        let (rate, quota, per) = (fields.get("rate"), fields.get("quota"), fields.get("per"));
        let (methods, paths) = (fields.get("methods"), fields.get("paths"));
        fields.finish(faults);
        if rate.is_some() && quota.is_some() {
            faults.error("one_key", node.place, "a limit has either `rate` or `quota`");
            return None;
        }
        let reach = Reach::read(methods, paths, faults);
        let per = per.map_or(Some(vec![Per::Identity]), |node| subjects(node, faults));
        Some(Self { plan: plan.clone(), is_quota: quota.is_some(), per: per?, reach: reach?, limit: None })
    }

    fn name(&self) -> Option<&str> {
        self.limit.as_ref().map(|limit| limit.name.as_str())
    }

    /// The same for one of the APIs the plan gives.
    pub(crate) fn is_about_the_same_as(&self, other: &Self) -> bool {
        self.is_quota == other.is_quota && self.per == other.per && self.reach == other.reach
    }

    /// Whether the callers of an API have what it counts by.
    pub(crate) fn fits(&self, callers: Callers, faults: &mut Faults) -> bool {
        self.limit.as_ref().is_none_or(|limit| limit.fits(callers, faults))
    }
}

fn is_unlimited(node: &Node) -> bool {
    let Content::Map(entries) = &node.content else { return false };
    entries.iter().any(|entry| {
        matches!(&entry.value.content, Content::Text(text) if text == UNLIMITED)
            && matches!(entry.key.value.as_str(), "rate" | "quota")
    })
}

/// What the plans that give an API say about it, that about the same requests together.
#[derive(Debug, Default)]
pub struct PlanSlots(pub(super) Vec<Vec<PlanLimitSpec>>);

impl PlanSlots {
    pub(crate) fn add(&mut self, limit: PlanLimitSpec) {
        let same = |slot: &&mut Vec<PlanLimitSpec>| {
            slot.first().is_some_and(|first| first.is_about_the_same_as(&limit))
        };
        match self.0.iter_mut().find(same) {
            Some(slot) => slot.push(limit),
            None => self.0.push(vec![limit]),
        }
    }
}
