use portcullis_core::{AuthMethod, Faults, Reason, Scheme};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::template::PathTemplate;
use super::{Rules, RulesSpec};
use crate::fixtures::{Caller, identity, node, plain, said};

fn template(text: &str) -> PathTemplate {
    let mut faults = Faults::default();
    PathTemplate::parse(&plain(text), &mut faults).unwrap_or_else(|| panic!("{text}: {faults:?}"))
}

#[test]
fn templates_match_whole_paths() {
    for (text, path, expected) in [
        ("/accounts", "/accounts", Some("/")),
        ("/accounts", "/accounts/", None),
        ("/accounts", "/accounts/1", None),
        ("/accounts", "/account", None),
        ("/accounts", "/accountss", None),
        ("/accounts", "/Accounts", None),
        ("/accounts", "/x/accounts", None),
        ("/accounts", "accounts", None),
        ("/accounts", "", None),
        ("/accounts/", "/accounts/", Some("/")),
        ("/accounts/", "/accounts", None),
        ("/", "/", Some("/")),
        ("/", "", None),
        ("/", "/a", None),
        ("/accounts/{id}", "/accounts/1", Some("/")),
        ("/accounts/{id}", "/accounts/", None),
        ("/accounts/{id}", "/accounts", None),
        ("/accounts/{id}", "/accounts/1/", None),
        ("/accounts/{id}", "/accounts/1/balances", None),
        ("/accounts/{id}/balances", "/accounts/1/balances", Some("/")),
        ("/accounts/{id}/balances", "/accounts//balances", None),
        ("/accounts/{id}/balances", "/accounts/1/2/balances", None),
        ("/{a}/{b}", "/x/y", Some("/")),
        ("/{a}/{b}", "/x/y/z", None),
        ("/orders/*", "/orders/1", Some("/1")),
        ("/orders/*", "/orders/1/2/3", Some("/1/2/3")),
        ("/orders/*", "/orders/", Some("/")),
        ("/orders/*", "/orders", None),
        ("/orders/*", "/ordersx/1", None),
        ("/open-banking/v3/*", "/open-banking/v3/accounts", Some("/accounts")),
        ("/{tenant}/*", "/t-1/a", Some("/a")),
        ("/{tenant}/*", "//a", None),
        ("/*", "/", Some("/")),
        ("/*", "/a/b", Some("/a/b")),
        ("/*", "", None),
        ("/*", "*", None),
        ("/caf%C3%A9", "/caf%C3%A9", Some("/")),
        ("/caf%C3%A9", "/caf%c3%a9", None),
        ("/a;v=1", "/a;v=1", Some("/")),
        ("/a", "/%61", None),
    ] {
        assert_eq!(template(text).matches(path), expected, "{text} {path}");
    }
}

#[test]
fn templates_that_could_not_mean_what_they_say_are_refused() {
    for (text, column, expected) in [
        ("accounts", 1, "the path `accounts` does not start with `/`"),
        ("*", 1, "the path `*` does not start with `/`"),
        ("https://x/a", 1, "the path `https://x/a` does not start with `/`"),
        ("//a", 2, "a path in normal form has no doubled slash"),
        ("/a//b", 4, "a path in normal form has no doubled slash"),
        ("/a/../b", 4, "a path in normal form has no `..`"),
        ("/a/.", 4, "a path in normal form has no `.`"),
        ("/*/b", 2, "`*` stands for the rest of a path, so only at its end | write `{name}` for one segment"),
        (
            "/a*",
            2,
            "`a*` mixes text with a parameter or `*` | `{name}` and `*` stand for whole segments: matching is never by a part of one",
        ),
        (
            "/a/x{id}",
            4,
            "`x{id}` mixes text with a parameter or `*` | `{name}` and `*` stand for whole segments: matching is never by a part of one",
        ),
        ("/{}", 2, "`{}` is not a name in braces such as `{id}`"),
        ("/{a b}", 2, "`{a b}` is not a name in braces such as `{id}`"),
        ("/{*}", 2, "`{*}` is not a name in braces such as `{id}`"),
        ("/{id}/{id}", 7, "`{id}` stands twice in one path"),
        (
            "/a?b",
            3,
            "`?` cannot stand in a path | other characters are percent-encoded in UTF-8: `é` is `%C3%A9`",
        ),
        (
            "/a b",
            3,
            "` ` cannot stand in a path | other characters are percent-encoded in UTF-8: `é` is `%C3%A9`",
        ),
        (
            "/caf\u{e9}",
            5,
            "`é` cannot stand in a path | other characters are percent-encoded in UTF-8: `é` is `%C3%A9`",
        ),
        (
            "/a/b\\c",
            5,
            "`\\` cannot stand in a path | other characters are percent-encoded in UTF-8: `é` is `%C3%A9`",
        ),
        ("/a/%2Fb", 4, "a path in normal form has no `%2F`"),
        ("/%5C", 2, "a path in normal form has no `%5C`"),
        ("/%00", 2, "a path in normal form has no `%00`"),
        ("/%61b", 2, "a path in normal form has `a`, not `%61`"),
        ("/%2E%2E", 2, "a path in normal form has `.`, not `%2E`"),
        ("/%c3", 2, "`%` is followed by two upper-case hexadecimal digits"),
        ("/%", 2, "`%` is followed by two upper-case hexadecimal digits"),
        ("/%4", 2, "`%` is followed by two upper-case hexadecimal digits"),
    ] {
        let mut faults = Faults::default();
        assert_eq!(PathTemplate::parse(&plain(text), &mut faults), None, "{text}");
        let faults = faults.into_sorted();
        let all: Vec<_> = faults.iter().map(said).collect();
        assert_eq!(all, [expected], "{text}");
        assert_eq!(
            faults.first().and_then(|fault| fault.place).map(|place| place.column),
            Some(column),
            "{text}"
        );
    }
}

#[test]
fn cover_is_told_from_mere_overlap() {
    for (one, other, covers, covered) in [
        ("/a", "/a", true, true),
        ("/a", "/b", false, false),
        ("/a", "/a/", false, false),
        ("/{x}", "/a", true, false),
        ("/{x}", "/{y}", true, true),
        ("/{x}", "/", false, false),
        ("/{x}/b", "/a/{y}", false, false),
        ("/a/*", "/a/b", true, false),
        ("/a/*", "/a/", true, false),
        ("/a/*", "/a", false, false),
        ("/a/*", "/a/{x}/c", true, false),
        ("/a/*", "/{x}/*", false, true),
        ("/*", "/a/*", true, false),
        ("/*", "/", true, false),
        ("/{x}/*", "/a", false, false),
    ] {
        let (one, other) = (template(one), template(other));
        assert_eq!(one.covers(&other), covers, "{one} covers {other}");
        assert_eq!(other.covers(&one), covered, "{other} covers {one}");
        assert_eq!(one.takes_the_same_as(&other), covers && covered);
    }
}

#[test]
fn the_more_specific_template_comes_first() {
    let mut templates: Vec<_> =
        ["/*", "/a/*", "/{x}/b", "/a/{y}", "/a/b", "/a", "/a/{y}/c", "/{x}", "/", "/{x}/*"]
            .map(template)
            .into();
    templates.sort_by(PathTemplate::by_specificity);
    let order: Vec<_> = templates.iter().map(|template| &**template.text()).collect();
    assert_eq!(order, ["/", "/a", "/a/b", "/a/{y}", "/a/{y}/c", "/a/*", "/{x}", "/{x}/b", "/{x}/*", "/*"]);
}

fn any_template() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("{x}"), Just("{y}"), Just("{z}")];
    let end = prop_oneof![4 => Just(""), 1 => Just("/"), 2 => Just("/*")];
    (prop::collection::vec(segment, 0..4), end).prop_filter_map("names once", |(mut segments, end)| {
        let count = segments.len();
        segments.iter_mut().enumerate().for_each(|(at, segment)| {
            if segment.starts_with('{') {
                *segment = ["{p}", "{q}", "{r}", "{s}"][at];
            }
        });
        (count > 0 || !end.is_empty())
            .then(|| segments.iter().map(|s| format!("/{s}")).collect::<String>() + end)
    })
}

fn any_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("c"), Just("aa")];
    (prop::collection::vec(segment, 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if slash || path.is_empty() { path + "/" } else { path }
    })
}

/// The meaning of a template by another road: by the list of segments.
fn means(template: &str, path: &str) -> bool {
    let (wanted, found): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let fits = |(wanted, found): (&&str, &&str)| match *wanted {
        wanted if wanted.starts_with('{') => !found.is_empty(),
        wanted => wanted == *found,
    };
    match wanted.split_last() {
        Some((&"*", before)) => found.len() > before.len() && before.iter().zip(&found).all(fits),
        _ => wanted.len() == found.len() && wanted.iter().zip(&found).all(fits),
    }
}

proptest! {
    #[test]
    fn a_match_is_always_of_the_whole_path(template in any_template(), path in any_path()) {
        let parsed = self::template(&template);
        prop_assert_eq!(parsed.matches(&path).is_some(), means(&template, &path));
        if let (Some(rest), Some(prefix)) = (parsed.matches(&path), template.strip_suffix("/*")) {
            prop_assert!(rest.starts_with('/'));
            prop_assert!(path.ends_with(rest));
            let before = &path[..path.len() - rest.len()];
            prop_assert!(prefix.is_empty() && before.is_empty() || means(prefix, before));
        }
    }

    #[test]
    fn cover_holds_for_every_path(one in any_template(), other in any_template(), path in any_path()) {
        let (one, other) = (template(&one), template(&other));
        let (first, second) = (one.matches(&path).is_some(), other.matches(&path).is_some());
        prop_assert!(!(one.covers(&other) && second && !first));
        if one.covers(&other) {
            prop_assert!(one.takes_the_same_as(&other) || other.by_specificity(&one).is_lt());
        }
    }

    #[test]
    fn any_text_is_a_template_or_a_fault(text in "[/a-c{}*%.0-9A-F é]{0,12}", path in any_path()) {
        let mut faults = Faults::default();
        match PathTemplate::parse(&plain(&text), &mut faults) {
            Some(template) => {
                prop_assert!(!faults.any_error());
                let _ = template.matches(&path);
            }
            None => prop_assert!(faults.any_error()),
        }
    }
}

fn compile(source: &str) -> (Option<Rules>, Vec<String>) {
    let mut faults = Faults::default();
    let rules = RulesSpec::read(&node(source), &mut faults).and_then(|spec| spec.compile(&mut faults));
    (rules, faults.into_sorted().iter().map(said).collect())
}

fn rules(source: &str) -> Rules {
    let (rules, faults) = compile(source);
    assert_eq!(faults, [""; 0], "{source}");
    rules.expect("rules without faults compile")
}

/// The API of `policy-language.md`, with some more.
const BANK: &str = r#"[
    {"name": "status", "methods": ["GET"], "paths": ["/status"]},
    {"name": "read accounts", "methods": ["GET"], "paths": ["/accounts", "/accounts/{id}", "/accounts/{id}/balances"], "scope": "accounts"},
    {"name": "pay", "methods": ["POST"], "paths": ["/payments"], "scope": ["payments", "write"], "any_scope": ["sepa", "swift"], "when": "claims.acr == 'sca'"},
    {"name": "gold reads all", "methods": ["GET", "HEAD"], "group": ["gold", "platinum"]},
    {"name": "operators", "from": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.9"], "paths": ["/ops/*"]},
    {"name": "recorded", "paths": ["/recorded"], "when": "claims.admin"}
]"#;

/// `Ok(rule, template)`, or what the refusal says.
fn verdict(rules: &Rules, caller: &Caller) -> Result<(String, Option<String>), String> {
    match rules.authorize(&caller.facts()) {
        Ok(permit) => Ok((
            rules.rule_name(permit).expect("a rule").to_string(),
            rules.path_template(permit).map(ToString::to_string),
        )),
        Err(rejection) => {
            let detail = rejection.detail().expect("a refusal says why");
            assert_eq!(rejection.scheme().is_some(), rejection.reason() == Reason::ScopeInsufficient);
            let scope = detail.scope.as_ref().map_or(String::new(), |scope| format!(" needs {scope}"));
            Err(format!("{}{scope}: {}", rejection.reason().code(), detail.inner.as_deref().unwrap_or("")))
        }
    }
}

#[test]
fn the_first_rule_that_fits_wins() {
    let rules = rules(BANK);
    let token = Caller::with_token;
    let allowed = |rule: &str, path: Option<&str>| Ok((rule.to_owned(), path.map(str::to_owned)));
    let pay = || token().asking("POST", "/payments").claims(r#"{"acr": "sca"}"#);
    for (caller, expected) in [
        (token().asking("GET", "/status"), allowed("status", Some("/status"))),
        (token().scopes(&["accounts"]), allowed("read accounts", Some("/accounts"))),
        (
            token().asking("GET", "/accounts/1/balances").scopes(&["x", "accounts"]),
            allowed("read accounts", Some("/accounts/{id}/balances")),
        ),
        // A later rule may allow what an earlier one would have for another scope.
        (token().group("gold"), allowed("gold reads all", None)),
        (token().group("gold").scopes(&["accounts"]), allowed("read accounts", Some("/accounts"))),
        (pay().scopes(&["write", "payments", "swift"]), allowed("pay", Some("/payments"))),
        (token().asking("PATCH", "/ops/1/2").from("10.255.0.1"), allowed("operators", Some("/ops/*"))),
        (token().asking("GET", "/ops/1").from("2001:db8:1::1"), allowed("operators", Some("/ops/*"))),
        (token().asking("GET", "/ops/1").from("192.0.2.9"), allowed("operators", Some("/ops/*"))),
        // SECURITY: the same address in another coat is the same address.
        (token().asking("GET", "/ops/1").from("::ffff:10.0.0.1"), allowed("operators", Some("/ops/*"))),
        (
            token().asking("PUT", "/recorded").claims(r#"{"admin": true}"#),
            allowed("recorded", Some("/recorded")),
        ),
    ] {
        assert_eq!(verdict(&rules, &caller), expected);
    }
}

#[test]
fn what_no_rule_allows_is_denied() {
    let rules = rules(BANK);
    let token = Caller::with_token;
    let pay = || token().asking("POST", "/payments");
    for (caller, expected) in [
        (token().asking("GET", "/nothing"), "access_denied: no rule fits"),
        (token().asking("POST", "/status"), "access_denied: no rule fits"),
        (token().asking("HEAD", "/status"), "access_denied: no rule fits"),
        (token().asking("GET", "/status/"), "access_denied: no rule fits"),
        (token().asking("get", "/status"), "access_denied: no rule fits"),
        (token().asking("DELETE", "/accounts").scopes(&["accounts"]), "access_denied: no rule fits"),
        (token().asking("POST", "/x").group("gold"), "access_denied: no rule fits"),
        (token().asking("GET", "/nothing").group("Gold"), "access_denied: no rule fits"),
        (token().asking("GET", "/ops/1"), "access_denied: no rule fits"),
        (token().asking("GET", "/ops/1").from("11.0.0.1"), "access_denied: no rule fits"),
        (token().asking("GET", "/ops/1").from("2001:db9::1"), "access_denied: no rule fits"),
        // CHN-05: whole scopes, case-sensitive, no prefixes.
        (token(), "scope_insufficient needs accounts: rule `read accounts` fits but for its scope"),
        (
            token().scopes(&["account", "accounts:read", "Accounts", "accountss"]),
            "scope_insufficient needs accounts: rule `read accounts` fits but for its scope",
        ),
        (
            pay().claims(r#"{"acr": "sca"}"#).scopes(&["payments", "sepa"]),
            "scope_insufficient needs payments write sepa: rule `pay` fits but for its scope",
        ),
        (
            pay().claims(r#"{"acr": "sca"}"#).scopes(&["payments", "write"]),
            "scope_insufficient needs payments write sepa: rule `pay` fits but for its scope",
        ),
        // More scope would not help whom `when` keeps out, so scope is not what is said.
        (pay().claims(r#"{"acr": "pwd"}"#), "access_denied: no rule fits"),
        (pay(), "access_denied: no rule fits; rule `pay`: `when`: `acr` is missing"),
        (
            pay().scopes(&["payments", "write", "sepa"]),
            "access_denied: no rule fits; rule `pay`: `when`: `acr` is missing",
        ),
        (
            token().asking("PUT", "/recorded").claims(r#"{"admin": "yes"}"#),
            "access_denied: no rule fits; rule `recorded`: `when`: it is neither true nor false",
        ),
    ] {
        assert_eq!(verdict(&rules, &caller), Err(expected.to_owned()));
    }
}

#[test]
fn a_missing_scope_is_challenged_as_bearer() {
    let rejection = rules(BANK).authorize(&Caller::with_token().facts()).expect_err("no scope");
    assert_eq!(rejection.scheme(), Some(Scheme::Bearer));
    assert_eq!(rejection.detail().and_then(|detail| detail.scope.as_deref()), Some("accounts"));
}

#[test]
fn a_caller_without_a_token_has_no_scopes_of_its_own() {
    let caller = Caller::of(identity(AuthMethod::ApiKey, "client:acme", "acme"));
    assert!(verdict(&rules(BANK), &caller).is_err_and(|said| said.starts_with("scope_insufficient")));
}

#[test]
fn faults_of_rules_are_all_named() {
    for (source, expected) in [
        ("[]", vec!["this list must not be empty"]),
        ("{}", vec!["expected a list, found a mapping"]),
        (r#"[{"methods": ["GET"]}]"#, vec!["a rule needs `name`"]),
        (
            r#"[{"name": "a", "scopes": "x"}]"#,
            vec![
                "unknown key `scopes` in a rule | did you mean `scope`? | keys here: name, methods, paths, scope, any_scope, group, from, when",
            ],
        ),
        // Parts that are built later are unknown, never ignored.
        (
            r#"[{"name": "a", "mode": "shadow"}]"#,
            vec![
                "unknown key `mode` in a rule | keys here: name, methods, paths, scope, any_scope, group, from, when",
            ],
        ),
        (
            r#"[{"name": "a", "methods": "get"}]"#,
            vec!["`get` is not a method known here | did you mean `GET`?"],
        ),
        (
            r#"[{"name": "a", "methods": ["PSOT", "FROB"]}]"#,
            vec![
                "`PSOT` is not a method known here | did you mean `POST`?",
                "`FROB` is not a method known here | methods here: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY, PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK, UNLOCK, REPORT, SEARCH, MKCALENDAR",
            ],
        ),
        (r#"[{"name": "a", "methods": "TRACE"}]"#, vec!["`TRACE` is never let through"]),
        (
            r#"[{"name": "a", "methods": ["GET", "GET"]}]"#,
            vec!["`GET` stands twice in this list | `GET` stands here already"],
        ),
        (r#"[{"name": "a", "methods": []}]"#, vec!["this list must not be empty"]),
        (
            r#"[{"name": "a", "paths": ["x", "/a/{i}", "/a/{j}"]}]"#,
            vec![
                "the path `x` does not start with `/`",
                "`/a/{j}` takes the same paths as `/a/{i}` | `/a/{i}` stands here",
            ],
        ),
        (
            r#"[{"name": "a", "scope": "x y"}]"#,
            vec!["`x y` is not one scope | several scopes are a list: [accounts, payments]"],
        ),
        (r#"[{"name": "a", "scope": []}]"#, vec!["this list must not be empty"]),
        (
            r#"[{"name": "a", "any_scope": ["é"]}]"#,
            vec!["`é` is not one scope | a scope is printable ASCII without spaces, quotes and backslashes"],
        ),
        (
            r#"[{"name": "a", "group": 3}]"#,
            vec!["expected text, found a number | put it in quotes if the text is meant"],
        ),
        (
            r#"[{"name": "a", "from": ["10.0.0.0/33", "10.0.0.1/8", "::ffff:10.0.0.1", "lan"]}]"#,
            vec![
                "`10.0.0.0/33` is not an address or a network | write 10.0.0.0/8, 2001:db8::/32, or a single address",
                "`10.0.0.1/8` has bits behind its prefix | did you mean `10.0.0.0/8`?",
                "`::ffff:10.0.0.1` never fits | an IPv4 address that travelled as IPv6 counts as that IPv4 address: write it so",
                "`lan` is not an address or a network | write 10.0.0.0/8, 2001:db8::/32, or a single address",
            ],
        ),
        (
            r#"[{"name": "a", "when": "claims.acr = 1"}, {"name": "b", "when": "nobody"}]"#,
            vec![
                "unexpected `=` | did you mean `==`?",
                "`nobody` is not a variable | variables here: request, identity, claims, certificate, client",
            ],
        ),
        (
            r#"[{"name": "a", "paths": ["/a"]}, {"name": "a", "paths": ["/b"]}]"#,
            vec!["there are two rules `a` | the other one is here"],
        ),
    ] {
        let (rules, faults) = compile(source);
        assert_eq!(faults, expected, "{source}");
        // An unknown key keeps the files from being loaded, not the rules from being judged.
        assert!(rules.is_none() || faults.iter().all(|said| said.starts_with("unknown key")), "{source}");
    }
}

#[test]
fn a_rule_behind_a_wider_one_is_refused() {
    let unreachable = |first: &str, second: &str| {
        let source = format!(r#"[{{"name": "first" {first}}}, {{"name": "second" {second}}}]"#);
        let (_, faults) = compile(&source);
        match faults.as_slice() {
            [] => false,
            [fault] => {
                let expected = "rule `second` can never be reached | rule `first` already takes every request it would take | the first rule that fits wins: put the narrower rule first";
                assert_eq!(fault, expected);
                true
            }
            more => panic!("{more:?}"),
        }
    };
    for (first, second, expected) in [
        ("", "", true),
        ("", r#", "methods": ["GET"], "scope": "a", "when": "claims.x""#, true),
        (r#", "methods": ["GET", "PUT"]"#, r#", "methods": ["PUT"]"#, true),
        (r#", "methods": ["GET"]"#, r#", "methods": ["GET", "PUT"]"#, false),
        (r#", "methods": ["GET"]"#, "", false),
        (r#", "paths": ["/*"]"#, "", true),
        (r#", "paths": ["/a/*"]"#, "", false),
        (r#", "paths": ["/a/*", "/{x}"]"#, r#", "paths": ["/a/b", "/b"]"#, true),
        (r#", "paths": ["/a/*", "/{x}"]"#, r#", "paths": ["/a/b", "/b/c"]"#, false),
        (r#", "scope": "a""#, r#", "scope": ["a", "b"]"#, true),
        (r#", "scope": ["a", "b"]"#, r#", "scope": "a""#, false),
        (r#", "scope": "a""#, "", false),
        (r#", "any_scope": ["a", "b"]"#, r#", "scope": "b""#, true),
        (r#", "any_scope": ["a", "b"]"#, r#", "any_scope": ["b"]"#, true),
        (r#", "any_scope": ["a"]"#, r#", "any_scope": ["a", "b"]"#, false),
        (r#", "any_scope": ["a"]"#, "", false),
        (r#", "group": ["a", "b"]"#, r#", "group": "a""#, true),
        (r#", "group": "a""#, r#", "group": ["a", "b"]"#, false),
        (r#", "group": "a""#, "", false),
        (r#", "from": "10.0.0.0/8""#, r#", "from": ["10.1.0.0/16", "10.2.0.1"]"#, true),
        (r#", "from": "10.0.0.0/8""#, r#", "from": ["10.1.0.0/16", "11.0.0.0/8"]"#, false),
        (r#", "from": "0.0.0.0/0""#, "", false),
        (r#", "when": "claims.x""#, r#", "when": "claims.x", "methods": ["GET"]"#, true),
        (r#", "when": "claims.x""#, r#", "when": "claims.y""#, false),
        (r#", "when": "claims.x""#, "", false),
    ] {
        assert_eq!(unreachable(first, second), expected, "{first} before {second}");
    }
}
