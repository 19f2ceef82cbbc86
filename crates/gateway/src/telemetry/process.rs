//! The `process_*` metrics, read from `/proc/self` when somebody scrapes.

use std::fs;

use super::Telemetry;

/// Linux counts in hundredths of a second here, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// Sets the metrics; on a machine without `/proc` they are absent.
pub(super) fn record(telemetry: &Telemetry) {
    if let Some((cpu, started)) = times() {
        telemetry.gauge("process_cpu_seconds_total", vec![], cpu);
        telemetry.gauge("process_start_time_seconds", vec![], started);
    }
    if let Some(pages) =
        fs::read_to_string("/proc/self/statm").ok().and_then(|text| number(text.split(' ').nth(1)?))
    {
        telemetry.gauge("process_resident_memory_bytes", vec![], pages * PAGE_BYTES);
    }
    if let Ok(listing) = fs::read_dir("/proc/self/fd") {
        telemetry.gauge("process_open_fds", vec![], listing.count().min(1 << 24) as f64);
    }
}

fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name and may hold spaces; the fields counted here come after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| number(fields.get(index)?);
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let booted = number(boot.lines().find_map(|line| line.strip_prefix("btime "))?)?;
    Some(((field(11)? + field(12)?) / TICKS_PER_SECOND, booted + field(19)? / TICKS_PER_SECOND))
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Telemetry;

    #[test]
    fn a_scrape_tells_about_the_process() {
        let text = Telemetry::new().render();
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            assert!(
                line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n >= 0.0),
                "{line}"
            );
        }
    }
}
