//! How long a fetched set counts as fresh (JKS-03), and when to ask again.

use std::time::Duration;

use portcullis_core::FetchResponse;

/// The shortest life: a server cannot make us ask more often.
pub(crate) const MIN_LIFE: Duration = Duration::from_secs(30);

/// What the server says: `max-age` less `Age`; `None` if it says nothing or forbids storing, which a key set
/// cannot honour.
pub(crate) fn offered(response: &FetchResponse) -> Option<Duration> {
    let control = response.cache_control()?;
    let mut max_age = None;
    for directive in control.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return None;
        }
        if name.eq_ignore_ascii_case("max-age") && max_age.is_none() {
            max_age = Some(value.trim().trim_matches('"').parse::<u64>().ok()?);
        }
    }
    Some(Duration::from_secs(max_age?.saturating_sub(response.age().unwrap_or(0))))
}

/// The life of a set under one issuer's settings: what is offered, between the floor and `refresh`.
pub(crate) fn life(offered: Option<Duration>, refresh: Duration) -> Duration {
    offered.unwrap_or(refresh).clamp(MIN_LIFE.min(refresh), refresh)
}

/// When to refresh a set of that life: at 80 %, spread by a tenth either way, so that a fleet that started
/// together does not ask together (JKS-04).
pub(crate) fn refresh_after(life: Duration, random: u64) -> Duration {
    spread(life.mul_f64(0.8), random)
}

/// When to try again after that many failures in a row: 1 s, doubling, at most 60 s.
pub(crate) fn retry_after(failures: u32, random: u64) -> Duration {
    let seconds = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(60).min(60);
    spread(Duration::from_secs(seconds), random)
}

fn spread(time: Duration, random: u64) -> Duration {
    // 0 to 199 thousandths.
    let part = u32::try_from(random % 200).unwrap_or(100);
    time * (900 + part) / 1000
}

#[cfg(test)]
mod tests {
    use super::{life, offered, refresh_after, retry_after};
    use portcullis_core::FetchResponse;
    use std::time::Duration;

    fn response(cache_control: Option<&str>, age: Option<u64>) -> FetchResponse {
        let mut response = FetchResponse::ok("");
        let fields =
            [("cache-control", cache_control.map(str::to_owned)), ("age", age.map(|age| age.to_string()))];
        for (name, value) in fields {
            let value = value.map(|value| value.parse().expect("a field"));
            response
                .headers
                .extend(value.map(|value: http::HeaderValue| (http::HeaderName::from_static(name), value)));
        }
        response
    }

    /// JKS-03.
    #[test]
    fn the_life_is_what_is_offered_within_bounds() {
        for (control, age, expected) in [
            (Some("max-age=120"), None, 120),
            (Some("public, Max-Age=\"120\", must-revalidate"), Some(20), 100),
            (Some("max-age=120"), Some(119), 30),
            (Some("max-age=0"), None, 30),
            (Some("max-age=86400"), None, 300),
            (Some("max-age=120, no-store"), None, 300),
            (Some("max-age=99999999999999999999"), None, 300),
            (Some("max-age=x"), None, 300),
            (Some("s-maxage=5"), None, 300),
            (None, None, 300),
        ] {
            let offered = offered(&response(control, age));
            assert_eq!(life(offered, Duration::from_secs(300)).as_secs(), expected, "{control:?} {age:?}");
        }
    }

    /// JKS-04.
    #[test]
    fn refreshes_come_before_the_end_and_are_spread() {
        let (early, late) =
            (refresh_after(Duration::from_secs(300), 0), refresh_after(Duration::from_secs(300), 199));
        assert!(early >= Duration::from_secs(210) && late < Duration::from_secs(270) && early < late);
    }

    #[test]
    fn retries_double_up_to_a_minute() {
        let seconds: Vec<_> = (1..9).map(|failures| retry_after(failures, 100).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry_after(4_000, 100).as_secs(), 60);
    }
}
