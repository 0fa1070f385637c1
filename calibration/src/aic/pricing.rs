//! What the timing source `measured` reads of a decoder: kernels without AIConfigurator's rules for putting them
//! together.

use super::attention::Attention;
use super::decoder::{Composed, Decoder, Phase, TP_ALL_REDUCE};
use crate::error::CalibrationError;
use crate::tables::Reach;

impl Decoder<'_> {
    /// Whether every number of rows can be priced.
    ///
    /// # Errors
    /// A projection lies too far from the measured shapes at some number of rows.
    pub(crate) fn check_all_rows(&self) -> Result<(), CalibrationError> {
        let gemms = [self.attention.gemms(), self.ffn.gemms(), vec![&self.head]];
        for gemm in gemms.into_iter().flatten() {
            gemm.check_all_rows(self.profile)?;
        }
        Ok(())
    }

    /// Names of the kernels for which their roofline stands, in order.
    pub(crate) fn estimated(&self) -> Vec<&'static str> {
        let attention = [
            (
                "prompt attention",
                self.attention.read_context(1.0, 1_024.0),
            ),
            (
                "decode attention",
                self.attention.read_generation(1.0, 1_024.0),
            ),
        ];
        let attention = attention.map(|(name, (_, reach))| (name, reach));
        let none = (0.0, Reach::Measured);
        let passes = [Phase::Prompts, Phase::Decodes].map(|phase| {
            let pass = self.composed(phase, 64.0, 64.0, none);
            pass.expect("all rows were checked").ops
        });
        let ops = passes.iter().flatten().map(|op| (op.name, op.reach));
        let together = ("experts of all ranks", self.together_ms(64.0).1);
        let mut names: Vec<&'static str> = Vec::new();
        for (name, reach) in attention.into_iter().chain(ops).chain([together]) {
            if reach == Reach::Estimated && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The KV lengths that decode attention was measured at, ascending.
    pub(crate) fn kv_lengths(&self) -> Vec<u32> {
        self.attention.kv_lengths()
    }

    /// The lengths that attention over prompts was measured at, ascending.
    pub(crate) fn prompt_lengths(&self) -> Vec<u32> {
        self.attention.prompt_lengths()
    }

    /// The largest batch that decode attention was measured at.
    pub(crate) fn largest_batch(&self) -> u32 {
        self.attention.largest_batch()
    }

    /// How far the LM head of one row is from measurements.
    pub(crate) fn head_reach(&self) -> Reach {
        let read = self.head.read(self.profile, 1.0);
        read.map_or(Reach::Extrapolated, |(_, reach)| reach)
    }

    /// All kernels of a pass over `tokens` but attention and the LM head, milliseconds, and the farthest reading among
    /// them. Only after [`Decoder::check_all_rows`].
    pub(crate) fn body_ms(&self, phase: Phase, tokens: f64) -> (f64, Reach) {
        let none = (0.0, Reach::Measured);
        let Composed { ops } = self
            .composed(phase, tokens, 1.0, none)
            .expect("all rows were checked");
        // The experts' dispatch holds the two reductions of a layer already.
        let counted = ops
            .iter()
            .filter(|op| op.name != TP_ALL_REDUCE && op.name != self.head.name);
        counted.fold(none, |(ms, reach), op| (ms + op.ms, reach.max(op.reach)))
    }

    /// The LM head for `rows` that get a token, milliseconds. Only after [`Decoder::check_all_rows`].
    pub(crate) fn head_ms(&self, rows: f64) -> f64 {
        let read = self.head.read(self.profile, rows);
        read.expect("all rows were checked").0
    }

    /// Attention over whole prompts in all layers, milliseconds; with its projections where latent attention was
    /// measured along with them.
    pub(crate) fn prompt_attention_ms(&self, batch: f64, isl: f64) -> (f64, Reach) {
        let (ms, reach) = self.attention.read_context(batch, isl);
        (self.layers * ms, reach)
    }

    /// Decode attention in all layers, milliseconds; with its projections where latent attention was measured along with
    /// them.
    pub(crate) fn decode_attention_ms(&self, batch: f64, kv_length: f64) -> (f64, Reach) {
        let (ms, reach) = self.attention.read_generation(batch, kv_length);
        (self.layers * ms, reach)
    }

    /// RoPE, KV write, query and key norms of `tokens` in all layers, milliseconds; none for latent attention, whose
    /// kernels hold them.
    pub(crate) fn around_attention_ms(&self, tokens: f64) -> f64 {
        let Attention::Grouped(grouped) = &self.attention else {
            return 0.0;
        };
        let q = tokens * grouped.heads * grouped.head_dim;
        let k = tokens * grouped.kv_heads * grouped.head_dim;
        let rope = self.memory_ms(4.0 * (q + k));
        let kv_write = self.memory_ms(4.0 * k + 2.0 * k * grouped.dtype.bytes());
        let qk_norm = if grouped.has_qk_norm {
            self.memory_ms(4.0 * (q + k))
        } else {
            0.0
        };
        self.layers * (rope + kv_write + qk_norm)
    }
}
