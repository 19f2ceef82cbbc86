//! What a rate and a quota cost with a million callers: `cargo run --release -p portcullis-store --example limit_check`.
//!
//! Processor time of the checking thread alone, by the kernel's own count; callers come in an order that no cache foresees.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement that ends where anything is amiss, and prints what it measured"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use portcullis_core::Clock;
use portcullis_store::{
    Algorithm, LimitId, QuotaKey, QuotaOutcome, QuotaRule, RateOutcome, RateRule, Store, StoreSettings,
};

const CALLERS: usize = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = std::env::temp_dir().join(format!("portcullis-limit-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path: PathBuf = folder.join("portcullis.redb");
    let store = Store::open(&StoreSettings { path }).expect("a store");
    let rates = store.rates(
        &LimitId::new("bench", "rate"),
        RateRule {
            count: 1_000_000,
            per: Duration::from_secs(1),
            burst: 1_000_000,
            algorithm: Algorithm::Gcra,
        },
    );
    let quotas =
        store.quotas(&LimitId::new("bench", "quota"), QuotaRule::new(1_000_000, Duration::from_secs(86_400)));
    let callers: Vec<String> =
        (0..CALLERS).map(|number| format!("jwt:bank-idp:caller-{number:07}")).collect();
    let before = memory();
    // A caller's first unit is on disk before it is handed out; those that wait together are one commit.
    let mut longest = Duration::ZERO;
    for together in callers.chunks(10_000) {
        let now = Clock::System.now();
        let first = together.iter().map(|key| quotas.take_of(1_000_000, QuotaKey { key, last: None }, now));
        assert!(join_all(first).await.iter().all(|taken| matches!(taken, Ok(QuotaOutcome::Taken { .. }))));
        for key in together {
            let began = Instant::now();
            assert!(matches!(rates.take(key, now), RateOutcome::Taken { .. }));
            longest = longest.max(began.elapsed());
        }
    }
    println!("a new caller waited for {longest:?} at most for its rate");
    println!("{} bytes a caller", memory().saturating_sub(before) * 1_024 / CALLERS);
    for (what, callers) in [("a thousand", &callers[..1_000]), ("a million", &callers[..])] {
        for (of, rate, quota) in [
            ("the key alone", false, false),
            ("rate", true, false),
            ("quota", false, true),
            ("rate and quota", true, true),
        ] {
            let (mut at, mut seen, began) = (0_usize, 0_usize, processor_time());
            for _ in 0..CALLERS {
                // A step that is no divisor of their number comes by each of them.
                at = (at + 387_420_489) % callers.len();
                let (key, now) = (callers[at].as_str(), Clock::System.now());
                seen += usize::from(key.ends_with('7'));
                if rate {
                    assert!(matches!(rates.take(key, now), RateOutcome::Taken { .. }));
                }
                if quota {
                    let taken = quotas.take_of(1_000_000, QuotaKey { key, last: None }, now).await;
                    assert!(matches!(taken, Ok(QuotaOutcome::Taken { .. })));
                }
            }
            let nanoseconds = (processor_time() - began) / u64::try_from(CALLERS).expect("a count");
            println!("{what} callers, {of}: {nanoseconds} ns of processor ({seen} end with 7)");
        }
    }
    println!("{:?}", store.figures());
    store.close().expect("written");
    std::fs::remove_dir_all(folder).expect("removed");
}

/// Nanoseconds this thread has had a processor.
fn processor_time() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    told.split(' ').next().and_then(|text| text.parse().ok()).expect("a number")
}

/// Resident memory in KiB.
fn memory() -> usize {
    let told = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = told.lines().find(|line| line.starts_with("VmRSS:")).expect("memory");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}
