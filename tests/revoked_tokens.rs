//! Tokens an issuer has signed and that count no more: refused on every request, also where a worker remembers them,
//! and from the next reading of the list on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use portcullis_core::Reason;
use serde_json::json;

use crate::rig::certificates::unix_now;
use crate::rig::eventually;
use crate::rig::gateway::portcullis;
use crate::rig::world::{BEARER, Plan, World};

fn bank(revoked: &str, list: &str) -> Plan {
    let plan = Plan::new(&[BEARER]).with(|plan| plan.issuer = format!("    revoked: {revoked}\n"));
    plan.directory.write("revoked/bank-idp.json", list);
    plan
}

fn ask(world: &World, token: &str) -> crate::rig::client::Answer {
    world.plain().get("/bearer/1").bearer(token).send()
}

/// REV-02, and every way somebody may hope to step over an entry.
#[test]
fn a_token_on_the_list_is_refused_and_reaches_nobody() {
    let before = unix_now() - 60;
    let list = json!([
        {"jti": "stolen"},
        {"sub": "mallory"},
        {"client": "sold"},
        {"sub": "hacked", "issued_before": before},
        {"sub": "forgiven", "until": unix_now() - 1},
    ]);
    let world = bank("{ files: [revoked/bank-idp.json] }", &list.to_string()).start();
    let token = || world.idp().token();
    for (what, token) in [
        ("by its own name", token().claim("jti", "stolen")),
        ("by its subject", token().claim("sub", "mallory")),
        ("by its client", token().claim("client_id", "sold")),
        ("by the party it was issued to", token().claim("azp", "sold")),
        ("issued before", token().claim("sub", "hacked").claim("iat", before - 1).claim("nbf", before - 1)),
        ("without saying when it was issued", token().claim("sub", "hacked").without("iat")),
        ("bound to a certificate", token().claim("jti", "stolen").bound_to(&world.tpp_a)),
    ] {
        let answer = world.client().get("/bearer/1").bearer(&token.sign()).send();
        assert_eq!(answer.code(), Reason::TokenRevoked.code(), "{what}: {}", answer.text());
        answer.assert_refused(Reason::TokenRevoked);
        let challenge = answer.challenges().join(" ");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    world.assert_upstream_untouched();
    for token in [
        token(),
        token().claim("jti", "Stolen"),
        token().claim("sub", "mallory2"),
        token().claim("sub", "sold"),
        token().claim("sub", "hacked").claim("iat", before),
        token().claim("sub", "forgiven"),
    ] {
        ask(&world, &token.sign()).assert_passed();
    }
    // Whose signature is wrong is told that, and learns nothing about the list.
    let forged = token().claim("jti", "stolen").forged_once(r#"{"alg":"ES256","typ":"at+jwt"}"#);
    ask(&world, &forged).assert_refused(Reason::TokenSignatureInvalid);
    let entries = world.gateway.metric_sum("portcullis_revoked_tokens", &["issuer=\"bank-idp\""]);
    assert!((entries - 5.0).abs() < f64::EPSILON, "{entries}");
}

/// JKS-09's rule for verdicts: a worker that remembers the token asks the list again.
#[test]
fn a_remembered_token_is_refused_from_the_next_reading_on() {
    let world = bank("{ files: [revoked/], reload: 1s }", "[]").start();
    let token = world.idp().token().claim("jti", "soon").sign();
    let other = world.idp().token().claim("jti", "other").sign();
    let client = world.plain();
    let mut session = client.connect().expect("a connection");
    session.send(client.get("/bearer/1").bearer(&token)).expect("an answer").assert_passed();
    world.plan.directory.write("revoked/bank-idp.json", json!([{"jti": "soon"}]).to_string());
    let refusal = eventually("the list is read", || {
        let answer = session.send(client.get("/bearer/1").bearer(&token)).expect("an answer");
        (answer.status != 200).then_some(answer)
    });
    refusal.assert_refused(Reason::TokenRevoked);
    ask(&world, &other).assert_passed();
    // OPS-03: half a list gives no token back, and takes none.
    world.plan.directory.write("revoked/bank-idp.json", r#"[{"jti": "other"}, {"jti":"#);
    let reloads = |result: &str| {
        let labels = ["issuer=\"bank-idp\"", &format!("result=\"{result}\"")];
        world.gateway.metric_sum("portcullis_revoked_tokens_reloads_total", &labels)
    };
    eventually("the broken list is noticed", || (reloads("failed") >= 1.0).then_some(()));
    ask(&world, &token).assert_refused(Reason::TokenRevoked);
    ask(&world, &other).assert_passed();
    // And a list beside it counts as well.
    world.plan.directory.write("revoked/bank-idp.json", "[]");
    world.plan.directory.write("revoked/more.json", json!([{"jti": "other"}]).to_string());
    eventually("both lists are read", || {
        (ask(&world, &other).status == 401 && ask(&world, &token).status == 200).then_some(())
    });
    assert!(reloads("replaced") >= 2.0);
}

/// OPS-03: what is in the directory and cannot be read, or is lost, gives no token back.
#[test]
fn a_file_that_is_lost_gives_no_token_back() {
    let plan = bank("{ files: [revoked/], reload: 1s }", &json!([{"jti": "kept"}]).to_string());
    plan.directory.write("revoked/more.json", json!([{"jti": "lost"}]).to_string());
    // Neither is a list.
    plan.directory.write("revoked/old/2020.json", "no list").write("revoked/.more.json.swp", "no list");
    let world = plan.start();
    let directory = &world.plan.directory;
    let token = |jti: &str| world.idp().token().claim("jti", jti).sign();
    let (kept, lost) = (token("kept"), token("lost"));
    let still_refused = |what: &str| {
        for token in [&kept, &lost] {
            let answer = ask(&world, token);
            assert_eq!(answer.code(), Reason::TokenRevoked.code(), "{what}: {}", answer.text());
        }
    };
    let read = || {
        let name = "portcullis_revoked_tokens_last_read_timestamp_seconds";
        world.gateway.metric_sum(name, &["issuer=\"bank-idp\""])
    };
    let failed = || {
        let labels = ["issuer=\"bank-idp\"", "result=\"failed\""];
        world.gateway.metric_sum("portcullis_revoked_tokens_reloads_total", &labels)
    };
    still_refused("at the start");
    eventually("the time of reading is told", || ((read() - unix_now() as f64).abs() < 60.0).then_some(()));
    let fails_again = |what: &str| {
        let before = failed();
        eventually(what, || (failed() > before + 1.0).then_some(()));
        still_refused(what);
    };
    let more = directory.join("revoked/more.json");
    std::fs::remove_file(&more).expect("a file");
    fails_again("a file that is gone");
    symlink("nowhere.json", &more).expect("a link");
    fails_again("a link that leads nowhere");
    std::fs::remove_file(&more).expect("a link");
    // Under another name it is not lost.
    directory.write("revoked/moved.json", json!([{"jti": "lost"}]).to_string());
    let before = read();
    eventually("the moved file is read", || (read() > before).then_some(()));
    still_refused("moved");
    // Whoever wants it gone says first that nothing stands on it.
    directory.write("revoked/moved.json", "[]");
    eventually("the emptied file is read", || (ask(&world, &lost).status == 200).then_some(()));
    std::fs::remove_file(directory.join("revoked/moved.json")).expect("a file");
    let (before, failures) = (read(), failed());
    eventually("the directory is read", || (read() > before + 1.0).then_some(()));
    assert!((failed() - failures).abs() < f64::EPSILON);
    ask(&world, &kept).assert_refused(Reason::TokenRevoked);
}

/// A list that would be left out is a fault before the gateway starts.
#[test]
fn a_directory_of_which_something_cannot_be_read_is_refused_by_check() {
    let plan = bank("{ files: [revoked/] }", "[]");
    plan.write();
    let check = || {
        let output = portcullis(&["check", &plan.directory.path().to_string_lossy()], &[]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (good, said) = check();
    assert!(good, "{said}");
    let folder = plan.directory.join("revoked");
    let dangling = folder.join("dangling.json");
    symlink("nowhere.json", &dangling).expect("a link");
    let (good, said) = check();
    assert!(!good && said.contains("revoked/dangling.json"), "{said}");
    std::fs::remove_file(&dangling).expect("a link");
    let unnamed = folder.join(OsStr::from_bytes(b"\xff.json"));
    std::fs::write(&unnamed, "[]").expect("a file");
    let (good, said) = check();
    assert!(!good && said.contains("is not UTF-8"), "{said}");
    std::fs::remove_file(&unnamed).expect("a file");
    // What a link leads to counts.
    symlink("bank-idp.json", folder.join("linked.json")).expect("a link");
    let (good, said) = check();
    assert!(good, "{said}");
}

/// Entries may stand in the policy itself, and a restart forgets none.
#[test]
fn entries_in_the_policy_survive_a_restart() {
    let world =
        bank("{ entries: [{ sub: mallory }], files: [revoked/bank-idp.json] }", r#"[{"sub": "eve"}]"#)
            .start();
    let tokens = ["mallory", "eve"].map(|sub| world.idp().token().claim("sub", sub).sign());
    for token in &tokens {
        ask(&world, token).assert_refused(Reason::TokenRevoked);
    }
    let world = world.restart();
    for token in &tokens {
        ask(&world, token).assert_refused(Reason::TokenRevoked);
    }
    world.assert_upstream_untouched();
}
