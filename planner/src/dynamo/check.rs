//! Everything that can be wrong with the settings, all of it at once.
//!
//! Latencies of zero, budgets whose bounds cross or that cannot hold the smallest deployment, ticks that do not divide
//! the intervals, a fast loop that is not faster than the slow one, floors for roles that are not there, thresholds
//! without a gap.

use super::config::{Capabilities, Mode, PlannerConfig, Target};
use crate::budget::GpuBudget;
use crate::observe::{PerRole, Role};
use crate::problem::{ConfigProblem, Problems};

impl PlannerConfig {
    /// Everything that is wrong for workers of these capabilities; nothing if the planner can run.
    #[must_use]
    pub fn problems(&self, capabilities: &PerRole<Option<Capabilities>>) -> Vec<ConfigProblem> {
        let mut found = Problems::default();
        self.check_sla(&mut found);
        self.check_intervals(&mut found);
        self.check_floors(&mut found);
        self.check_budget(capabilities, &mut found);
        if self.optimization_target == Target::Load {
            self.check_thresholds(&mut found);
        }
        self.check_samples(&mut found);
        found.all()
    }

    fn check_sla(&self, found: &mut Problems) {
        for (field, value) in [("ttft_ms", self.ttft_ms), ("itl_ms", self.itl_ms)] {
            if value <= 0.0 || !value.is_finite() {
                found.add(
                    field,
                    value,
                    "milliseconds above zero",
                    "give the latency that clients are promised",
                );
            }
        }
        let sensitivity = self.load_scaling_down_sensitivity;
        if !(0.0..=100.0).contains(&sensitivity) {
            found.add(
                "load_scaling_down_sensitivity",
                sensitivity,
                "per cent from 0 to 100",
                "80 is the default",
            );
        }
    }

    fn check_intervals(&self, found: &mut Problems) {
        let (load, throughput) = (
            self.load_adjustment_interval_seconds,
            self.throughput_adjustment_interval_seconds,
        );
        let mut intervals = vec![("load_adjustment_interval_seconds", load)];
        if self.scales_by_throughput() {
            intervals.push(("throughput_adjustment_interval_seconds", throughput));
        }
        for &(field, seconds) in &intervals {
            if seconds == 0 {
                found.add(
                    field,
                    seconds,
                    "seconds above zero",
                    "180 for throughput and 5 for load are the defaults",
                );
            }
        }
        if let Some(tick) = self.scale_interval_seconds {
            let ms = (tick * 1000.0).round();
            if tick <= 0.0 || !tick.is_finite() {
                found.add(
                    "scale_interval_seconds",
                    tick,
                    "seconds above zero",
                    "leave it out to tick as often as the intervals need",
                );
            } else {
                for &(field, seconds) in &intervals {
                    if (f64::from(seconds) * 1000.0) % ms != 0.0
                        || (ms - tick * 1000.0).abs() > 1e-6
                    {
                        let expected =
                            format!("a divisor of {field} ({seconds} s), in whole milliseconds");
                        found.add(
                            "scale_interval_seconds",
                            tick,
                            &expected,
                            "leave it out to tick as often as the intervals need",
                        );
                    }
                }
            }
        }
        if !self.scales_by_load() && !self.scales_by_throughput() {
            found.add(
                "enable_load_scaling",
                false,
                "true, or enable_throughput_scaling true",
                "switch one of the two on",
            );
        }
        if self.scales_by_load() && self.scales_by_throughput() && load >= throughput {
            let expected =
                format!("less than throughput_adjustment_interval_seconds ({throughput})");
            found.add(
                "load_adjustment_interval_seconds",
                load,
                &expected,
                "load is the fast loop, traffic the slow one",
            );
        }
    }

    fn check_floors(&self, found: &mut Problems) {
        for (field, value, role) in [
            (
                "prefill_min_endpoint",
                self.prefill_min_endpoint,
                Role::Prefill,
            ),
            (
                "decode_min_endpoint",
                self.decode_min_endpoint,
                Role::Decode,
            ),
        ] {
            let Some(value) = value else { continue };
            if value == 0 {
                found.add(
                    field,
                    value,
                    "at least 1",
                    "min_endpoint: 0 allows scaling to zero",
                );
            }
            if self.mode == Mode::Aggregated || !self.mode.has(role) {
                found.add(field, value, "nothing in this mode", "use min_endpoint");
            }
        }
    }

    fn check_budget(&self, capabilities: &PerRole<Option<Capabilities>>, found: &mut Problems) {
        let GpuBudget { min, max } = self.gpu_budget;
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            found.add(
                "min_gpu_budget",
                min,
                &format!("at most max_gpu_budget ({max})"),
                "lower one or raise the other",
            );
        }
        let mut least = 0u64;
        for &role in self.mode.roles() {
            match capabilities.get(role) {
                None => found.add(
                    "capabilities",
                    "none",
                    "what workers of each role can do",
                    "give the engine's limits",
                ),
                Some(Capabilities {
                    num_gpu: Some(0), ..
                }) => {
                    found.add("num_gpu", 0, "at least 1", "give the GPUs of one replica");
                }
                Some(known) => {
                    least += u64::from(self.floor(role)) * u64::from(known.num_gpu.unwrap_or(0));
                }
            }
            if *self.attention_dp.get(role) == 0 {
                found.add(
                    "attention_dp",
                    0,
                    "at least 1",
                    "1 without attention data parallelism",
                );
            }
        }
        if let Some(max) = max
            && least > u64::from(max)
        {
            found.add(
                "max_gpu_budget",
                max,
                &format!("at least {least}, which the smallest deployment takes"),
                "raise it, or lower min_endpoint",
            );
        }
    }

    fn check_thresholds(&self, found: &mut Problems) {
        let thresholds = &self.thresholds;
        let prefill = (
            Role::Prefill,
            (
                "prefill_scale_up_queue_tokens",
                thresholds.prefill_scale_up_queue_tokens,
            ),
            (
                "prefill_scale_down_queue_tokens",
                thresholds.prefill_scale_down_queue_tokens,
            ),
        );
        let decode = (
            Role::Decode,
            (
                "decode_scale_up_kv_rate",
                thresholds.decode_scale_up_kv_rate,
            ),
            (
                "decode_scale_down_kv_rate",
                thresholds.decode_scale_down_kv_rate,
            ),
        );
        for (role, (up_field, up), (down_field, down)) in [prefill, decode] {
            if !self.mode.has(role) {
                continue;
            }
            for (field, value) in [(up_field, up), (down_field, down)] {
                let most = if role == Role::Decode {
                    100.0
                } else {
                    f64::INFINITY
                };
                match value {
                    None => found.add(
                        field,
                        "none",
                        "a number",
                        "optimization_target: load needs both thresholds",
                    ),
                    Some(value) if !(0.0..=most).contains(&value) => {
                        found.add(
                            field,
                            value,
                            &format!("from 0 to {most}"),
                            "queues are in tokens, KV use in per cent",
                        );
                    }
                    Some(_) => {}
                }
            }
            if let (Some(up), Some(down)) = (up, down)
                && up <= down
            {
                found.add(
                    up_field,
                    up,
                    &format!("more than {down_field} ({down})"),
                    "leave a gap, or the planner swings",
                );
            }
        }
    }

    fn check_samples(&self, found: &mut Problems) {
        if self.max_num_fpm_samples == 0 {
            found.add("max_num_fpm_samples", 0, "at least 1", "64 is the default");
        }
        let cells = self.fpm_sample_bucket_size;
        if cells == 0 || cells.isqrt().pow(2) != cells {
            found.add(
                "fpm_sample_bucket_size",
                cells,
                "a square number above zero",
                "16 is the default",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::LoadThresholds;
    use engine::Span;

    fn workers(num_gpu: u32) -> PerRole<Option<Capabilities>> {
        let one = Some(Capabilities {
            num_gpu: Some(num_gpu),
            ..Capabilities::default()
        });
        PerRole {
            prefill: one,
            decode: one,
        }
    }

    #[test]
    fn the_defaults_are_sound_and_tick_every_five_seconds() {
        let config = PlannerConfig::default();
        assert_eq!(config.problems(&workers(1)), []);
        assert_eq!(config.scale_interval(), Span::from_s(5.0));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = PlannerConfig {
            optimization_target: Target::Sla,
            ttft_ms: 0.0,
            itl_ms: -1.0,
            enable_load_scaling: true,
            throughput_adjustment_interval_seconds: 60,
            load_adjustment_interval_seconds: 90,
            scale_interval_seconds: Some(7.0),
            gpu_budget: GpuBudget {
                min: Some(16),
                max: Some(8),
            },
            fpm_sample_bucket_size: 15,
            ..PlannerConfig::default()
        };
        let fields: Vec<&str> = config
            .problems(&workers(8))
            .iter()
            .map(|problem| problem.field)
            .collect();
        assert_eq!(
            fields,
            [
                "ttft_ms",
                "itl_ms",
                "scale_interval_seconds",
                "scale_interval_seconds",
                "load_adjustment_interval_seconds",
                "min_gpu_budget",
                "max_gpu_budget",
                "fpm_sample_bucket_size"
            ]
        );
        let text = config.problems(&workers(8))[5].to_string();
        assert_eq!(
            text,
            "min_gpu_budget: found 16, expected at most max_gpu_budget (8); lower one or raise the other"
        );
    }

    #[test]
    fn thresholds_must_leave_a_gap() {
        let config = PlannerConfig {
            mode: Mode::Aggregated,
            optimization_target: Target::Load,
            thresholds: LoadThresholds {
                decode_scale_up_kv_rate: Some(40.0),
                decode_scale_down_kv_rate: Some(40.0),
                ..LoadThresholds::default()
            },
            ..PlannerConfig::default()
        };
        let problems = config.problems(&workers(1));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].field, "decode_scale_up_kv_rate");
    }
}
