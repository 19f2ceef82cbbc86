//! Slows down whoever fails to show who they are, before anything expensive is done for them (PIPE-05).
//!
//! Three things are counted, and each is forgotten one by one as time passes:
//!
//! - the failures of one address under one claimed name. After a few of them that address waits before it may try
//!   that name again, longer each time;
//! - the names one address has failed under. After many of them the address waits, whatever it claims: this is
//!   what ends guessing of keys and spraying of passwords, where every attempt claims another name. Repeating one
//!   wrong credential counts once, so that a client with a stale key does not shut out its neighbours;
//! - the failures under one name, whatever the address. They refuse nobody by themselves. Once there are many, an
//!   address waits after its *first* failure under that name instead of after a few.
//!
//! SECURITY: what the guard cannot be used for (trap 27 of the requirements). A name is only a claim, so no count of
//! a name alone ever refuses: whoever has not failed under that name from their own address passes, however often
//! others have. The address is the one the connection proves, never one a header says. A success forgives the
//! address that name and nothing else, so owning one good credential does not buy more guesses at others. Waiting
//! means that one attempt is let through at the end of each wait, not all that have gathered meanwhile; an attempt
//! that is given up half-way has still been used. A caller who has succeeded of late from a watched address is not
//! held up by the failures of others behind it.
//!
//! SECURITY: where many callers share an address (a load balancer that does not say who calls, loopback), whoever
//! shares it could make somebody else's name wait. So nobody waits there: every credential is judged, a good one
//! passes however often others have failed under its name, and only one that *fails* during a wait is told to wait
//! (429). What that gives up: behind such an address guesses are slowed down by nothing but the bounds on expensive
//! work (the threads for passwords, the calls under way to a service of the operator's). An operator whose proxies
//! can say who calls (the PROXY protocol) has them say it, and then addresses are not shared.
//! Which connections come by a proxy is for their listener to say; `shared_addresses` are other networks of the kind.
//!
//! A credential that is already known to be good to this worker (a cached token) needs no expensive work and is
//! not asked for here. A refusal that says nothing about the credential's secret (it has expired, it could not be
//! checked) is no failure. An attempt that was let through while nothing was known of its address may be one of
//! many at once: how many is bounded by how much expensive work is let run at once.
//!
//! Callers of an address without failures cost one atomic read.

mod ledger;
mod records;
mod spec;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Connection, Moment, Reason, Rejection};

pub use ledger::{GuardCounts, GuardLedger};
pub use spec::GuardSpec;

use crate::chain::{Evidence, Outcome};
use crate::scheme::Authenticator;
use records::Record;
use spec::Settings;

/// What a presented credential says about itself before anything of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// None is presented, or what is presented is not one.
    Absent,
    /// It is known to be good: its secret or signature need not be checked again.
    Known,
    /// It claims a name, which was fed to the hasher.
    Named,
}

/// The guard of one snapshot: its settings over counts that outlive it.
#[derive(Clone, Debug)]
pub struct Guard {
    settings: Option<Arc<Settings>>,
    ledger: Arc<GuardLedger>,
}

impl Guard {
    /// One that lets everything through.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { settings: None, ledger: Arc::default() }
    }

    /// The same settings for a chain in shadow, over counts of their own: whoever would have to wait is not judged there,
    /// so that a chain which refuses nobody is no place to guess at.
    pub(crate) fn on_trial(&self) -> Self {
        Self { settings: self.settings.clone(), ledger: self.ledger.of_trials() }
    }

    /// Looks whether anybody at the address of that connection has failed of late.
    pub(crate) fn watch(&self, connection: &Connection, now: Moment) -> Watch<'_> {
        let Some(settings) = &self.settings else { return Watch { watching: None } };
        let (address, by_proxy) = (connection.address(), connection.shared);
        let network = self.ledger.networks.hash_one(Network::of(address));
        let now = milliseconds(now.monotonic);
        let alert = self.ledger.is_watched(network, now);
        Watch {
            watching: Some(Watching {
                settings,
                ledger: &self.ledger,
                address,
                by_proxy,
                network,
                now,
                alert,
            }),
        }
    }
}

/// One request in the eyes of the guard.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'g> {
    /// `None` where the guard is off.
    watching: Option<Watching<'g>>,
}

#[derive(Clone, Copy)]
struct Watching<'g> {
    settings: &'g Settings,
    ledger: &'g GuardLedger,
    address: IpAddr,
    /// Whether a proxy that does not say who calls is all that is known of the caller.
    by_proxy: bool,
    network: u64,
    now: u64,
    /// Whether there may be failures of this address.
    alert: bool,
}

/// An attempt that was let through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {
    /// Nobody at its address has failed; its name was not even read.
    Unwatched,
    /// It presents nothing to be guessed, or something known.
    Exempt,
    /// It is watched.
    Watched {
        /// The claimed name.
        name: u64,
        /// The record of the address under the name before this attempt used up its wait.
        pair: Option<Taken>,
        /// The same of the address.
        address: Option<Taken>,
        /// Whether a success is worth writing down.
        tells: bool,
        /// The wait it would have had to keep, were its address not shared: told only if it fails.
        held: Option<u64>,
    },
}

impl Attempt {
    /// Whether a success is worth writing down.
    pub(crate) const fn tells(&self) -> bool {
        matches!(self, Self::Watched { tells: true, .. })
    }
}

/// A record whose wait was used up by an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    before: u64,
    since: u64,
}

/// A wait that is not over.
struct Wait {
    left: u64,
    why: &'static str,
}

impl Watch<'_> {
    /// Asks whether a member of a chain may judge what is presented for it.
    ///
    /// # Errors
    /// This address has to wait: 429 with the time.
    pub(crate) async fn admit(
        &self,
        member: &Authenticator,
        evidence: &Evidence<'_>,
    ) -> Result<Attempt, Rejection> {
        match &self.watching {
            Some(watching) if watching.alert => watching.admit(member, evidence).await,
            Some(_) => Ok(Attempt::Unwatched),
            None => Ok(Attempt::Exempt),
        }
    }

    /// Hears what came of an attempt.
    ///
    /// # Errors
    /// It has failed, behind a shared address and during a wait: 429 with the time, in place of its own refusal.
    pub(crate) async fn settle(
        &self,
        attempt: Attempt,
        outcome: &Outcome,
        member: &Authenticator,
        evidence: &Evidence<'_>,
    ) -> Result<(), Rejection> {
        let Some(watching) = &self.watching else { return Ok(()) };
        let failed = matches!(outcome, Outcome::Rejected(rejection) if rejection.reason().is_failed_proof());
        match attempt {
            Attempt::Exempt => {}
            Attempt::Unwatched if failed => {
                if let Some(name) = watching.name(member, evidence).await {
                    watching.failed(name);
                }
            }
            Attempt::Unwatched => {}
            Attempt::Watched { name, held, .. } if failed => {
                watching.failed(name);
                if let Some(left) = held {
                    return Err(watching.refused(&Wait { left, why: BY_NAME }));
                }
            }
            Attempt::Watched { name, pair, address, .. } => watching.give_back(name, pair, address),
        }
        Ok(())
    }

    /// Hears that a whole request was good, of which an attempt was a part. SECURITY: only then does a success forgive:
    /// a credential that was good once and is used up may be somebody else's, overheard.
    pub(crate) fn forgive(&self, attempt: Attempt) {
        if let (Some(watching), Attempt::Watched { name, tells: true, .. }) = (&self.watching, attempt) {
            watching.succeeded(name);
        }
    }
}

impl Watching<'_> {
    async fn admit(&self, member: &Authenticator, evidence: &Evidence<'_>) -> Result<Attempt, Rejection> {
        let Some(name) = self.name(member, evidence).await else { return Ok(Attempt::Exempt) };
        self.try_for(name).map_err(|wait| self.refused(&wait))
    }

    fn refused(&self, wait: &Wait) -> Rejection {
        self.ledger.refused(wait.why == BY_NAME);
        Rejection::new(Reason::TooManyFailures)
            .because(wait.why)
            .retry_after(Duration::from_millis(wait.left.max(1)))
    }

    /// The hash of the name a credential claims, kept apart by the kind of authenticator.
    async fn name(&self, member: &Authenticator, evidence: &Evidence<'_>) -> Option<u64> {
        let mut hasher = self.ledger.hasher.build_hasher();
        member.method().as_str().hash(&mut hasher);
        match member.claim(evidence, &mut hasher).await {
            Claim::Named => Some(hasher.finish()),
            Claim::Absent | Claim::Known => None,
        }
    }

    fn pair(&self, name: u64) -> u64 {
        self.ledger.hasher.hash_one((self.network, name))
    }

    /// SECURITY: what one listener knows of a proxy says nothing about connections to another, nor about an address that
    /// a proxy announces: there the same address may be one caller's, who would be free to guess.
    fn is_shared(&self) -> bool {
        self.by_proxy || self.settings.shared.iter().any(|network| network.contains(&self.address))
    }

    fn try_for(&self, name: u64) -> Result<Attempt, Wait> {
        let (settings, now) = (self.settings, self.now);
        let pair = self.ledger.names.find(self.pair(name)).unwrap_or_default();
        let mut caller = settings.caller;
        if pair.failures(now, caller.forget) > 0 {
            let total = self.ledger.names.find(name).unwrap_or_default();
            if total.failures(now, settings.name.forget) >= settings.name.failures {
                caller.failures = 1;
            }
        }
        let of_pair = caller.judge(&pair, now);
        if self.is_shared() {
            let held = match of_pair {
                Verdict::Waits(left) => Some(left),
                Verdict::One | Verdict::Free => None,
            };
            let tells = pair.failures(now, caller.forget) > 0;
            return Ok(Attempt::Watched { name, pair: None, address: None, tells, held });
        }
        let of_address = self
            .ledger
            .addresses
            .find(self.network)
            .map(|record| (settings.address.judge(&record, now), record));
        if let Verdict::Waits(left) = of_pair {
            return Err(Wait { left, why: BY_NAME });
        }
        let trusted = pair.trusted_until > now && of_pair == Verdict::Free;
        let mut address = None;
        if let Some((verdict, record)) = of_address.filter(|_| !trusted) {
            match verdict {
                Verdict::Waits(left) => return Err(Wait { left, why: BY_ADDRESS }),
                Verdict::One => {
                    address = Some(self.take(&self.ledger.addresses, self.network, &record, BY_ADDRESS)?);
                }
                Verdict::Free => {}
            }
        }
        let mut taken = None;
        if of_pair == Verdict::One {
            match self.take(&self.ledger.names, self.pair(name), &pair, BY_NAME) {
                Ok(pair) => taken = Some(pair),
                Err(wait) => {
                    self.give_back(name, None, address);
                    return Err(wait);
                }
            }
        }
        let stale = pair.trusted_until < now.saturating_add(spec::TRUST / 2);
        let tells = pair.failures(now, caller.forget) > 0 || (of_address.is_some() && stale);
        Ok(Attempt::Watched { name, pair: taken, address, tells, held: None })
    }

    /// Uses up the wait of a record, unless another attempt has done so since it was read.
    fn take(
        &self,
        records: &records::Records,
        key: u64,
        seen: &Record,
        why: &'static str,
    ) -> Result<Taken, Wait> {
        let now = self.now;
        let taken = records.change(key, |record| {
            let free = record.since == seen.since && record.clear_at == seen.clear_at;
            if free {
                record.since = now;
            }
            free
        });
        match taken {
            Some(true) => Ok(Taken { before: seen.since, since: now }),
            // A record that was pushed out meanwhile keeps nobody waiting.
            None => Ok(Taken { before: seen.since, since: seen.since }),
            Some(false) => Err(Wait { left: self.settings.first_wait, why }),
        }
    }

    /// An attempt that says nothing against its caller has used up no wait.
    fn give_back(&self, name: u64, pair: Option<Taken>, address: Option<Taken>) {
        let give = |records: &records::Records, key: u64, taken: Taken| {
            records.change(key, |record| {
                if record.since == taken.since {
                    record.since = taken.before;
                }
            })
        };
        if let Some(taken) = pair {
            give(&self.ledger.names, self.pair(name), taken);
        }
        if let Some(taken) = address {
            give(&self.ledger.addresses, self.network, taken);
        }
    }

    fn succeeded(&self, name: u64) {
        let until = self.now.saturating_add(spec::TRUST);
        self.ledger.names.enter(self.pair(name), self.now, |record| {
            record.clear_at = 0;
            record.trusted_until = until;
        });
    }

    fn failed(&self, name: u64) {
        let (settings, now) = (self.settings, self.now);
        let first = self.ledger.names.enter(self.pair(name), now, |record| {
            let first = record.failures(now, settings.caller.forget) == 0;
            settings.caller.add(record, now);
            first
        });
        self.ledger.names.enter(name, now, |record| settings.name.add(record, now));
        if first && !self.is_shared() {
            self.ledger.addresses.enter(self.network, now, |record| settings.address.add(record, now));
        }
        self.ledger.failed(self.network, now.saturating_add(settings.longest_memory()));
    }
}

const BY_NAME: &str = "too many failures of this address under this name";
const BY_ADDRESS: &str = "failures of this address under too many names";

/// When so many failures begin to make somebody wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold {
    /// The failure after which there is a wait.
    failures: u64,
    /// One failure is forgotten every so many milliseconds.
    forget: u64,
    /// The first wait; every further failure doubles it.
    first_wait: u64,
    longest_wait: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Free,
    /// The wait is over; one attempt may be made.
    One,
    /// So many milliseconds are left.
    Waits(u64),
}

/// Failures beyond the threshold that are still counted: by then any wait is the longest, and a record that grew
/// without end would take as long to be forgotten.
const BEYOND: u64 = 16;

impl Threshold {
    fn add(&self, record: &mut Record, now: u64) {
        let most = self.forget.saturating_mul(self.failures.saturating_add(BEYOND));
        let clear_at = record.clear_at.max(now).saturating_add(self.forget);
        record.clear_at = clear_at.min(now.saturating_add(most));
        record.since = now;
    }

    fn judge(&self, record: &Record, now: u64) -> Verdict {
        if record.failures(now, self.forget) < self.failures {
            return Verdict::Free;
        }
        let over = record.failures(record.since, self.forget).saturating_sub(self.failures);
        let wait = self.first_wait.saturating_mul(1 << over.min(BEYOND)).min(self.longest_wait);
        match record.since.saturating_add(wait).saturating_sub(now) {
            0 => Verdict::One,
            left => Verdict::Waits(left),
        }
    }
}

/// What counts as one address: whoever has one IPv6 address has all of its /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => match address.octets() {
                // The whole of IPv4 as a translator shows it (RFC 6052) is no single network.
                [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Self::V4([a, b, c, d]),
                [a, b, c, d, e, f, g, h, ..] => Self::V6([a, b, c, d, e, f, g, h]),
            },
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
