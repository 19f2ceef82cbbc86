//! Durations, sizes and rates as people write them.

use std::time::Duration;

/// A count per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how long.
    pub per: Duration,
}

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Reads `250ms`, `5s`, `2m`, `1h`, `30d`.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "" => return Err(format!("`{text}` has no unit")),
        _ => return Err(format!("`{unit}` is not a unit of time")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| format!("`{text}` is too long"))
}

/// Reads `512B`, `64KiB`, `8MiB`, `1GiB`, into bytes.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err(format!("`{text}` has no unit")),
        _ => return Err(format!("`{unit}` is not a unit of size")),
    };
    number.checked_mul(bytes).ok_or_else(|| format!("`{text}` is too large"))
}

/// Reads `20 per second`, `100000 per day`, `5 per 10s`.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub fn rate(text: &str) -> Result<Rate, String> {
    let Some((count, per)) = text.split_once(" per ") else {
        return Err(format!("`{text}` does not say how many per what time"));
    };
    let count = count.trim().parse().map_err(|_| format!("`{}` is not a whole number", count.trim()))?;
    let per = match per.trim() {
        "second" => Duration::from_secs(SECOND),
        "minute" => Duration::from_secs(MINUTE),
        "hour" => Duration::from_secs(HOUR),
        "day" => Duration::from_secs(DAY),
        "week" => Duration::from_secs(7 * DAY),
        "month" => Duration::from_secs(30 * DAY),
        other => duration(other)?,
    };
    if per.is_zero() {
        return Err(format!("`{text}` has a time of zero"));
    }
    Ok(Rate { count, per })
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("`{text}` does not start with a number"));
    }
    Ok((number.parse().map_err(|_| format!("`{number}` is too large"))?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::{Rate, duration, rate, size};
    use std::time::Duration;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(rate("20 per second"), Ok(Rate { count: 20, per: Duration::from_secs(1) }));
        assert_eq!(rate("5 per 10s"), Ok(Rate { count: 5, per: Duration::from_secs(10) }));
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_reason() {
        assert_eq!(duration("5"), Err("`5` has no unit".to_owned()));
        assert_eq!(duration("5 weeks"), Err("`weeks` is not a unit of time".to_owned()));
        assert_eq!(size("8MB"), Err("`MB` is not a unit of size".to_owned()));
        assert_eq!(size("99999999999999999999B"), Err("`99999999999999999999` is too large".to_owned()));
        assert!(rate("20/s").is_err());
        assert!(rate("-1 per second").is_err());
        assert!(rate("1 per 0s").is_err());
        assert!(duration("99999999999999d").is_ok() && duration("999999999999999999d").is_err());
    }
}
