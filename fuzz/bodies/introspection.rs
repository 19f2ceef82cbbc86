//! What is done with the bytes of a provider's answer, and what must hold whatever they are.

use portcullis_core::json::{Limits, Value, parse_object};
use portcullis_jose::Introspected;

/// Reads an answer, and holds it against a plain reading of the same bytes.
pub(crate) fn run(bytes: &[u8]) {
    let object = parse_object(bytes, Limits::default());
    let active = object.as_ref().ok().and_then(|object| object.get("active"));
    match (Introspected::read(bytes), active) {
        (Ok(Introspected::Active(said)), Some(Value::Bool(true))) => assert_eq!(Ok(said), object),
        (Ok(Introspected::Inactive), Some(Value::Bool(false))) => {}
        (Err(error), Some(Value::Bool(_))) => panic!("a good answer was refused: {error}"),
        (Err(error), _) => assert!(!error.to_string().is_empty()),
        (Ok(said), other) => panic!("{said:?} of {other:?}"),
    }
}
