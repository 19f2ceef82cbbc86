//! The clock that quota windows are measured by.

use portcullis_core::Moment;
use std::sync::atomic::{AtomicI64, Ordering};

/// The furthest the clock goes, in milliseconds: its seconds fit 32 bits, short of the values cells use as marks.
const LATEST_MS: i64 = (u32::MAX as i64 - 16) * 1000;

/// Where the clock of a new store begins. Not at zero, so that a reading a little older than the first is still one.
const BEGINNING_MS: i64 = 1_000_000_000;

/// The longest absence that is believed. A wall clock that was wildly wrong at one start uses up a little of the
/// clock's 136 years, not all of them.
const LONGEST_ABSENCE_MS: i64 = 400 * 86_400 * 1000;

/// Stands for "no reading yet".
const UNSET: i64 = i64::MIN;

/// Both sides of one reading, as the file keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockRow {
    /// The store's own clock, in milliseconds.
    pub(crate) store_ms: i64,
    /// The wall clock at the same moment.
    pub(crate) unix_ms: i64,
}

impl ClockRow {
    /// How far apart the two clocks are. It changes only when somebody sets the wall clock.
    pub(crate) const fn drift_ms(self) -> i64 {
        self.unix_ms.saturating_sub(self.store_ms)
    }
}

/// A clock that cannot be set.
///
/// Within one run it goes by the monotonic clock, so setting the wall clock neither ends a window early nor keeps
/// one from ending. From one run to the next it goes by the wall clock, the only one that knows how long the gateway
/// was away; a wall clock that went back counts as no time at all. So a window is never shorter than its period
/// unless the wall clock jumped ahead while the gateway was down, and never lasts longer than its period of the
/// gateway's own running time.
#[derive(Debug)]
pub(crate) struct QuotaClock {
    last: Option<ClockRow>,
    /// Store time minus monotonic time, in milliseconds; set by the first reading.
    offset_ms: AtomicI64,
}

impl QuotaClock {
    /// Goes on from what the file remembers.
    pub(crate) fn after(last: Option<ClockRow>) -> Self {
        Self { last, offset_ms: AtomicI64::new(UNSET) }
    }

    /// The store's time at a reading of the machine's clocks, in milliseconds.
    pub(crate) fn at(&self, now: Moment) -> i64 {
        let monotonic_ms = i64::try_from(now.monotonic.as_millis()).unwrap_or(LATEST_MS).min(LATEST_MS);
        let mut offset = self.offset_ms.load(Ordering::Relaxed);
        if offset == UNSET {
            let first = self.resumed_at(now.unix_ms).saturating_sub(monotonic_ms);
            offset = match self.offset_ms.compare_exchange(UNSET, first, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => first,
                Err(set_meanwhile) => set_meanwhile,
            };
        }
        monotonic_ms.saturating_add(offset).clamp(0, LATEST_MS)
    }

    fn resumed_at(&self, unix_ms: i64) -> i64 {
        self.last.map_or(BEGINNING_MS, |last| {
            let absence_ms = unix_ms.saturating_sub(last.unix_ms).clamp(0, LONGEST_ABSENCE_MS);
            last.store_ms.saturating_add(absence_ms).clamp(0, LATEST_MS)
        })
    }
}

/// Whole seconds, rounded down: for asking whether a window is over.
pub(crate) fn seconds_down(ms: i64) -> u32 {
    u32::try_from(ms.div_euclid(1000)).unwrap_or(0)
}

/// Whole seconds, rounded up: for opening a window, which is then never a moment too short.
pub(crate) fn seconds_up(ms: i64) -> u32 {
    seconds_down(ms.saturating_add(999))
}

#[cfg(test)]
mod tests {
    use super::{
        BEGINNING_MS, ClockRow, LATEST_MS, LONGEST_ABSENCE_MS, QuotaClock, seconds_down, seconds_up,
    };
    use portcullis_core::Moment;
    use std::time::Duration;

    const DAY_MS: i64 = 86_400_000;

    fn moment(unix_ms: i64, monotonic_ms: u64) -> Moment {
        Moment { unix_ms, monotonic: Duration::from_millis(monotonic_ms) }
    }

    #[test]
    fn setting_the_wall_clock_does_not_move_it() {
        let clock = QuotaClock::after(None);
        assert_eq!(clock.at(moment(50 * DAY_MS, 5_000)), BEGINNING_MS);
        assert_eq!(clock.at(moment(49 * DAY_MS, 6_000)), BEGINNING_MS + 1_000);
        assert_eq!(clock.at(moment(99 * DAY_MS, 7_000)), BEGINNING_MS + 2_000);
    }

    #[test]
    fn a_reading_older_than_the_first_is_that_much_older() {
        let clock = QuotaClock::after(None);
        assert_eq!(clock.at(moment(0, 5_000)), BEGINNING_MS);
        assert_eq!(clock.at(moment(0, 4_000)), BEGINNING_MS - 1_000);
    }

    #[test]
    fn an_absence_counts_by_the_wall_clock() {
        let last = ClockRow { store_ms: 7_000, unix_ms: 10 * DAY_MS };
        let resumed = |unix_ms| QuotaClock::after(Some(last)).at(moment(unix_ms, 123));
        assert_eq!(resumed(11 * DAY_MS), 7_000 + DAY_MS);
        assert_eq!(resumed(10 * DAY_MS), 7_000);
        assert_eq!(resumed(9 * DAY_MS), 7_000, "a clock set back counts as no absence");
        assert_eq!(resumed(i64::MAX), 7_000 + LONGEST_ABSENCE_MS);
        assert_eq!(resumed(i64::MIN), 7_000);
    }

    #[test]
    fn extreme_readings_stay_within_the_clock() {
        let last = ClockRow { store_ms: i64::MAX, unix_ms: i64::MIN };
        let clock = QuotaClock::after(Some(last));
        let late = clock.at(Moment { unix_ms: i64::MAX, monotonic: Duration::MAX });
        assert_eq!(late, LATEST_MS);
        assert!(seconds_up(late) < u32::MAX);
        assert_eq!((seconds_down(1_999), seconds_up(1_001), seconds_up(1_000)), (1, 2, 1));
    }
}
