use portcullis_core::{AuthMethod, Faults};
use proptest::prelude::{
    ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_assert_ne, prop_oneof, proptest,
};

use super::Expression;
use crate::fixtures::{Caller, identity, plain, said};

/// Everything said about an expression: `column+length message | what is said beside it`.
fn complaints(source: &str) -> String {
    let mut faults = Faults::default();
    let compiled = Expression::compile(&plain(source), &mut faults);
    let faults = faults.into_sorted();
    assert_eq!(compiled.is_none(), !faults.is_empty(), "{source}");
    let all: Vec<String> = faults
        .iter()
        .map(|fault| {
            let place = fault.place.expect("every fault has a place");
            format!("{}+{} {}", place.column, place.length, said(fault))
        })
        .collect();
    all.join(" // ")
}

#[test]
fn what_could_never_be_true_or_decided_is_refused_with_its_place() {
    for (source, expected) in BAD {
        assert_eq!(&complaints(source), expected, "{source}");
    }
}

const BAD: &[(&str, &str)] = &[
    ("claim.acr == 'x'", "1+5 `claim` is not a variable | did you mean `claims`?"),
    (
        "nobody == 'x'",
        "1+6 `nobody` is not a variable | variables here: request, identity, claims, certificate, client",
    ),
    ("request.methd == 'GET'", "1+13 `request` has no member `methd` | did you mean `request.method`?"),
    (
        "request.body == ''",
        "1+12 `request` has no member `body` | members of `request`: method, path, host, headers, time",
    ),
    ("identity.keyid == 'a'", "1+14 `identity` has no member `keyid` | did you mean `identity.key_id`?"),
    (
        "identity.key_id == 1",
        "1+20 `==` compares text with a number | `identity.key_id` is text, `1` is a number",
    ),
    ("identity.scope == 'a'", "1+14 `identity` has no member `scope` | did you mean `identity.scopes`?"),
    (
        "certificate.subject.cnn == 'a'",
        "1+23 `certificate.subject` has no member `cnn` | did you mean `certificate.subject.cn`?",
    ),
    (
        "certificate.subject == 'a'",
        "1+19 `certificate.subject` is a group of values: compare one of its members",
    ),
    ("claims == 'a'", "1+6 `claims` is a group of values: compare one of its members"),
    (
        "claims.exp > 'now'",
        "1+18 `>` compares a number with text | `claims.exp` is a number, `'now'` is text",
    ),
    (
        "claims.exp == 'now'",
        "1+19 `==` compares a number with text | `claims.exp` is a number, `'now'` is text",
    ),
    (
        "request.time < claims.sub",
        "1+25 `<` compares a number with text | `request.time` is a number, `claims.sub` is text",
    ),
    (
        "request.method == 1",
        "1+19 `==` compares text with a number | `request.method` is text, `1` is a number",
    ),
    (
        "request.method == null",
        "1+22 `==` compares text with null | `request.method` is text, `null` is null",
    ),
    (
        "identity.scopes == 'accounts'",
        "1+29 `==` compares a list with text | `identity.scopes` is a list, `'accounts'` is text",
    ),
    (
        "'accounts' in identity.name",
        "1+27 `in` looks into a list, `identity.name` is text | did you mean `identity.name.contains('accounts')`?",
    ),
    ("1 in identity.scopes", "1+20 `in` looks for a number among items that are text"),
    ("'a' in 3", "8+1 `in` looks into a list, `3` is a number"),
    ("1 in request.headers", "1+1 members are looked for by name, `1` is a number"),
    (
        "identity.scopes.contains('accounts')",
        "1+36 `identity.scopes` is a list: it has no `contains` | did you mean `'accounts' in identity.scopes`?",
    ),
    ("identity.name.contains(1)", "24+1 `contains` needs text, `1` is a number"),
    (
        "identity.name.matches('^a')",
        "1+27 there is no function `matches` here | there are no regular expressions: use `==`, `in`, `startsWith`, `endsWith` or `contains`",
    ),
    (
        "identity.name.startswith('a')",
        "1+29 there is no function `startswith` here | did you mean `startsWith`?",
    ),
    ("identity.name.startsWith()", "1+26 `startsWith` takes 1 argument, not 0"),
    ("identity.name.startsWith('a', 'b')", "1+34 `startsWith` takes 1 argument, not 2"),
    (
        "lower(identity.name) == 'a'",
        "1+20 there is no function `lower` here | functions here: contains, startsWith, endsWith, size, all, exists, exists_one, map, filter, int, double, string, has",
    ),
    ("size(1) == 1", "6+1 `size` does not take a number"),
    ("size(identity.scopes, 1) == 1", "1+24 `size` takes 1 argument, not 2"),
    (
        "identity.name.int() == 1",
        "1+19 there is no function `int` here | write it around the value: `int(value)`",
    ),
    (
        "contains('a', 'b')",
        "1+18 there is no function `contains` here | write it behind the value: `value.contains(...)`",
    ),
    (
        "timestamp('2020-01-01T00:00:00Z') < request.time",
        "1+33 there is no function `timestamp` here | times are numbers here: seconds since 1970, as in `request.time` and `claims.exp`",
    ),
    ("has(claims)", "5+6 `has` takes one member: `has(claims.acr)`"),
    (
        "has(claims.acr, claims.amr)",
        "1+27 there is no function `has` here | `has` takes one member: `has(claims.acr)`",
    ),
    (
        "has(request.uri)",
        "1+11 `request` has no member `uri` | members of `request`: method, path, host, headers, time",
    ),
    ("identity.name && true", "1+13 `identity.name` is text, not true or false"),
    ("!identity.name", "2+13 `identity.name` is text, not true or false"),
    ("-identity.name == 1", "2+13 `-` needs a number, `identity.name` is text"),
    ("identity.name", "1+13 the expression is text, not true or false"),
    ("request.time", "1+12 the expression is a number, not true or false"),
    (
        "request.time + 'a' == 1",
        "1+18 `+` combines a number with text | `request.time` is a number, `'a'` is text",
    ),
    (
        "1 + 1.5 == 2.5",
        "1+7 `+` mixes a whole number with a fraction | write `double(...)` around the whole number",
    ),
    (
        "identity.scopes + [1] == []",
        "1+21 `+` combines a list with a list | `identity.scopes` is a list, `[1]` is a list",
    ),
    ("1.5 % 2 == 1", "1+3 `%` needs whole numbers, `1.5` is none"),
    ("identity.scopes > 1", "1+15 `>` needs numbers or texts, `identity.scopes` is a list"),
    ("true < false", "1+4 `<` needs numbers or texts, `true` is true or false"),
    ("identity.scopes['a'] == 'a'", "1+20 `identity.scopes` is a list and cannot be indexed by text"),
    ("identity['name'] == 'a'", "1+16 `identity` has a fixed set of members: write `identity.name`"),
    (
        "request.headers[1] == 'a'",
        "1+18 `request.headers` is a group of values and cannot be indexed by a number",
    ),
    ("identity.name.first == 'a'", "1+19 `identity.name` is text and has no member `first`"),
    ("identity.name.exists(c, c == 'a')", "1+13 `identity.name` is text, not a list to look through"),
    (
        "identity.scopes.exists(s, s == 1)",
        "27+6 `==` compares text with a number | `s` is text, `1` is a number",
    ),
    ("identity.scopes.exists(s, s)", "27+1 `s` is text, not true or false"),
    (
        "identity.scopes.exists(claims, true)",
        "23+1 `claims` is a variable already; the items need another name",
    ),
    ("identity.scopes.exists(s)", "1+25 `exists` takes 2 arguments, not 1"),
    ("identity.scopes.map(s, s.name) == []", "24+6 `s` is text and has no member `name`"),
    ("identity.scopes.filter(s, s.startsWith('a'))", "1+23 the expression is a list, not true or false"),
    ("identity.scopes.exists_one(s, size(s)) ", "31+7 `size(s)` is a number, not true or false"),
    ("claims.a.all(a, a.all(b, b.all(c, c)))", "26+6 loops can stand in each other only two deep"),
    ("{'a': 1} == claims.x", "1+1 a map cannot be written here"),
    ("Foo{a: 1} == claims.x", "4+1 `Foo{...}` cannot be written here"),
    ("b'a' == claims.x", "1+4 a byte string cannot be written here"),
    ("1u == claims.x", "1+2 an unsigned number cannot be written here"),
    ("claims.?acr == 'x'", "7+1 this form is not offered here"),
    (".claims.acr == 'x'", "2+6 `.claims` is not a variable | did you mean `claims`?"),
    (
        "int == claims.x",
        "1+3 `int` is not a variable | variables here: request, identity, claims, certificate, client",
    ),
    ("claims.acr = 'x'", "12+1 unexpected `=` | did you mean `==`?"),
    ("claims.acr == 'x' and true", "19+3 unexpected `and` | did you mean `&&`?"),
    ("not claims.acr", "5+6 unexpected `claims` | did you mean `!`?"),
    ("claims.acr == 'x", "15+1 unexpected `'` | this text does not end"),
    ("claims.acr ==", "14+0 the expression ends too early"),
    ("(claims.acr == 'x'", "19+0 the expression ends too early"),
    ("claims.`a`", "7+1 this form is not offered here"),
    ("claims.naïve == 'x'", "10+4 unexpected `ïve`"),
    (
        "'é' == claims.x && nobody",
        "20+6 `nobody` is not a variable | variables here: request, identity, claims, certificate, client",
    ),
    ("if == 1", "1+2 `if` is a reserved word"),
    ("99999999999999999999 == claims.x", "1+20 `99999999999999999999` is no number that fits"),
    ("true ? 'a' : 'b'", "1+16 the expression is text, not true or false"),
    (
        "identity.nam == 'a' || identity.grop == 'b'",
        "1+12 `identity` has no member `nam` | did you mean `identity.name`? // 24+13 `identity` has no member `grop` | did you mean `identity.group`?",
    ),
    ("'\u{e9}' = 1", "5+1 unexpected `=` | did you mean `==`?"),
];

#[test]
fn what_is_well_typed_or_only_known_later_is_accepted() {
    for source in GOOD {
        assert_eq!(complaints(source), "", "{source}");
    }
}

const GOOD: &[&str] = &[
    "claims.acr == 'urn:openbanking:psd2:sca'",
    "claims.acr && true",
    "claims.admin",
    "!has(claims.acr) || claims.acr == 1",
    "has(certificate.subject.ou) && certificate.subject.ou == claims.ou",
    "'accounts' in identity.scopes && size(identity.scopes) < 3",
    "'x-tenant' in request.headers && request.headers['x-tenant'] == client.attributes.tenant",
    "request.headers.accept.startsWith('application/')",
    "claims.exp - claims.iat <= 600",
    "claims.exp > request.time + 60",
    "claims.iat + 1.5 > 2.5",
    "request.method in ['GET', 'HEAD']",
    "claims.roles.exists(role, role == 'admin' || role.startsWith('ops-'))",
    "claims.details.exists(d, d.actions.exists_one(a, a == 'read'))",
    "identity.scopes.all(s, s.size() > 2)",
    "size(identity.scopes.filter(s, s.endsWith(':read'))) == 1",
    "identity.scopes.map(s, s + '!') == ['a!']",
    "identity.scopes.map(s, s != 'a', size(s)) == [1, 2]",
    "int(claims.level) >= 3 && double(claims.level) < 4.5 && string(claims.level) != '9'",
    "claims['https://bank.example/tier'] == 'gold'",
    "claims.address.city == 'Riga' && claims.nested['a']['b'][0] == null",
    "claims.premium ? identity.group == 'gold' : request.method == 'GET'",
    "[1, 'a', true] == claims.mixed",
    "claims.a.all(x, claims.b.all(y, x == y)) && claims.a.all(x, x != 1)",
    r#""it's" != identity.name"#,
    "1 == 1.0",
];

/// A token of many claims, on a connection with a certificate.
fn caller() -> Caller {
    Caller::with_token()
        .scopes(&["accounts", "payments:read"])
        .group("gold")
        .claims(CLAIMS)
        .client("acme", r#"{"tenant": "t-1", "tier": 3}"#)
        .key_id("key-2027")
        .certificate(&[("2.5.4.10", "Acme, Inc."), ("2.5.4.11", "ou-1"), ("2.5.4.3", "a"), ("2.5.4.3", "b")])
        .header("x-tenant", "t-1")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("accept", "application/json")
}

const CLAIMS: &str = r#"{
    "iss": "https://idp.example", "sub": "tpp-a", "exp": 1790000600, "iat": 1789999999.5, "acr": "sca", "level": "3",
    "admin": true, "nothing": null, "roles": ["ops-1", "reader"], "empty": [], "https://bank.example/tier": "gold",
    "address": {"city": "Riga", "lines": ["a", "b"]}, "number": 7, "aud": ["a", "b"]
}"#;

fn outcome(source: &str, caller: &Caller) -> Result<bool, String> {
    let mut faults = Faults::default();
    let expression = Expression::compile(&plain(source), &mut faults);
    expression.unwrap_or_else(|| panic!("{source}: {faults:?}")).holds(&caller.facts())
}

#[test]
fn facts_are_what_they_are() {
    for source in TRUE {
        assert_eq!(outcome(source, &caller()), Ok(true), "{source}");
    }
}

const TRUE: &[&str] = &[
    "claims.acr == 'sca'",
    "claims['acr'] == 'sca'",
    "claims.admin",
    "claims.exp > request.time && claims.exp - request.time == 600",
    "claims.iat < request.time",
    "request.time == 1790000000",
    "claims.nothing == null",
    "claims.number == 7 && claims.number == 7.0 && claims.number < 7.5",
    "int(claims.level) == 3",
    "claims.aud != 'a'",
    "'a' in claims.aud && !('c' in claims.aud)",
    "claims.address.city == 'Riga'",
    "claims.address.lines[1] == 'b' && claims.address['lines'].size() == 2",
    "'city' in claims.address && !('street' in claims.address)",
    "has(claims.address.city) && !has(claims.address.street) && !has(claims.street)",
    "claims['https://bank.example/tier'] == 'gold'",
    "claims.roles.exists(role, role.startsWith('ops-'))",
    "claims.roles.all(role, size(role) > 3) && claims.empty.all(role, false)",
    "claims.roles.exists_one(role, role == 'reader')",
    "claims.roles.filter(role, role.contains('ead')) == ['reader']",
    "claims.roles.map(role, role + '!') == ['ops-1!', 'reader!']",
    "identity.name == 'tpp-a' && identity.subject == 'tpp-a' && identity.key == 'jwt:bank-idp:tpp-a'",
    "identity.method == 'jwt' && identity.issuer == 'bank-idp' && identity.group == 'gold'",
    "identity.key_id == 'key-2027' && identity.key_id in ['key-2027', 'key-2028']",
    "'accounts' in identity.scopes && !('account' in identity.scopes)",
    "request.method == 'GET' && request.path == '/v3/accounts' && request.host == 'api.bank.example'",
    "request.headers['X-Tenant'] == 't-1' && request.headers.accept.endsWith('json')",
    "'x-tenant' in request.headers && !('x-other' in request.headers)",
    "client.name == 'acme' && client.attributes.tenant == request.headers['x-tenant']",
    "client.attributes.tier + 1 == 4",
    "certificate.subject.o == 'Acme, Inc.' && certificate.subject.ou == 'ou-1'",
    "certificate.thumbprint.startsWith('abab') && size(certificate.thumbprint) == 64",
    "certificate.serial == '01ff'",
    "certificate.dns_names == ['tpp.example'] && 'urn:tpp:1' in certificate.uris",
    "'open-banking' in certificate.trusted_by",
    // An error beside something that decides alone does not matter, on either side.
    "claims.missing == 'x' || true",
    "true || claims.missing == 'x'",
    "!(claims.missing == 'x' && false)",
];

#[test]
fn what_cannot_be_decided_says_why_without_quoting_values() {
    for (source, why) in UNDECIDED {
        assert_eq!(outcome(source, &caller()), Err((*why).to_owned()), "{source}");
    }
}

const UNDECIDED: &[(&str, &str)] = &[
    ("claims.missing == 'x'", "`missing` is missing"),
    ("claims.missing != 'x'", "`missing` is missing"),
    ("!claims.missing", "`missing` is missing"),
    ("claims.acr.deeper == 'x'", "`.` does not go with string and string"),
    ("claims.address.street == 'x'", "`street` is missing"),
    ("claims.acr", "it is neither true nor false"),
    ("claims.acr < 3", "`<` does not go with string and int"),
    ("claims.acr && claims.admin", "`&&` does not go with string and bool"),
    ("claims.acr + 1 == 2", "two values do not go together"),
    ("claims.acr.size() / 0 == 1", "division by zero"),
    ("claims.number * 9223372036854775807 > 0", "a number is too large"),
    ("int(claims.acr) == 1", "`int` failed"),
    ("claims.roles[2] == 'x'", "a list has no such item"),
    ("claims.number.exists(x, true)", "a value is not of the kind wanted (iterable)"),
    ("request.headers['x-many'] == '1'", "a header occurs more than once"),
    ("has(request.headers.none) || request.headers['x-many'] == '1'", "a header occurs more than once"),
    ("request.headers['x-none'] == '1'", "`x-none` is missing"),
    ("certificate.subject.cn == 'a'", "a subject attribute occurs more than once"),
    ("certificate.subject.l == 'a'", "`l` is missing"),
];

/// CHN-07: who lacks what an expression asks for does not get in by it.
#[test]
fn what_a_caller_lacks_is_missing() {
    let bare = Caller::of(identity(AuthMethod::ApiKey, "client:x", "x"));
    for name in [
        "claims.sub",
        "identity.group",
        "identity.issuer",
        "identity.key_id",
        "client.name",
        "client.attributes.tier",
        "certificate.thumbprint",
        "certificate.subject.ou",
    ] {
        let member = name.rsplit('.').next().expect("a name");
        assert_eq!(
            outcome(&format!("{name} != 'x'"), &bare),
            Err(format!("`{member}` is missing")),
            "{name}"
        );
        assert_eq!(outcome(&format!("has({name})"), &bare), Ok(false), "{name}");
    }
}

/// TLS-05: a connection may outlive its certificate, and a chain of `jwt` alone does not look at it.
#[test]
fn a_certificate_counts_only_while_it_is_valid() {
    let now = caller().now.unix_seconds();
    for (from, until, counts) in
        [(now, now, true), (now - 9, now + 9, true), (now + 1, now + 9, false), (now - 9, now - 1, false)]
    {
        let mut caller = caller();
        let certificate = caller.certificate.as_mut().expect("a certificate");
        (certificate.valid_from, certificate.valid_until) = (from, until);
        for name in ["certificate.subject.ou", "certificate.thumbprint", "certificate.trusted_by"] {
            assert_eq!(outcome(&format!("has({name})"), &caller), Ok(counts), "{name} {from} {until}");
        }
        assert_eq!(outcome("certificate.subject.ou == 'ou-1'", &caller).is_ok(), counts, "{from} {until}");
    }
}

#[test]
fn claims_and_scopes_are_those_of_the_token_that_came_with_a_certificate() {
    let token = caller().principal.identity;
    let mut both = Caller::of(identity(AuthMethod::Certificate, "certificate:ab", "CN=x"));
    both.principal.others.push(token);
    let source = "claims.acr == 'sca' && 'accounts' in identity.scopes && identity.method == 'certificate'";
    assert_eq!(outcome(source, &both), Ok(true));
}

#[test]
fn two_tokens_of_one_request_are_not_mixed() {
    let mut both = Caller::with_token();
    both.principal.others.push(caller().principal.identity);
    assert_eq!(outcome("'accounts' in identity.scopes", &both), Ok(false));
    assert_eq!(outcome("has(claims.acr)", &both), Ok(false));
}

#[test]
fn bounds_of_text_and_nesting_hold_and_nothing_exhausts_a_stack() {
    let deep = |open: &str, close: &str, count: usize| {
        format!("{}claims.a{} == 1", open.repeat(count), close.repeat(count))
    };
    let too_deep = "the expression is nested too deeply";
    for (source, expected) in [
        (deep("(", ")", 10), ""),
        (deep("(", ")", 200), too_deep),
        (deep("[", "]", 200), too_deep),
        (deep("size(", ")", 200), too_deep),
        (deep("{1:", "}", 200), too_deep),
        ("(".repeat(2000), too_deep),
        (format!("1{} == 1", "+1".repeat(40)), ""),
        (format!("1{} == 1", "+1".repeat(1000)), too_deep),
        (format!("claims{} == 1", ".a".repeat(1000)), too_deep),
        (format!("claims.a{} == 1", "[0]".repeat(600)), too_deep),
        (format!("claims.a{}", " && claims.a".repeat(160)), ""),
        (format!("{}claims.a", "!".repeat(2000)), ""),
        (format!("claims.a == '{}'", "x".repeat(2048)), "the expression is longer than 2048 bytes"),
    ] {
        let said = complaints(&source);
        let said = said.split_once(' ').map_or("", |(_, message)| message);
        assert_eq!(said, expected, "{}", source.get(..20).unwrap_or_default());
    }
}

/// The worst that a token can make of an expression: two lists as long as JSON in tokens may be, in each other.
#[test]
fn two_loops_over_the_longest_lists_end() {
    let list = vec!["1"; 256].join(",");
    let caller = Caller::with_token().claims(&format!(r#"{{"a": [{list}], "b": [{list}]}}"#));
    assert_eq!(outcome("claims.a.all(x, claims.b.all(y, x == y))", &caller), Ok(true));
}

/// Expressions of every shape over values whose types are all declared, most of them ill-typed.
fn any_declared() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "'a'",
        "1",
        "2",
        "1.5",
        "true",
        "null",
        "[]",
        "[1, 2]",
        "['a']",
        "[[1]]",
        "identity.name",
        "identity.group",
        "identity.scopes",
        "request.time",
        "request.headers.accept",
        "request.headers",
        "claims.exp",
        "claims.sub",
        "certificate.subject.ou",
        "certificate.dns_names",
        "client",
    ]);
    let binary = prop::sample::select(vec![
        "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in", "&&", "||",
    ]);
    let unary = prop::sample::select(vec![
        "!({})",
        "-({})",
        "size({})",
        "int({})",
        "double({})",
        "string({})",
        "({}).size()",
        "({}).startsWith('a')",
        "({}).contains('a')",
        "({})[0]",
        "({})['a']",
        "({}).exists(x, x == 'a')",
        "({}).all(y, y < 2)",
        "({}).exists_one(z, z in ['a'])",
        "({}).map(v, v + v)",
        "({}).filter(w, w != 1)",
        "has(request.headers.none) || ({})",
    ]);
    atom.prop_map(str::to_owned).prop_recursive(4, 12, 3, move |inner| {
        prop_oneof![
            (inner.clone(), binary.clone(), inner.clone())
                .prop_map(|(left, sign, right)| format!("({left}) {sign} ({right})")),
            (unary.clone(), inner.clone()).prop_map(|(form, operand)| form.replace("{}", &operand)),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(c, yes, no)| format!("({c}) ? ({yes}) : ({no})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    /// The check and the evaluator agree about types: what passes the one never fails the other by a type, where
    /// all types are known. A `?:` of two types, an empty list and the kind of a number in a claim are known only
    /// later.
    #[test]
    fn what_the_check_accepts_the_evaluator_can_do(source in any_declared()) {
        let mut faults = Faults::default();
        if let Some(expression) = Expression::compile(&plain(&source), &mut faults)
            && let Err(why) = expression.holds(&caller().facts())
        {
            let known_later = ["?", "[]", "claims.exp"].iter().any(|part| source.contains(part));
            let about_types = why.contains("do not go") || why.contains("not of the kind") || why.contains("does not go");
            prop_assert!(known_later || !about_types, "{source}: {why}");
            prop_assert_ne!(why, "it cannot be evaluated", "{}", source);
        }
    }

    /// Whatever somebody writes, reading it ends with a checked expression or with faults.
    #[test]
    fn any_text_is_an_expression_or_a_fault(source in "[-a-z(){}\\[\\]'\"=!<>&|?:.,+*/%0-9 \\\\é`@#\n]{0,40}") {
        let mut faults = Faults::default();
        let compiled = Expression::compile(&plain(&source), &mut faults);
        prop_assert_eq!(compiled.is_none(), faults.any_error());
    }
}
