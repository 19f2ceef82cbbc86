//! What follows from plans, as tables (B9.7, B9.8, B14.3 of the features).

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::{Client, Faults, PlanSet, Reason, Spanned};
use portcullis_store::Store;

use super::{Granted, PlanRights, PlanSource, PlanSourceSpec, Plans, PlansSpec};
use crate::fixtures::{Caller, NOON, json, node, plain, said};
use crate::limits::{AlertHook, Callers, CheckedLimits, LimitFacts, Limits, Reserved};
use crate::rules::{Rules, RulesSpec};

const CALLERS: Callers = Callers { anonymous: false, tokens: true, groups: true };

const RULES: &str = r#"[
    {"name": "read", "methods": ["GET"], "paths": ["/accounts", "/accounts/{id}"]},
    {"name": "write", "methods": ["POST", "DELETE"], "paths": ["/accounts", "/accounts/{id}"], "scope": "write"},
    {"name": "everything", "paths": ["/*"], "when": "identity.subject != 'nobody'"},
    {"name": "reports", "paths": ["/reports/*"]}
]"#;

/// One API, `bank`, with plans.
struct House {
    plans: Plans,
    rules: Rules,
    rights: PlanRights,
    limits: Limits,
    store: Store,
}

fn build(plans: &str) -> Result<House, Vec<String>> {
    let mut faults = Faults::default();
    let house = try_build(plans, &mut faults);
    let faults = faults.into_sorted();
    match house {
        Some(house) if faults.is_empty() => Ok(house),
        _ => Err(faults.iter().map(said).collect()),
    }
}

fn try_build(plans: &str, faults: &mut Faults) -> Option<House> {
    let apis = ["bank", "shop"].map(|name| (name.to_owned(), plain(name).place));
    let plans = PlansSpec::read(&node(plans), faults)?.compile(&apis, faults);
    let rules = RulesSpec::read(&node(RULES), faults)?.compile(faults)?;
    let (rights, slots) = plans.of_api(&plain("bank"), &rules, CALLERS, faults)?;
    let checked = CheckedLimits::default().with(slots, plain("bank").place, faults)?;
    let store = Store::in_memory().expect("a store");
    let limits = checked.open("bank", &store, &AlertHook::default());
    Some(House { plans, rules, rights, limits, store })
}

fn house(plans: &str) -> House {
    build(plans).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

impl House {
    fn set(&self, names: &[&str]) -> PlanSet {
        let names: Vec<Spanned<String>> = names.iter().map(|name| plain(name)).collect();
        self.plans.set(&names, &mut Faults::default()).expect("plans")
    }

    /// The rule that allows it, or why none does.
    fn decides(&self, caller: &Caller, plans: &[&str]) -> Result<String, Reason> {
        let plans = self.set(plans);
        let granted = Some(Granted { rights: &self.rights, plans: &plans });
        let permit = self.rules.authorize(&crate::Facts { granted, ..caller.facts() });
        permit
            .map(|permit| self.rules.rule_name(permit).expect("a rule").to_string())
            .map_err(|rejection| rejection.reason())
    }

    fn admit(&self, caller: &Caller, plans: &[&str]) -> Result<String, Reason> {
        let plans = self.set(plans);
        let facts = LimitFacts {
            principal: Some(&caller.principal),
            method: &caller.head.method,
            path_in_api: &caller.path_in_api,
            address: Some(caller.address),
            plans: Some(&plans),
            now: NOON,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let admission = runtime
            .block_on(self.limits.admit(&facts, &mut Reserved::default()))
            .map_err(|rejection| rejection.reason())?;
        let mut headers = http::HeaderMap::new();
        self.limits.write_fields(&admission, http::StatusCode::OK, &mut headers);
        let policy = headers.get("ratelimit-policy").map(|policy| policy.to_str().expect("text").to_owned());
        Ok(policy.unwrap_or_default())
    }

    /// What a caller of that name is promised.
    fn promises(&self, name: &str, plans: &[&str]) -> String {
        self.admit(&known(name), plans).expect("admitted")
    }
}

fn known(name: &str) -> Caller {
    let mut caller = Caller::with_token();
    caller.principal.key = name.into();
    caller
}

/// B14.3: what any of the plans gives is given, rule by rule, method by method and path by path.
#[test]
fn rights_of_plans_are_united() {
    let house = house(
        r#"{
            "all": {"allow": {"bank": "all"}},
            "elsewhere": {"allow": {"shop": "all"}},
            "limited": {"limits": [{"rate": "9 per second"}]},
            "one-account": {"allow": {"bank": {"rules": "all", "paths": ["/accounts/1"]}}},
            "poster": {"allow": {"bank": {"rules": ["write", "reports"], "methods": ["POST"]}}},
            "reader": {"allow": {"bank": ["read"]}}
        }"#,
    );
    let get = |path: &str| Caller::with_token().asking("GET", path);
    let write = |method: &str, path: &str| Caller::with_token().asking(method, path).scopes(&["write"]);
    let nobody = |method: &str, path: &str| {
        let mut caller = Caller::with_token().asking(method, path);
        Arc::make_mut(&mut caller.principal.identity).subject = "nobody".into();
        caller
    };
    let denied = |reason: Reason| Err(reason);
    for (caller, plans, expected) in [
        (get("/accounts"), &["reader"][..], Ok("read")),
        (get("/accounts"), &["all"], Ok("read")),
        (get("/accounts"), &["elsewhere"], denied(Reason::NotInPlan)),
        (get("/accounts"), &["limited"], denied(Reason::NotInPlan)),
        (get("/accounts"), &[], denied(Reason::NotInPlan)),
        (get("/accounts"), &["elsewhere", "reader"], Ok("read")),
        (get("/accounts/1"), &["one-account"], Ok("read")),
        (get("/accounts/2"), &["one-account"], denied(Reason::NotInPlan)),
        (get("/accounts/2"), &["one-account", "reader"], Ok("read")),
        (write("POST", "/accounts/2"), &["one-account", "reader"], denied(Reason::NotInPlan)),
        (write("POST", "/accounts/2"), &["poster"], Ok("write")),
        (write("DELETE", "/accounts/2"), &["poster"], denied(Reason::NotInPlan)),
        (write("DELETE", "/accounts/1"), &["poster", "one-account"], Ok("write")),
        // What a rule asks for beside the plan is still asked for, and the first rule that fits decides.
        (Caller::with_token().asking("POST", "/accounts"), &["poster"], denied(Reason::NotInPlan)),
        (Caller::with_token().asking("POST", "/accounts"), &["all"], Ok("everything")),
        (Caller::with_token().asking("POST", "/reports/1"), &["poster"], denied(Reason::NotInPlan)),
        (Caller::with_token().asking("POST", "/reports/1"), &["all"], Ok("everything")),
        (nobody("POST", "/reports/1"), &["poster"], Ok("reports")),
        (nobody("GET", "/reports/1"), &["poster"], denied(Reason::NotInPlan)),
        (nobody("POST", "/accounts"), &["poster"], denied(Reason::ScopeInsufficient)),
        (nobody("PUT", "/elsewhere"), &["all"], denied(Reason::AccessDenied)),
    ] {
        let said = house.decides(&caller, plans);
        assert_eq!(
            said.as_deref(),
            expected.as_ref().map(|rule| *rule),
            "{plans:?} {} {}",
            caller.head.method,
            caller.path_in_api
        );
    }
}

/// B14.3: of what several plans say about the same thing, the one that gives most holds.
#[test]
fn of_several_limits_the_one_that_gives_most_holds() {
    let plan = |limits: &str| match limits {
        "" => r#"{"allow": {"bank": "all"}}"#.to_owned(),
        limits => format!(r#"{{"allow": {{"bank": "all"}}, "limits": {limits}}}"#),
    };
    for (a, b, expected) in [
        // Rates: the shorter time between two requests.
        (
            r#"[{"rate": "10 per second"}]"#,
            r#"[{"rate": "20 per second"}]"#,
            r#""b-identity-rate-second";q=20;w=1"#,
        ),
        (
            r#"[{"rate": "20 per second"}]"#,
            r#"[{"rate": "10 per second"}]"#,
            r#""a-identity-rate-second";q=20;w=1"#,
        ),
        (
            r#"[{"rate": "10 per second"}]"#,
            r#"[{"rate": "599 per minute"}]"#,
            r#""a-identity-rate-second";q=10;w=1"#,
        ),
        (
            r#"[{"rate": "10 per second"}]"#,
            r#"[{"rate": "601 per minute"}]"#,
            r#""b-identity-rate-minute";q=601;w=60"#,
        ),
        (
            r#"[{"rate": "1000 per day"}]"#,
            r#"[{"rate": "1 per minute"}]"#,
            r#""b-identity-rate-minute";q=1;w=60"#,
        ),
        // At the same pace the first stays, except where it is about an endpoint: there the higher count wins.
        (
            r#"[{"rate": "10 per second"}]"#,
            r#"[{"rate": "600 per minute"}]"#,
            r#""a-identity-rate-second";q=10;w=1"#,
        ),
        (
            r#"[{"rate": "600 per minute"}]"#,
            r#"[{"rate": "10 per second"}]"#,
            r#""a-identity-rate-minute";q=600;w=60"#,
        ),
        (
            r#"[{"rate": "10 per second", "methods": ["GET"]}]"#,
            r#"[{"rate": "600 per minute", "methods": ["GET"]}]"#,
            r#""b-identity-rate-minute";q=600;w=60"#,
        ),
        (
            r#"[{"rate": "600 per minute", "paths": ["/*"]}]"#,
            r#"[{"rate": "10 per second", "paths": ["/*"]}]"#,
            r#""a-identity-rate-minute";q=600;w=60"#,
        ),
        // Quotas: the larger one; of equal ones that of the longer time.
        (
            r#"[{"quota": "10 per day"}]"#,
            r#"[{"quota": "20 per day"}]"#,
            r#""b-identity-quota-day";q=20;w=86400"#,
        ),
        (
            r#"[{"quota": "20 per hour"}]"#,
            r#"[{"quota": "10 per hour"}]"#,
            r#""a-identity-quota-hour";q=20;w=3600"#,
        ),
        (
            r#"[{"quota": "10 per hour"}]"#,
            r#"[{"quota": "10 per day"}]"#,
            r#""b-identity-quota-day";q=10;w=86400"#,
        ),
        (
            r#"[{"quota": "10 per day"}]"#,
            r#"[{"quota": "10 per hour"}]"#,
            r#""a-identity-quota-day";q=10;w=86400"#,
        ),
        // Unlimited beats everything, and what a plan does not say it leaves to others.
        (r#"[{"quota": "unlimited"}]"#, r#"[{"quota": "20 per day"}]"#, ""),
        (r#"[{"quota": "20 per day"}]"#, r#"[{"quota": "unlimited"}]"#, ""),
        (
            r#"[{"rate": "unlimited"}]"#,
            r#"[{"quota": "20 per day"}]"#,
            r#""b-identity-quota-day";q=20;w=86400"#,
        ),
        ("", r#"[{"quota": "20 per day"}]"#, r#""b-identity-quota-day";q=20;w=86400"#),
        (
            r#"[{"quota": "20 per day"}, {"rate": "5 per second"}]"#,
            r#"[{"quota": "10 per day"}, {"rate": "6 per second"}]"#,
            r#""b-identity-rate-second";q=6;w=1, "a-identity-quota-day";q=20;w=86400"#,
        ),
        // What is not about the same holds side by side.
        (
            r#"[{"rate": "5 per second", "methods": ["GET"]}]"#,
            r#"[{"rate": "6 per second"}]"#,
            r#""a-identity-rate-second";q=5;w=1, "b-identity-rate-second";q=6;w=1"#,
        ),
    ] {
        let house = house(&format!(r#"{{"a": {}, "b": {}}}"#, plan(a), plan(b)));
        assert_eq!(house.promises("alice", &["a", "b"]), expected, "{a} and {b}");
        // Of equal ones the plan that was found first counts; everything else does not depend on it.
        if !expected.contains("rate-second\";q=10;w=1") && !a.contains("600 per minute\"}") {
            assert_eq!(house.promises("bob", &["b", "a"]), expected, "{b} and {a}");
        }
    }
}

/// B14.3: an API's own limit of a plan counts for that API alone and takes the place of the plan's; a limit of a plan
/// counts for all APIs together; one plan's counters are never another's.
#[test]
fn what_is_counted_together_follows_from_where_it_is_written() {
    let plans = r#"{
        "a": {"allow": {"bank": "all", "shop": "all"}, "limits": [{"quota": "3 per day"}]},
        "b": {"allow": {"bank": {"rules": "all", "limits": [{"quota": "2 per day"}]}}, "limits": [{"quota": "9 per day"}]},
        "add-on": {"limits": [{"quota": "4 per day"}]}
    }"#;
    let bank = house(plans);
    let mut faults = Faults::default();
    let (_, slots) = bank.plans.of_api(&plain("shop"), &bank.rules, CALLERS, &mut faults).expect("plans");
    let shop = CheckedLimits::default().with(slots, plain("shop").place, &mut faults).expect("limits");
    let shop = House { limits: shop.open("shop", &bank.store, &AlertHook::default()), ..house(plans) };
    let alice = known("alice");
    let spent =
        |house: &House, plans: &[&str]| (0..20).take_while(|_| house.admit(&alice, plans).is_ok()).count();
    assert!(shop.admit(&alice, &["a"]).is_ok());
    assert_eq!(spent(&bank, &["a"]), 2, "one of three was spent in the shop");
    assert_eq!(bank.admit(&alice, &["a"]), Err(Reason::QuotaExhausted));
    assert_eq!(spent(&bank, &["b"]), 2, "the limit of the API, and not the plan's");
    // The plan of an API that is not given says nothing about it; one that gives nothing is about what others give.
    assert_eq!(spent(&shop, &["b"]), 20);
    assert_eq!(spent(&shop, &["a", "add-on"]), 4);
    assert!(bank.admit(&known("bob"), &["a"]).is_ok());
}

fn source(house: &House, written: &str) -> PlanSource {
    let client = |name: &str, plans: &[&str], expires_at| {
        let (name, plans): (Arc<str>, _) = (name.into(), house.set(plans));
        (name.clone(), Arc::new(Client { name, attributes: json("{}"), plans, expires_at }))
    };
    let clients: BTreeMap<_, _> = [
        client("acme", &["silver"], None),
        client("ended", &["gold"], Some(1)),
        client("planless", &[], None),
    ]
    .into();
    let mut faults = Faults::default();
    let source = PlanSourceSpec::read(&node(written), &mut faults)
        .and_then(|spec| spec.compile(&house.plans, &Arc::new(clients), &mut faults));
    assert!(!faults.any_error(), "{:?}", faults.into_sorted());
    source.expect("a source")
}

/// B9.7, B9.8: where plans come from, and in which order.
#[test]
fn a_caller_has_the_plans_that_credential_claim_and_scopes_say() {
    let house = house(
        r#"{"free": {"allow": {"bank": "all"}}, "gold": {"allow": {"bank": "all"}},
            "off": {"allow": {"bank": "all"}, "disabled": true}, "silver": {"allow": {"bank": "all"}}}"#,
    );
    let token = || Caller::with_token();
    let claims = |claims: &str| token().claims(claims);
    let client = |mut caller: Caller, name: &str, plans: &[&str]| {
        let client =
            Client { name: name.into(), attributes: json("{}"), plans: house.set(plans), expires_at: None };
        Arc::make_mut(&mut caller.principal.identity).client = Some(Arc::new(client));
        caller
    };
    let missing = || Err(Reason::PlanMissing);
    let of = |plans: &[&str]| Ok(Some(house.set(plans)));
    let every = r#"{"claim": "a.pol", "client_claim": "azp", "scopes": {"admin": "gold", "dev": ["free", "silver"]}, "default": "free"}"#;
    for (written, caller, expected) in [
        ("{}", token(), missing()),
        (r#"{"required": false}"#, token(), Ok(None)),
        (r#"{"default": "free"}"#, token(), of(&["free"])),
        (r#"{"default": ["free", "gold"]}"#, token(), of(&["free", "gold"])),
        (r#"{"default": "off"}"#, token(), missing()),
        ("{}", client(token(), "acme", &["gold"]), of(&["gold"])),
        (r#"{"default": "free"}"#, client(token(), "acme", &["gold", "silver"]), of(&["gold", "silver"])),
        (r#"{"default": "free"}"#, client(token(), "planless", &[]), of(&["free"])),
        ("{}", client(token(), "acme", &["gold", "off"]), missing()),
        // The claim: a text, a list, lists in lists; a text is one name.
        (every, claims(r#"{"a": {"pol": "gold"}}"#), of(&["gold"])),
        (every, claims(r#"{"a.pol": "gold"}"#), of(&["gold"])),
        (every, claims(r#"{"a": {"pol": ["gold", "silver"]}}"#), of(&["gold", "silver"])),
        (every, claims(r#"{"a": {"pol": ["gold", ["silver", "gold"]]}}"#), of(&["gold", "silver"])),
        (every, claims(r#"{"a": {"pol": "gold silver"}}"#), missing()),
        (every, claims(r#"{"a": {"pol": 7}}"#), missing()),
        (every, claims(r#"{"a": {"pol": "platinum"}}"#), missing()),
        (every, claims(r#"{"a": {"pol": ["platinum", "gold"]}}"#), of(&["gold"])),
        (every, claims(r#"{"a": {"pol": ["gold", "off"]}}"#), missing()),
        (r#"{"required": false, "claim": "pol"}"#, claims(r#"{"pol": "platinum"}"#), missing()),
        // The client a claim names.
        (every, claims(r#"{"azp": "acme"}"#), of(&["silver"])),
        (every, claims(r#"{"azp": "nobody"}"#), missing()),
        (every, claims(r#"{"azp": ["acme"]}"#), missing()),
        (every, client(claims(r#"{"azp": "acme"}"#), "globex", &["gold"]), Err(Reason::ClientsDiffer)),
        (every, claims(r#"{"azp": "planless"}"#), of(&["free"])),
        (every, claims(r#"{"azp": "ended"}"#), Err(Reason::ClientInactive)),
        // Scopes: each that stands for a plan; others beside it are no matter, others alone are no plan.
        (every, token().scopes(&["admin"]), of(&["gold"])),
        (every, token().scopes(&["dev", "admin", "openid"]), of(&["gold", "free", "silver"])),
        (every, token().scopes(&["openid"]), missing()),
        (every, claims(r#"{"a": {"pol": "silver"}}"#).scopes(&["admin"]), of(&["silver", "gold"])),
        (every, claims(r#"{"a": {"pol": "silver"}}"#).scopes(&["openid"]), of(&["silver"])),
        (every, claims(r#"{"a": {"pol": "platinum"}}"#).scopes(&["admin"]), of(&["gold"])),
        // All of them together, each plan once.
        (
            every,
            client(claims(r#"{"a": {"pol": "free"}, "azp": "acme"}"#).scopes(&["admin"]), "acme", &["gold"]),
            of(&["gold", "free", "silver"]),
        ),
    ] {
        let said = source(&house, written).plans_of(&caller.principal, NOON.unix_seconds());
        assert_eq!(
            said.map_err(|rejection| rejection.reason()),
            expected,
            "{written} {:?}",
            caller.principal.identity.claims
        );
    }
}

#[test]
fn faults_of_plans_are_told_with_what_was_meant() {
    let eight: Vec<String> = (1..=9)
        .map(|n| format!(r#"{{"rate": "{n} per second", "paths": ["/{n}"], "name": "n{n}"}}"#))
        .collect();
    let too_many = format!(r#"{{"a": {{"allow": {{"bank": "all"}}, "limits": [{}]}}}}"#, eight.join(","));
    let limited = |limit: &str| format!(r#"{{"a": {{"limits": [{limit}]}}}}"#);
    for (plans, expected) in [
        (r#"{"a": {"allow": {"bnak": "all"}}}"#.to_owned(), "there is no API `bnak`"),
        (r#"{"a": {"allow": {"bank": ["raed"]}}}"#.to_owned(), "API `bank` has no rule `raed`"),
        (r#"{"a": {"allow": {"bank": "some"}}}"#.to_owned(), "`some` is not one of the words here"),
        (r#"{"a": {"allow": {"bank": {"rule": "all"}}}}"#.to_owned(), "unknown key `rule`"),
        (r#"{"a": {"allow": {"bank": {"methods": ["GTE"]}}}}"#.to_owned(), "`GTE`"),
        (r#"{"a": {}}"#.to_owned(), "a plan needs `allow`, `limits` or both"),
        (r#"{"a": {"limit": []}}"#.to_owned(), "unknown key `limit`"),
        (r#"{"a b": {"allow": {"bank": "all"}}}"#.to_owned(), "a plan's name"),
        (limited(r#"{"rate": "-5 per second"}"#), "`-5` is not a whole number"),
        (limited(r#"{"rate": "99999999999 per second"}"#), "larger than"),
        (limited(r#"{"quota": "0 per day"}"#), "a count of zero refuses every request"),
        (limited(r#"{"quota": "unlimited", "rate": "unlimited"}"#), "either `rate` or `quota`"),
        (limited(r#"{"quota": "unlimited", "burst": 5}"#), "unknown key `burst`"),
        (
            limited(r#"{"rate": "claims.rpm per minute, at most 10, else 5"}"#),
            "the count of a plan is a number",
        ),
        (limited(r#"{"rate": "5 per second", "groups": {"a": "6 per second"}}"#), "a plan has no groups"),
        (limited(r#"{"rate": "5 per second", "shared_as": "x"}"#), "counters of its own"),
        (limited(r#"{"rate": "5 per second", "mode": "shadow"}"#), "is enforced"),
        (
            limited(r#"{"rate": "5 per second", "per": "address", "count": "failures"}"#),
            "who is refused has no plan",
        ),
        (limited(r#"{"rate": "5 per second", "per": "api"}"#), "a plan counts callers"),
        (
            limited(r#"{"rate": "5 per second"}, {"rate": "50 per minute"}"#),
            "two rates for the same requests",
        ),
        (
            limited(r#"{"rate": "9 per second"}, {"rate": "5 per second", "methods": ["POST"]}"#),
            "there are two limits `identity-rate-second`",
        ),
        (too_many, "at most 8 limits"),
    ] {
        let faults = build(&plans).err().unwrap_or_default();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{plans}: {expected} in {faults:?}");
    }
    // An API that takes no plans is not opened by one.
    let mut faults = Faults::default();
    house(r#"{"a": {"allow": {"bank": "all"}}}"#).plans.refuse_for(&plain("bank"), &mut faults);
    let [fault] = faults.into_sorted().try_into().expect("one fault");
    assert!(fault.message.contains("takes no plans"), "{fault:?}");
}
