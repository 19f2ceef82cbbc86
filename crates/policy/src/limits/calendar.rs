//! Windows of the calendar: a day, a week or a month of a time zone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use portcullis_core::Moment;

/// How long a window of the calendar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Day,
    /// From Monday (ISO 8601).
    Week,
    Month,
}

impl Unit {
    /// The unit of a quota that is written as so many in that time.
    pub(super) const fn of_days(days: u64) -> Option<Self> {
        match days {
            1 => Some(Self::Day),
            7 => Some(Self::Week),
            30 => Some(Self::Month),
            _ => None,
        }
    }

    /// Longer than any such window is, in seconds, with the hours that clocks are set by: as long must a counter be
    /// remembered.
    pub(super) const fn longest_seconds(self) -> u64 {
        const DAY: u64 = 86_400;
        match self {
            Self::Day => 2 * DAY,
            Self::Week => 8 * DAY,
            Self::Month => 32 * DAY,
        }
    }

    /// The first day of the window a day lies in, and that of the next one.
    fn around(self, day: Date) -> Option<(Date, Date)> {
        let first = match self {
            Self::Day => day,
            Self::Week => {
                let since = day.weekday().since(Weekday::Monday);
                day.checked_sub(i64::from(since).days()).ok()?
            }
            Self::Month => day.first_of_month(),
        };
        let span = match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
        };
        Some((first, first.checked_add(span).ok()?))
    }
}

/// One window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its first day, which tells its counters from those of every other window of the limit.
    pub(super) first_day: String,
    /// That of the window before.
    pub(super) last_first_day: String,
    begins: i64,
    /// Second since 1970 at which the next one begins.
    pub(super) ends: i64,
}

/// The windows of one limit.
#[derive(Debug)]
pub(super) struct Calendar {
    unit: Unit,
    zone: TimeZone,
    /// The one that was looked at last: nearly always the one that is asked for.
    current: ArcSwapOption<Window>,
}

impl Calendar {
    pub(super) fn new(unit: Unit, zone: TimeZone) -> Self {
        Self { unit, zone, current: ArcSwapOption::empty() }
    }

    /// The window a moment lies in. `None` outside of the years a calendar has.
    pub(super) fn window(&self, now: Moment) -> Option<Arc<Window>> {
        let now = now.unix_seconds();
        if let Some(current) = &*self.current.load()
            && (current.begins..current.ends).contains(&now)
        {
            return Some(Arc::clone(current));
        }
        let found = Arc::new(self.find(now)?);
        self.current.store(Some(Arc::clone(&found)));
        Some(found)
    }

    fn find(&self, now: i64) -> Option<Window> {
        let day = Timestamp::from_second(now).ok()?.to_zoned(self.zone.clone()).date();
        let (first, next) = self.unit.around(day)?;
        // Where clocks are set at midnight, a day begins when it has begun.
        let second = |day: Date| Some(day.to_zoned(self.zone.clone()).ok()?.timestamp().as_second());
        let (last, _) = self.unit.around(first.yesterday().ok()?)?;
        let last_first_day = last.to_string();
        Some(Window {
            first_day: first.to_string(),
            last_first_day,
            begins: second(first)?,
            ends: second(next)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use portcullis_core::Moment;

    use super::{Calendar, Unit};

    fn at(text: &str) -> Moment {
        let second = text.parse::<Timestamp>().expect("a moment").as_second();
        Moment { unix_ms: second * 1000, monotonic: Duration::ZERO }
    }

    /// First day, and hours of the window, at a moment.
    fn window(calendar: &Calendar, now: &str) -> (String, i64) {
        let window = calendar.window(at(now)).expect("a window");
        assert!((window.begins..window.ends).contains(&at(now).unix_seconds()), "{now}: {window:?}");
        (window.first_day.clone(), (window.ends - window.begins) / 3_600)
    }

    #[test]
    fn windows_are_those_of_the_calendar() {
        let in_zone = |unit, zone: &str| Calendar::new(unit, TimeZone::get(zone).expect("a zone"));
        for (unit, zone, now, first_day, hours) in [
            (Unit::Day, "UTC", "2026-11-26T23:59:59Z", "2026-11-26", 24),
            (Unit::Day, "UTC", "2026-11-27T00:00:00Z", "2026-11-27", 24),
            // The days on which clocks are set.
            (Unit::Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", 23),
            (Unit::Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25", 25),
            (Unit::Day, "Europe/Berlin", "2026-10-25T22:59:59Z", "2026-10-25", 25),
            (Unit::Day, "Europe/Berlin", "2026-10-25T23:00:00Z", "2026-10-26", 24),
            (Unit::Day, "Pacific/Auckland", "2026-11-26T12:00:00Z", "2026-11-27", 24),
            // A zone whose day of setting has no midnight.
            (Unit::Day, "America/Asuncion", "2023-10-01T12:00:00Z", "2023-10-01", 23),
            (Unit::Week, "UTC", "2026-11-26T00:00:00Z", "2026-11-23", 168),
            (Unit::Week, "UTC", "2026-11-23T00:00:00Z", "2026-11-23", 168),
            (Unit::Week, "UTC", "2026-11-22T23:59:59Z", "2026-11-16", 168),
            (Unit::Week, "UTC", "2027-01-01T00:00:00Z", "2026-12-28", 168),
            (Unit::Month, "UTC", "2026-11-30T23:59:59Z", "2026-11-01", 720),
            (Unit::Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01", 744),
            (Unit::Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01", 696),
            (Unit::Month, "UTC", "2027-02-28T12:00:00Z", "2027-02-01", 672),
            (Unit::Month, "Europe/Berlin", "2026-10-01T00:00:00Z", "2026-10-01", 745),
        ] {
            let calendar = in_zone(unit, zone);
            assert_eq!(window(&calendar, now), (first_day.to_owned(), hours), "{unit:?} {zone} {now}");
            assert!(unit.longest_seconds() > u64::try_from(hours).expect("hours") * 3_600);
        }
    }

    /// What is remembered of the last look is no answer to another question, forwards or backwards.
    #[test]
    fn windows_come_one_after_another() {
        let calendar = Calendar::new(Unit::Month, TimeZone::get("Europe/Berlin").expect("a zone"));
        let mut now = at("2024-01-15T00:00:00Z");
        for _ in 0..60 {
            let window = calendar.window(now).expect("a window");
            let last = Moment { unix_ms: window.ends * 1000 - 1, ..now };
            assert_eq!(calendar.window(last).as_ref(), Some(&window));
            now = Moment { unix_ms: window.ends * 1000, ..now };
            let next = calendar.window(now).expect("a window");
            assert_eq!((next.begins, calendar.window(last)), (window.ends, Some(window)));
        }
    }
}
