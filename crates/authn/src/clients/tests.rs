use portcullis_core::json::Value;
use portcullis_core::{Faults, Place};
use serde_json::json;

use super::{ClientsSpec, Registering};
use crate::api_key::hash_key;
use crate::testing::{Memory, clients, node, only_fault, pepper, registering};

fn faults_of(written: &serde_json::Value, with_pepper: bool) -> Faults {
    let mut faults = Faults::default();
    let mut spec = ClientsSpec::default();
    spec.read(&node(written), &mut faults);
    let pepper = with_pepper.then(pepper);
    let apis = [("bank".to_owned(), Place::default())];
    let memory = Memory::default();
    let registering = Registering { apis: &apis, ..registering(pepper.as_ref(), &memory) };
    let _ = spec.compile(&registering, &mut faults);
    faults
}

#[test]
fn a_client_keeps_its_attributes_and_its_end() {
    let clients = clients(&json!({
        "acme": {"attributes": {"tier": "gold", "regions": ["eu", "us"], "limit": 3}, "expires": "2027-06-30"},
        "later": {"expires": "2027-06-30T12:00:00+02:00"},
    }));
    let acme = clients.get("acme").expect("a client");
    assert_eq!(acme.attributes.get("tier"), Some(&Value::Text("gold".into())));
    assert_eq!(acme.attributes.get("limit"), Some(&Value::Integer(3)));
    assert_eq!(acme.expires_at, Some(1_814_313_600));
    assert_eq!(clients.get("later").and_then(|client| client.expires_at), Some(1_814_313_600 + 10 * 3_600));
    assert_eq!(clients.len(), 2);
    assert!(clients.get("nobody").is_none());
}

#[test]
fn faults_are_told_where_they_are() {
    let hash = hash_key(&pepper(), "pc_a").to_string();
    let key = || json!({"api_key": {"hash": hash}});
    for (written, code, saying) in [
        (json!([]), "wrong_kind", "expected a mapping of names"),
        (json!({"a": {"expires": "30.06.2027"}}), "bad_date", "not a day or a moment"),
        (json!({"a": {"expires": "2027-02-30"}}), "bad_date", "not a day or a moment"),
        (json!({"a": {"credentials": []}}), "empty", "must not be empty"),
        (json!({"a": {"credentials": [{"api_key": {"hash": "pc_a"}}]}}), "bad_key_hash", "not a stored key"),
        (json!({"a": {"credentials": [key(), key()]}}), "key_twice", "declared more than once"),
        (
            json!({"a": {"credentials": [key()]}, "b": {"credentials": [key()]}}),
            "key_twice",
            "more than once",
        ),
        (json!({"": {}}), "bad_name", "1 to 255 printable characters"),
        (json!({"a\nb": {}}), "bad_name", "1 to 255 printable characters"),
    ] {
        only_fault(faults_of(&written, true), code, saying);
    }
    only_fault(faults_of(&json!({"a": {"credentials": [key()]}}), false), "missing_pepper", "no pepper");
}

#[test]
fn a_client_of_two_files_is_defined_twice() {
    let mut faults = Faults::default();
    let mut spec = ClientsSpec::default();
    spec.read(&node(&json!({"acme": {}})), &mut faults);
    spec.read(&node(&json!({"acme": {}})), &mut faults);
    let fault = only_fault(faults, "defined_twice", "client `acme` is defined twice");
    assert_eq!(fault.related.len(), 1);
}
