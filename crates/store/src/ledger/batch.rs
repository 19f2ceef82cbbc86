//! Everything that one commit makes durable.
//!
//! A batch decides first, on paper, what each waiting request would get; then all of it is written in one
//! transaction; only then do the cells change and the requests hear of it. If the write fails, nothing has happened.

use super::file::{Record, Row};
use super::{Reply, Take, TakeFor};
use crate::LimitId;
use crate::error::StoreError;
use crate::quota::{
    Asked, QuotaCell, QuotaCells, QuotaOutcome, QuotaRule, is_over, seconds_down, seconds_up,
};
use ahash::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// What a batch will do to one caller's window.
struct Draft {
    cells: Arc<QuotaCells>,
    key: Arc<str>,
    /// The cell that goes on; `None` if one is to be put in.
    cell: Option<Arc<QuotaCell>>,
    start: u32,
    /// What the cell will have handed out at most, with what is granted here.
    used: u32,
    granted: u32,
    /// What the file holds of this window.
    durable: u32,
    /// What it is to hold.
    reserved: u32,
    /// In seconds: how long the file must remember it.
    period: u32,
    /// Percentages of the rule that were told of before this, where there is no cell to say.
    told: u8,
    answers: Vec<Answer>,
}

/// What a waiting request gets.
struct Answer {
    reply: Reply,
    outcome: QuotaOutcome,
    rule: QuotaRule,
    /// Percentages that are reached with it.
    reached: u8,
}

/// What a caller's state is before the batch touches it.
enum Found {
    Answer(QuotaOutcome),
    Draft(Draft),
}

/// How a batch reads the file.
pub(crate) type Records<'r> = &'r dyn Fn(&LimitId, &str) -> Result<Option<Record>, StoreError>;

#[derive(Default)]
pub(crate) struct Batch {
    drafts: HashMap<(usize, Arc<str>), Draft, RandomState>,
}

impl Batch {
    /// Decides what a waiting request would get. It is answered at once if nothing needs to be written for it, or
    /// if what the file holds of it cannot be read.
    pub(crate) fn take(&mut self, take: Take, now_ms: i64, records: Records<'_>) {
        let Take { unit: TakeFor { cells, key, last, rule, .. }, reply } = take;
        let draft = match self.drafts.entry((Arc::as_ptr(&cells).addr(), Arc::clone(&key))) {
            Entry::Occupied(draft) => draft.into_mut(),
            Entry::Vacant(place) => match Draft::find(&cells, (&key, last.as_deref()), rule, now_ms, records)
            {
                Ok(Found::Draft(draft)) => place.insert(draft),
                Ok(Found::Answer(outcome)) => return answer(reply, outcome, &cells, &key),
                // A request that no longer waits needs no answer.
                Err(error) => return drop(reply.send(Err(error))),
            },
        };
        draft.grant(rule, now_ms, reply);
    }

    /// Raises the reservation of a window whose durable units run low.
    pub(crate) fn extend(&mut self, cells: Arc<QuotaCells>, cell: Arc<QuotaCell>, rule: QuotaRule) {
        let Entry::Vacant(place) = self.drafts.entry((Arc::as_ptr(&cells).addr(), Arc::clone(cell.key())))
        else {
            // Somebody waits for the same window: what is reserved for them includes a block.
            return;
        };
        let durable = cell.durable();
        match cell.used() {
            Some(used) if reservation(used, rule) > durable => {
                place.insert(Draft {
                    key: Arc::clone(cell.key()),
                    start: cell.start(),
                    used,
                    granted: 0,
                    durable,
                    reserved: reservation(used, rule),
                    period: rule.remembered().max(cell.period()),
                    told: 0,
                    answers: Vec::new(),
                    cells,
                    cell: Some(cell),
                });
            }
            _ => cell.may_ask_again(),
        }
    }

    /// What must be durable before the batch is settled.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let unwritten = self.drafts.values().filter(|draft| draft.is_unwritten());
        unwritten
            .map(|draft| {
                let record = Record { start: draft.start, units: draft.reserved, period: draft.period };
                Row { id: draft.cells.id(), key: &draft.key, record: Some(record) }
            })
            .collect()
    }

    /// Puts everything into effect, or, if it could not be written, what needed no writing.
    pub(crate) fn settle(self, written: &Result<(), StoreError>) {
        for draft in self.drafts.into_values() {
            match written {
                Err(error) if draft.is_unwritten() => draft.fail(error),
                _ => draft.settle(),
            }
        }
    }
}

impl Draft {
    /// Where a caller stands: in memory, in the file, or at the start of a new window.
    fn find(
        cells: &Arc<QuotaCells>,
        (key, last): (&Arc<str>, Option<&str>),
        rule: QuotaRule,
        now_ms: i64,
        records: Records<'_>,
    ) -> Result<Found, StoreError> {
        let mut before = None;
        if let Some(cell) = cells.find(key) {
            match cell.take(now_ms, &rule) {
                Asked::Decided { outcome, .. } => {
                    // The request outran a commit that has come since. The next taker may ask for more.
                    cell.may_ask_again();
                    return Ok(Found::Answer(outcome));
                }
                Asked::Exhausted => return Ok(Found::Draft(Self::going_on(cells, cell, rule))),
                Asked::Expired => before = cell.used().map(|used| (cell.start(), used)),
                Asked::Retired => {}
            }
        }
        if before.is_none() {
            match records(cells.id(), key)? {
                Some(record) if !is_over(record.start, rule.period(), seconds_down(now_ms)) => {
                    return Ok(Found::Draft(Self::coming_back(cells, key, rule, record)));
                }
                found => before = found.map(|record| (record.start, record.units)),
            }
        }
        if let Some(last) = last.filter(|_| rule.carried > 0) {
            before = match cells.find(last).and_then(|cell| Some((cell.start(), cell.used()?))) {
                Some(found) => Some(found),
                None => records(cells.id(), last)?.map(|record| (record.start, record.units)),
            };
        }
        Ok(Found::Draft(Self::opening(cells, key, rule, now_ms, before)))
    }

    /// A window of which the file knows.
    fn coming_back(cells: &Arc<QuotaCells>, key: &Arc<str>, rule: QuotaRule, record: Record) -> Self {
        Self {
            cells: Arc::clone(cells),
            key: Arc::clone(key),
            cell: None,
            start: record.start,
            // SECURITY: what was reserved counts as used. Whether it was handed out before a crash, nobody knows.
            used: record.units,
            granted: 0,
            durable: record.units,
            reserved: record.units,
            period: rule.remembered().max(record.period),
            told: rule.reached(record.units.into()),
            answers: Vec::new(),
        }
    }

    fn going_on(cells: &Arc<QuotaCells>, cell: Arc<QuotaCell>, rule: QuotaRule) -> Self {
        let durable = cell.durable();
        Self {
            cells: Arc::clone(cells),
            key: Arc::clone(cell.key()),
            start: cell.start(),
            // The cell stands at its reservation and cannot pass it until this thread raises it. Should a unit be
            // given back meanwhile, another taker may have it, but not one more.
            used: durable,
            granted: 0,
            durable,
            reserved: durable,
            period: rule.remembered().max(cell.period()),
            told: 0,
            answers: Vec::new(),
            cell: Some(cell),
        }
    }

    /// A new window; `before` is the caller's last one, as far as it is remembered.
    fn opening(
        cells: &Arc<QuotaCells>,
        key: &Arc<str>,
        rule: QuotaRule,
        now_ms: i64,
        before: Option<(u32, u32)>,
    ) -> Self {
        Self {
            cells: Arc::clone(cells),
            key: Arc::clone(key),
            cell: None,
            start: seconds_up(now_ms),
            used: rule.opens_with(before, seconds_down(now_ms)),
            granted: 0,
            durable: 0,
            reserved: 0,
            period: rule.remembered(),
            told: 0,
            answers: Vec::new(),
        }
    }

    fn grant(&mut self, rule: QuotaRule, now_ms: i64, reply: Reply) {
        let left = match rule.time_left(self.start, now_ms) {
            Some(left) => left,
            None => {
                // Two rules meet in one batch, just after a reload, and the newer one's period is over.
                self.reopen(rule, now_ms);
                rule.time_left(self.start, now_ms).unwrap_or(rule.per)
            }
        };
        self.period = self.period.max(rule.remembered());
        if self.used >= rule.count {
            let outcome = QuotaOutcome::Refused { retry_after: left };
            return self.answers.push(Answer { reply, outcome, rule, reached: 0 });
        }
        self.used = self.used.saturating_add(1);
        self.granted = self.granted.saturating_add(1);
        self.reserved = self.reserved.max(reservation(self.used, rule));
        let units = u64::from(self.used);
        let (outcome, reached) = (rule.taken(units, left), rule.reached(units));
        self.answers.push(Answer { reply, outcome, rule, reached });
    }

    fn reopen(&mut self, rule: QuotaRule, now_ms: i64) {
        self.used = rule.opens_with(Some((self.start, self.used)), seconds_down(now_ms));
        self.cell = None;
        self.start = seconds_up(now_ms);
        self.granted = 0;
        self.durable = 0;
        self.reserved = 0;
        self.told = 0;
    }

    const fn is_unwritten(&self) -> bool {
        self.reserved > self.durable
    }

    fn settle(self) {
        let cell = match self.cell {
            Some(cell) => {
                // A cell that a sweep has retired meanwhile is over; what was granted is granted all the same.
                let _ = cell.extend(self.granted, self.reserved);
                cell
            }
            None => {
                let key = Arc::clone(&self.key);
                let cell = QuotaCell::new(key, self.start, self.period, self.used, self.reserved);
                self.cells.put(cell.having_told(self.told))
            }
        };
        for Answer { reply, outcome, rule, reached } in self.answers {
            let outcome = outcome.reaching(&rule, cell.tell(reached));
            answer(reply, outcome, &self.cells, &self.key);
        }
    }

    fn fail(self, error: &StoreError) {
        if let Some(cell) = &self.cell {
            cell.may_ask_again();
        }
        for Answer { reply, .. } in self.answers {
            // A request that no longer waits needs no answer.
            drop(reply.send(Err(error.clone())));
        }
    }
}

/// How much is to be durable once `used` units are handed out.
fn reservation(used: u32, rule: QuotaRule) -> u32 {
    used.saturating_add(rule.block()).min(rule.count)
}

/// Answers a request; one that no longer waits has its unit put back.
fn answer(reply: Reply, outcome: QuotaOutcome, cells: &QuotaCells, key: &str) {
    if reply.send(Ok(outcome)).is_err()
        && matches!(outcome, QuotaOutcome::Taken { .. })
        && let Some(cell) = cells.find(key)
    {
        cell.give_back(u32::MAX);
    }
}
