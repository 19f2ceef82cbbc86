//! Hands events to webhooks, signed as the Standard Webhooks say (<https://www.standardwebhooks.com>).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use metrics::Label;
use portcullis_authn::{KeyedHash, random_id};
use portcullis_core::{Clock, Fetch, FetchRequest, Sending};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::gather::Gathered;
use super::{EventKind, Happened, body};
use crate::telemetry::Telemetry;

/// How long refusals are gathered before they are told.
const GATHER: Duration = Duration::from_secs(10);
/// How many events may wait for one webhook.
const WAITING: usize = 1_000;
/// How often an event is tried.
const TRIES: u32 = 5;
/// The wait after the first failure; each further one is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);

const DELIVERIES: &str = "portcullis_webhook_deliveries_total";
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Somebody who is told.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(super) name: Arc<str>,
    pub(super) url: String,
    pub(super) key: Arc<KeyedHash>,
    pub(super) kinds: Vec<EventKind>,
    pub(super) fetch: Arc<dyn Fetch>,
}

impl Webhook {
    pub(super) fn wants(&self, kind: EventKind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// An event on its way: what it is known by, and what is said.
#[derive(Clone)]
struct Message {
    id: String,
    kind: EventKind,
    body: Bytes,
}

/// Hands events on, each webhook at its own pace.
pub(super) async fn run(
    mut inbox: Receiver<Happened>,
    webhooks: Vec<Webhook>,
    telemetry: Telemetry,
    clock: Clock,
) {
    let mut outboxes = Vec::new();
    for webhook in webhooks {
        let (sender, receiver) = channel(WAITING);
        outboxes.push((webhook.clone(), sender));
        tokio::spawn(serve(webhook, receiver, telemetry.clone(), clock.clone()));
    }
    let mut gathered = Gathered::default();
    let mut telling = tokio::time::interval(GATHER);
    loop {
        tokio::select! {
            happened = inbox.recv() => match happened {
                None => return,
                Some(Happened::Refused(kind, refused)) => gathered.add(kind, refused),
                Some(Happened::Rare(kind, data)) => {
                    hand_on(&outboxes, kind, &body(kind, data, &clock), &telemetry);
                }
            },
            _ = telling.tick() => {
                for (kind, data) in gathered.take() {
                    hand_on(&outboxes, kind, &body(kind, data, &clock), &telemetry);
                }
            }
        }
    }
}

fn hand_on(outboxes: &[(Webhook, Sender<Message>)], kind: EventKind, body: &str, telemetry: &Telemetry) {
    let Ok(id) = random_id() else {
        tracing::error!(event = kind.as_str(), "an event cannot be told: there is no randomness");
        return;
    };
    let message = Message { id: format!("msg_{id}"), kind, body: Bytes::copy_from_slice(body.as_bytes()) };
    for (webhook, outbox) in outboxes.iter().filter(|(webhook, _)| webhook.wants(kind)) {
        if outbox.try_send(message.clone()).is_err() {
            tell_result(webhook, "dropped", telemetry);
            tracing::error!(webhook = %webhook.name, event = kind.as_str(), "too many events wait for the webhook");
        }
    }
}

/// Delivers one after another: an event that is tried again holds up those behind it, so their order is kept.
async fn serve(webhook: Webhook, mut outbox: Receiver<Message>, telemetry: Telemetry, clock: Clock) {
    while let Some(message) = outbox.recv().await {
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        let result = loop {
            tries += 1;
            match attempt(&webhook, &message, &clock).await {
                Ok(()) => break "delivered",
                Err(why) if why.is_final || tries == TRIES => {
                    let (name, event) = (&webhook.name, message.kind.as_str());
                    tracing::error!(webhook = %name, event, id = message.id, tries, why = why.text, "an event is lost");
                    break "failed";
                }
                Err(_again) => {
                    tell_result(&webhook, "retried", &telemetry);
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
            }
        };
        tell_result(&webhook, result, &telemetry);
    }
}

fn tell_result(webhook: &Webhook, result: &'static str, telemetry: &Telemetry) {
    let labels = vec![Label::new("webhook", Arc::clone(&webhook.name)), Label::new("result", result)];
    telemetry.count(DELIVERIES, labels, 1);
}

struct Undelivered {
    text: String,
    /// Whether trying again is of no use.
    is_final: bool,
}

async fn attempt(webhook: &Webhook, message: &Message, clock: &Clock) -> Result<(), Undelivered> {
    let mut request = FetchRequest::new(Method::POST, webhook.url.as_str());
    let now = clock.now().unix_seconds();
    let signature = signature(&webhook.key, &message.id, now, &message.body);
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [(ID, message.id.clone()), (TIMESTAMP, now.to_string()), (SIGNATURE, signature)] {
        // Hexadecimal digits, numbers and base64 are good values.
        if let Ok(value) = HeaderValue::try_from(value) {
            request.headers.insert(name, value);
        }
    }
    request.body = message.body.clone();
    // The receiver knows an event by its id, so one that comes twice does no harm.
    request.sending = Sending::Again;
    match webhook.fetch.fetch(request).await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => Err(Undelivered {
            text: format!("it answered {}", answer.status),
            is_final: answer.status == StatusCode::GONE,
        }),
        Err(error) => Err(Undelivered { text: error.to_string(), is_final: false }),
    }
}

/// HMAC-SHA-256 of id, second and body, each behind a dot.
fn signature(key: &KeyedHash, id: &str, second: i64, body: &[u8]) -> String {
    let signed = [id.as_bytes(), b".", second.to_string().as_bytes(), b".", body].concat();
    format!("v1,{}", STANDARD.encode(key.digest(&signed)))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use portcullis_authn::KeyedHash;
    use portcullis_core::Secret;

    use super::signature;

    /// The example of the Standard Webhooks' own documentation.
    #[test]
    fn events_are_signed_as_the_standard_says() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let key = KeyedHash::new(&Secret::new(key));
        let signed =
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
