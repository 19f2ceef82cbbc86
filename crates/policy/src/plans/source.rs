//! `plans:` of an API: where it finds the plans of its callers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::json::Value;
use portcullis_core::{Client, Faults, Place, PlanId, PlanSet, Principal, Reason, Rejection, Spanned};

use super::{Plans, unknown};

/// Where an API finds the plans of its callers, as written.
#[derive(Debug)]
pub struct PlanSourceSpec {
    claim: Option<Spanned<String>>,
    client_claim: Option<Spanned<String>>,
    scopes: Vec<ScopeSpec>,
    default: Vec<Spanned<String>>,
    required: bool,
    /// Of the whole.
    pub place: Place,
}

/// A scope and the plans it stands for.
type ScopeSpec = (Spanned<String>, Vec<Spanned<String>>);

/// Where an API finds the plans of its callers.
#[derive(Debug)]
pub struct PlanSource {
    claim: Option<Arc<str>>,
    client_claim: Option<Arc<str>>,
    scopes: Box<[(Arc<str>, PlanSet)]>,
    default: Option<PlanSet>,
    required: bool,
    by_name: HashMap<Arc<str>, PlanSet>,
    clients: Arc<BTreeMap<Arc<str>, Arc<Client>>>,
    disabled: Box<[PlanId]>,
    /// By [`PlanId`].
    names: Box<[Arc<str>]>,
}

impl PlanSourceSpec {
    /// Reads it. An empty mapping takes the plans of clients.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = Fields::of(node, "`plans`", faults)?;
        let (claim, client_claim) = (fields.get("claim"), fields.get("client_claim"));
        let (scopes, default) = (fields.get("scopes"), fields.get("default"));
        let required = fields.get("required");
        fields.finish(faults);
        let claim = claim.map(|node| node.text(faults));
        let client_claim = client_claim.map(|node| node.text(faults));
        let scopes = scopes.map_or_else(|| Some(Vec::new()), |node| read_scopes(node, faults));
        let default = default.map_or_else(|| Some(Vec::new()), |node| one_or_several(node, faults));
        let required = required.map_or(Some(true), |node| node.boolean(faults));
        Some(Self {
            claim: claim.map_or(Some(None), |read| read.map(Some))?,
            client_claim: client_claim.map_or(Some(None), |read| read.map(Some))?,
            scopes: scopes?,
            default: default?,
            required: required?,
            place: node.place,
        })
    }

    /// Whether callers without a credential have a plan.
    pub const fn has_default(&self) -> bool {
        !self.default.is_empty() || !self.required
    }

    /// Resolves the names.
    pub fn compile(
        &self,
        plans: &Plans,
        clients: &Arc<BTreeMap<Arc<str>, Arc<Client>>>,
        faults: &mut Faults,
    ) -> Option<PlanSource> {
        let mut set = |names: &[Spanned<String>]| plans.set(names, faults);
        let scopes: Vec<Option<_>> = self
            .scopes
            .iter()
            .map(|(scope, names)| Some((scope.value.as_str().into(), set(names)?)))
            .collect();
        let default = set(&self.default);
        let text =
            |written: &Option<Spanned<String>>| written.as_ref().map(|text| Arc::from(text.value.as_str()));
        Some(PlanSource {
            claim: text(&self.claim),
            client_claim: text(&self.client_claim),
            scopes: scopes.into_iter().collect::<Option<_>>()?,
            default: Some(default?).filter(|plans| !plans.is_empty()),
            required: self.required,
            by_name: plans.by_name.clone(),
            clients: Arc::clone(clients),
            names: plans.names().map(|(name, _)| Arc::clone(name)).collect(),
            disabled: plans.all().filter(|(_, plan)| plan.disabled).map(|(id, _)| id).collect(),
        })
    }
}

fn read_scopes(node: &Node, faults: &mut Faults) -> Option<Vec<ScopeSpec>> {
    let entries = node.named(faults)?;
    let read: Vec<Option<_>> = entries
        .iter()
        .map(|entry| Some((entry.key.clone(), one_or_several(&entry.value, faults)?)))
        .collect();
    read.into_iter().collect()
}

fn one_or_several(node: &Node, faults: &mut Faults) -> Option<Vec<Spanned<String>>> {
    match &node.content {
        Content::List(_) => node.texts(faults),
        _ => node.text(faults).map(|text| vec![text]),
    }
}

impl Plans {
    /// The set of plans that are written somewhere by name.
    pub fn set(&self, names: &[Spanned<String>], faults: &mut Faults) -> Option<PlanSet> {
        let mut found = Found::default();
        let mut good = true;
        for name in names {
            match self.get(&name.value) {
                Some(plan) => found.add(plan),
                None => {
                    let known = self.names().map(|(name, _)| &**name);
                    let message = format!("there is no plan `{}`", name.value);
                    let fault = unknown("unknown_plan", name, message, known);
                    faults.push(fault.note("plans are defined in plans.yaml"));
                    good = false;
                }
            }
        }
        good.then(|| found.into_set().unwrap_or_default())
    }
}

/// Plans found so far. The set of one source alone is handed on as it is.
#[derive(Default)]
struct Found(Option<PlanSet>);

impl Found {
    fn add(&mut self, more: &PlanSet) {
        self.0 = match self.0.take() {
            None if more.is_empty() => None,
            None => Some(Arc::clone(more)),
            Some(found) if more.iter().all(|plan| found.contains(plan)) => Some(found),
            Some(found) => {
                let new = more.iter().filter(|plan| !found.contains(plan));
                Some(found.iter().chain(new).copied().collect())
            }
        };
    }

    fn into_set(self) -> Option<PlanSet> {
        self.0
    }
}

impl PlanSource {
    /// What plans are called.
    pub fn names<'s>(&'s self, plans: &'s [PlanId]) -> impl Iterator<Item = &'s Arc<str>> {
        plans.iter().filter_map(|PlanId(number)| self.names.get(usize::from(*number)))
    }

    /// The plans of a caller: of the client whose credential it was, of the claim, of the client a claim names, and of
    /// the scopes; the default ones where none of these gives any. `None` if it has none and needs none.
    ///
    /// SECURITY: a token whose scopes name no plan does not have the default one: it was made for something else. Names
    /// that are no plan count for nothing beside others, and alone they are no plan.
    ///
    /// # Errors
    /// [`Reason::PlanMissing`] if it has none, or one that is disabled; [`Reason::ClientInactive`] if the client it is
    /// found by is no longer one; [`Reason::ClientsDiffer`] if a claim names another client than the credential's.
    pub fn plans_of(&self, principal: &Principal, now: i64) -> Result<Option<PlanSet>, Rejection> {
        let mut found = Found::default();
        let mut unknown = None;
        if let Some(client) = principal.client() {
            found.add(&client.plans);
        }
        let token = principal.grant();
        if let Some(value) = self.claim.as_ref().and_then(|path| token.claims.at(path)) {
            // Also where it holds no text at all.
            unknown = Some("the claim names a plan that there is not");
            each_text(value, &mut |name| self.by_name.get(name).into_iter().for_each(|plan| found.add(plan)));
        }
        if let Some(value) = self.client_claim.as_ref().and_then(|path| token.claims.at(path)) {
            let named = match value {
                Value::Text(name) => self.clients.get(&**name),
                _ => None,
            };
            let Some(client) = named else {
                // SECURITY: a client that is registered no more must not have more than it had.
                return Err(
                    Rejection::new(Reason::PlanMissing).because("the token is of no registered client")
                );
            };
            // SECURITY: whoever has shown to be one client must not have the plans of another (CHN-02).
            if principal.client().is_some_and(|own| own.name != client.name) {
                return Err(Rejection::new(Reason::ClientsDiffer)
                    .because("the credential is one client's, and the token names another"));
            }
            if client.expires_at.is_some_and(|end| now >= end) {
                return Err(
                    Rejection::new(Reason::ClientInactive).because("the client of the token has expired")
                );
            }
            found.add(&client.plans);
        }
        if !self.scopes.is_empty() && !token.scopes.is_empty() {
            let before = unknown;
            unknown = before.or(Some("none of the scopes stands for a plan"));
            for (_, plans) in self.scopes.iter().filter(|(scope, _)| token.has_scope(scope)) {
                found.add(plans);
                unknown = before;
            }
        }
        let plans = match (found.into_set(), unknown, &self.default) {
            (Some(plans), ..) => plans,
            (None, Some(why), _) => return Err(Rejection::new(Reason::PlanMissing).because(why)),
            (None, None, Some(default)) => Arc::clone(default),
            (None, None, None) if !self.required => return Ok(None),
            (None, None, None) => {
                return Err(Rejection::new(Reason::PlanMissing).because("nothing gives the caller a plan"));
            }
        };
        // A plan that is disabled ends what its callers may do, whatever other plans they have (B14.3).
        if plans.iter().any(|plan| self.disabled.contains(plan)) {
            return Err(Rejection::new(Reason::PlanMissing).because("a plan of the caller is disabled"));
        }
        Ok(Some(plans))
    }
}

/// Every text in a value: itself, or those of a list, and of lists in it.
fn each_text(value: &Value, take: &mut impl FnMut(&str)) {
    match value {
        Value::Text(text) => take(text),
        Value::List(values) => {
            for value in values.iter() {
                each_text(value, take);
            }
        }
        _ => {}
    }
}
