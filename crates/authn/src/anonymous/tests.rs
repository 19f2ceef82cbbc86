use serde_json::json;

use crate::WorkerTokens;
use crate::issuers::Issuers;
use crate::testing::{House, ask, connection, evidence, head, moment, told};

/// CHN-08: public is a word somebody wrote, with the reason.
#[tokio::test]
async fn a_public_api_says_why() {
    let house = House::new(Issuers::default());
    let chain = house.chain(&json!({"anonymous": {"because": "public docs"}}));
    assert_eq!(chain.anonymous_because().map(|because| &**because), Some("public docs"));
    assert!(chain.challenges().is_empty() && chain.credential_headers().is_empty());
    let (worker, connection) = (WorkerTokens::new(0), connection(None));
    let asked = ask(&chain, &worker, &connection, &[("authorization", "Bearer x")]).await;
    assert_eq!(asked.as_deref(), Ok("anonymous"));
    let head = head("/", &[]);
    let principal =
        chain.authenticate(&evidence(&head, &connection, &worker, moment(0))).await.expect("anybody");
    assert_eq!((&*principal.name, principal.group), ("anonymous", None));

    for (written, expected) in [
        (json!("anonymous"), "missing_key: a public API says why it is public"),
        (json!({"anonymous": {}}), "missing_key: `anonymous` needs `because`"),
        (json!({"anonymous": {"because": ""}}), "empty: this must not be empty"),
    ] {
        assert_eq!(house.compile(&written, None).map_err(told).expect_err("a fault"), [expected]);
    }
}
