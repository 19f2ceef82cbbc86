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

use super::gather::{Gathered, MOST_TOLD};
use super::{EventKind, Inbox, body};
use crate::telemetry::Telemetry;

/// How long refusals are gathered before they are told.
const GATHER: Duration = Duration::from_secs(10);
/// How many events may wait for one webhook, without the gathered ones.
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

/// Where events wait for a webhook.
struct Outbox {
    webhook: Webhook,
    rare: Sender<Message>,
    gathered: Sender<Message>,
}

/// Hands events on, each webhook at its own pace.
pub(super) async fn run(mut inbox: Inbox, telemetry: Telemetry, clock: Clock) {
    let open = |webhook: Webhook| {
        let ((rare, next), (gathered, then)) = (channel(WAITING), channel(MOST_TOLD));
        tokio::spawn(serve(webhook.clone(), (next, then), telemetry.clone(), clock.clone()));
        Outbox { webhook, rare, gathered }
    };
    let mut outboxes: Vec<Outbox> = Vec::new();
    let mut gathered = Gathered::default();
    let mut telling = tokio::time::interval(GATHER);
    loop {
        tokio::select! {
            // Those there were end when they have told what waits for them.
            webhooks = inbox.webhooks.recv() => match webhooks {
                None => return,
                Some(webhooks) => outboxes = webhooks.into_iter().map(open).collect(),
            },
            rare = inbox.rare.recv() => match rare {
                None => return,
                Some((kind, data)) => {
                    hand_on(&outboxes, vec![(kind, body(kind, data, &clock))], |outbox| &outbox.rare, &telemetry);
                }
            },
            refused = inbox.refused.recv() => match refused {
                None => return,
                Some((kind, refused)) => gathered.add(kind, refused),
            },
            _ = telling.tick() => {
                let told = gathered.take().into_iter().map(|(kind, data)| (kind, body(kind, data, &clock)));
                hand_on(&outboxes, told.collect(), |outbox| &outbox.gathered, &telemetry);
            }
        }
    }
}

fn hand_on(
    outboxes: &[Outbox],
    told: Vec<(EventKind, String)>,
    place: impl Fn(&Outbox) -> &Sender<Message>,
    telemetry: &Telemetry,
) {
    let mut dropped = vec![0_u64; outboxes.len()];
    for (kind, body) in told {
        let Ok(id) = random_id() else {
            tracing::error!(event = kind.as_str(), "an event cannot be told: there is no randomness");
            continue;
        };
        let message = Message { id: format!("msg_{id}"), kind, body: Bytes::from(body) };
        let wanted = outboxes.iter().zip(&mut dropped).filter(|(outbox, _)| outbox.webhook.wants(kind));
        for (outbox, dropped) in wanted {
            *dropped += u64::from(place(outbox).try_send(message.clone()).is_err());
        }
    }
    for (outbox, dropped) in outboxes.iter().zip(dropped).filter(|(_, dropped)| *dropped > 0) {
        tell_results(&outbox.webhook, "dropped", dropped, telemetry);
        tracing::error!(webhook = %outbox.webhook.name, dropped, "too many events wait for the webhook");
    }
}

/// Delivers one after another: an event that is tried again holds up those behind it, so their order is kept. Gathered
/// ones come when no other waits.
async fn serve(
    webhook: Webhook,
    (mut rare, mut gathered): (Receiver<Message>, Receiver<Message>),
    telemetry: Telemetry,
    clock: Clock,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = rare.recv() => message,
            message = gathered.recv() => message,
        };
        let Some(message) = message else { return };
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
    tell_results(webhook, result, 1, telemetry);
}

fn tell_results(webhook: &Webhook, result: &'static str, count: u64, telemetry: &Telemetry) {
    let labels = vec![Label::new("webhook", Arc::clone(&webhook.name)), Label::new("result", result)];
    telemetry.count(DELIVERIES, labels, count);
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
