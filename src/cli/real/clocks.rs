//! How fast the machine runs while it is measured: clock rates, temperature, time that others took.
//!
//! A rate that moves, a GPU that throttles or a hypervisor that lends the processor to somebody else explains a drift that
//! no property of a step does. All of it is noted as the system says it; what the system does not say is left out.

use super::Device;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const GPU_FIELDS: [&str; 6] = [
    "name",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "clocks_throttle_reasons.active",
];

/// What the device runs at now. For a GPU `nvidia-smi` is asked, which takes some tens of milliseconds.
pub fn now(device: Device) -> Value {
    match device {
        Device::Cpu => json!({
            "cpu_mhz": cpu_mhz(),
            "governor": governor(),
            "load": load_average(),
        }),
        Device::Cuda => json!({"gpu": gpu(), "load": load_average()}),
    }
}

/// Programs that wanted to run in the last minute, on average.
pub fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Of all processors, since the machine started.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// Until now; `None` where the system does not count.
    pub fn now() -> Option<Ticks> {
        Ticks::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The line `cpu`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Ticks> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        Some(Ticks {
            all: numbers.iter().take(8).sum(),
            stolen: *numbers.get(7)?,
        })
    }

    /// Of the processors' time since `earlier`, the share that the hypervisor gave to others.
    pub fn stolen_since(&self, earlier: &Ticks) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        Some(self.stolen.checked_sub(earlier.stolen)? as f64 / all as f64)
    }
}

/// Mean over the processors.
fn cpu_mhz() -> Option<f64> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let rates = text.lines().filter(|line| line.starts_with("cpu MHz"));
    let rates = rates.filter_map(|line| line.split(':').nth(1)?.trim().parse::<f64>().ok());
    let rates: Vec<f64> = rates.collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

fn governor() -> Option<String> {
    let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn gpu() -> Option<Value> {
    let query = format!("--query-gpu={}", GPU_FIELDS.join(","));
    let asked = Command::new("nvidia-smi")
        .args([query.as_str(), "--format=csv,noheader,nounits", "--id=0"])
        .output()
        .ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    let values = text.lines().next()?.split(',').map(str::trim);
    let pairs = GPU_FIELDS.iter().zip(values);
    Some(
        pairs
            .map(|(field, value)| ((*field).to_owned(), json!(value)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let ticks = |text| Ticks::parse(text).expect("a line of the kernel's");
        let before = ticks("cpu  100 0 50 800 10 0 0 40 7 0\ncpu0 1 2 3\n");
        let after = ticks("cpu  150 0 60 830 10 0 0 50 9 0\n");
        // 50 + 10 + 30 + 10 ticks later, 10 of them stolen; the guests' are in the user's already.
        assert_eq!(after.stolen_since(&before), Some(0.1));
        assert_eq!(before.stolen_since(&after), None);
        assert!(Ticks::parse("intr 1 2 3").is_none() && Ticks::parse("cpu 1 2").is_none());
    }
}
