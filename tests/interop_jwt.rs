//! Tokens signed by libraries nobody here wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use portcullis_core::Reason;
use serde_json::{Value, json};

use crate::rig::certificates::unix_now;
use crate::rig::idp::{AUDIENCE, ISSUER};
use crate::rig::interop;
use crate::rig::world::{BEARER, Plan};

/// What a script prints when it is given this document.
fn said(mut command: Command, document: &Value) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script can be started");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(document.to_string().as_bytes()).expect("the document is taken");
    drop(input);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
fn tokens_of_other_libraries_are_read_as_they_mean_them() {
    let plan = Plan::new(&[BEARER]).with(|plan| plan.keys = "{ pem: [keys/signer.pem] }".to_owned());
    let (signer, stranger) = (plan.servers.client("signer"), plan.servers.client("stranger"));
    plan.directory.write("keys/signer.pem", &signer.pem);
    let world = plan.start();
    let now = unix_now();
    let document = |key: &str| {
        json!({
            "key": key, "header": { "alg": "ES256", "typ": "at+jwt" },
            "claims": { "iss": ISSUER, "aud": AUDIENCE, "sub": "tpp-a", "client_id": "tpp-a", "iat": now, "exp": now + 60 },
        })
    };
    for library in [|| interop::node("sign_jwt.mjs"), || interop::python("sign_jwt.py")] {
        let good = said(library(), &document(&signer.key_pem));
        world.plain().get("/bearer/x").bearer(&good).send().assert_passed();
        let before = world.upstream().hits();
        let forged = said(library(), &document(&stranger.key_pem));
        world.plain().get("/bearer/x").bearer(&forged).send().assert_refused(Reason::TokenSignatureInvalid);
        assert_eq!(world.upstream().hits(), before);
    }
}
