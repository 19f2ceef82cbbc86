//! `guard:` in gateway.yaml.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_core::document::{Content, Fields, Node};
use portcullis_core::{Diagnostic, Faults};

use super::{BEYOND, Guard, GuardLedger, Threshold, milliseconds};

/// How long a success from a watched address speaks for its name there, in milliseconds.
pub(super) const TRUST: u64 = 3_600_000;

/// From when on failures make callers wait.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Of one address under one name.
    pub(super) caller: Threshold,
    /// Of one address under different names.
    pub(super) address: Threshold,
    /// Under one name, of all addresses. Its waits are not used.
    pub(super) name: Threshold,
    pub(super) first_wait: u64,
    /// Networks in which one address is many callers.
    pub(super) shared: Vec<IpNet>,
}

impl Settings {
    /// How long any failure may be remembered, in milliseconds.
    pub(super) fn longest_memory(&self) -> u64 {
        let of = |threshold: &Threshold| {
            threshold.forget.saturating_mul(threshold.failures.saturating_add(BEYOND))
        };
        of(&self.caller).max(of(&self.address))
    }
}

impl Default for Settings {
    fn default() -> Self {
        let of = |failures, forget_minutes: u64| {
            let forget = forget_minutes * 60_000;
            Threshold { failures, forget, first_wait: FIRST_WAIT, longest_wait: forget }
        };
        let shared = ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok());
        Self {
            caller: of(5, 15),
            address: of(50, 1),
            name: of(100, 1),
            first_wait: FIRST_WAIT,
            shared: shared.collect(),
        }
    }
}

const FIRST_WAIT: u64 = 1_000;

/// The guard as written.
#[derive(Clone, Debug, Default)]
pub struct GuardSpec {
    /// `None` where it is turned off.
    settings: Written,
}

#[derive(Clone, Debug, Default)]
enum Written {
    #[default]
    Default,
    Off,
    Settings(Arc<Settings>),
}

impl GuardSpec {
    /// Reads `off`, or settings that differ from the defaults.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        if matches!(node.content, Content::Text(_) | Content::Bool(_)) {
            node.one_of(&[("off", ()), ("false", ())], faults)?;
            return Some(Self { settings: Written::Off });
        }
        let mut fields = Fields::of(node, "`guard`", faults)?;
        let (caller, address) = (fields.get("caller"), fields.get("address"));
        let (name, first_wait) = (fields.get("name"), fields.get("first_wait"));
        let shared = fields.get("shared_addresses");
        fields.finish(faults);
        let mut settings = Settings::default();
        let first_wait = first_wait.map_or(Some(FIRST_WAIT), |node| time(node, faults));
        let caller =
            caller.map_or(Some(settings.caller), |node| threshold(node, settings.caller, true, faults));
        let address =
            address.map_or(Some(settings.address), |node| threshold(node, settings.address, true, faults));
        let name = name.map_or(Some(settings.name), |node| threshold(node, settings.name, false, faults));
        let shared = shared.map_or(Some(settings.shared.clone()), |node| networks(node, faults));
        settings.first_wait = first_wait?;
        (settings.caller, settings.address, settings.name) = (caller?, address?, name?);
        for threshold in [&mut settings.caller, &mut settings.address] {
            threshold.first_wait = settings.first_wait;
        }
        settings.shared = shared?;
        Some(Self { settings: Written::Settings(Arc::new(settings)) })
    }

    /// The guard, over counts that outlive the policies.
    pub fn compile(&self, ledger: &Arc<GuardLedger>) -> Guard {
        let settings = match &self.settings {
            Written::Off => None,
            Written::Default => Some(Arc::default()),
            Written::Settings(settings) => Some(Arc::clone(settings)),
        };
        Guard { settings, ledger: Arc::clone(ledger) }
    }
}

fn threshold(node: &Node, default: Threshold, waits: bool, faults: &mut Faults) -> Option<Threshold> {
    let mut fields = Fields::of(node, "a threshold of the guard", faults)?;
    let (failures, forget) = (fields.get("failures"), fields.get("forget"));
    let longest = if waits { fields.get("longest_wait") } else { None };
    fields.finish(faults);
    let failures = match failures {
        None => Some(default.failures),
        Some(node) => node.integer(1..=1_000_000, faults).and_then(|count| u64::try_from(count).ok()),
    };
    let forget = forget.map_or(Some(default.forget), |node| time(node, faults));
    let longest = longest.map_or(Some(default.longest_wait), |node| time(node, faults));
    Some(Threshold { failures: failures?, forget: forget?, longest_wait: longest?, ..default })
}

/// A time from a millisecond to a day: longer memories would outlive their meaning.
fn time(node: &Node, faults: &mut Faults) -> Option<u64> {
    let time = node.duration(faults)?;
    if time.is_zero() || time > Duration::from_secs(86_400) {
        faults.error("out_of_range", node.place, "the guard's times are longer than nothing and at most 1d");
        return None;
    }
    Some(milliseconds(time))
}

/// Networks, none of them where the list is empty.
fn networks(node: &Node, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let Content::List(items) = &node.content else { return node.expected("a list of networks", faults) };
    let read: Vec<IpNet> = items.iter().filter_map(|item| network(item, faults)).collect();
    (read.len() == items.len()).then_some(read)
}

fn network(node: &Node, faults: &mut Faults) -> Option<IpNet> {
    let text = node.text(faults)?;
    let address = || text.value.parse::<IpAddr>().ok().map(IpNet::from);
    let Some(network) = text.value.parse::<IpNet>().ok().or_else(address) else {
        faults.push(
            Diagnostic::error(
                "bad_network",
                text.place,
                format!("`{}` is no address or network", text.value),
            )
            .note("write 10.0.0.0/8, 2001:db8::/32, or a single address"),
        );
        return None;
    };
    if network.addr() != network.network() {
        faults.push(
            Diagnostic::error(
                "bad_network",
                text.place,
                format!("`{}` has bits behind its prefix", text.value),
            )
            .label(format!("did you mean `{}`?", network.trunc())),
        );
        return None;
    }
    if matches!(network, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some()) {
        faults.push(
            Diagnostic::error("bad_network", text.place, format!("`{}` never fits", text.value))
                .note("an IPv4 address that travelled as IPv6 counts as that IPv4 address: write it so"),
        );
        return None;
    }
    Some(network)
}
