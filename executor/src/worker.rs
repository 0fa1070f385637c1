//! A worker on whichever device: what a program that takes the device as an option holds.

use crate::copies::{CopyTimes, Direction, chosen};
use crate::cpu::CpuExecutor;
#[cfg(feature = "cuda")]
use crate::cuda::CudaExecutor;
use crate::ops::{OpTime, least};
use engine::kv_cache::BlockId;
use engine::{Batch, Executor, ExecutorError};
use std::time::Instant;

/// An executor of this crate.
#[derive(Debug)]
pub enum Worker {
    /// On the processor.
    Cpu(Box<CpuExecutor>),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaExecutor>),
}

impl Worker {
    /// Fills all KV blocks with made-up numbers, so that steps can be measured whose context nobody computed.
    ///
    /// # Errors
    /// The device gave up.
    pub fn fill_kv(&mut self) -> Result<(), ExecutorError> {
        match self {
            Worker::Cpu(cpu) => {
                cpu.fill_kv();
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.fill_kv(),
        }
    }

    /// Runs a batch to the end and forgets the tokens: for measurements.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn pass(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        match self {
            Worker::Cpu(cpu) => cpu.pass(batch),
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.pass(batch),
        }
    }

    /// Runs a batch again and again, apart by kind of work, and says what each took at least. On a GPU without graphs.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn op_times(
        &mut self,
        batch: &Batch,
        repeats: usize,
    ) -> Result<Vec<OpTime>, ExecutorError> {
        match self {
            Worker::Cpu(cpu) => {
                let passes = (0..repeats.max(1)).map(|_| cpu.op_times(batch));
                Ok(least(&passes.collect::<Result<Vec<_>, _>>()?))
            }
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.op_times(batch, repeats),
        }
    }

    /// Bytes of a KV block, all layers, keys and values.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        match self {
            Worker::Cpu(cpu) => (cpu.block_numbers() * size_of::<f32>()) as u64,
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.block_bytes(),
        }
    }

    /// Copies `count` blocks of `scattered` so many times, after two times to warm up.
    ///
    /// # Errors
    /// The device gave up.
    ///
    /// # Panics
    /// With fewer blocks than are asked for, twice as many where blocks go to blocks.
    pub fn copy_times(
        &mut self,
        direction: Direction,
        count: usize,
        scattered: &[BlockId],
        repeats: usize,
    ) -> Result<CopyTimes, ExecutorError> {
        let blocks = chosen(direction, count, scattered);
        let mut seconds: Vec<f64> = match self {
            Worker::Cpu(cpu) => {
                let mut host = match direction {
                    Direction::Within => Vec::new(),
                    Direction::Out | Direction::In => vec![1.0; count * cpu.block_numbers()],
                };
                let mut copy = || {
                    let start = Instant::now();
                    cpu.copy(direction, blocks, &mut host);
                    start.elapsed().as_secs_f64()
                };
                let all: Vec<f64> = (0..repeats.max(1) + 2).map(|_| copy()).collect();
                all[2..].to_vec()
            }
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.copy_times(direction, blocks, repeats)?,
        };
        seconds.sort_by(f64::total_cmp);
        Ok(CopyTimes {
            direction,
            blocks: count,
            block_bytes: self.block_bytes(),
            seconds,
        })
    }
}

impl Executor for Worker {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        match self {
            Worker::Cpu(cpu) => cpu.run(batch),
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.run(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{CpuSettings, Model};
    use crate::sweep::Limits;
    use crate::{ModelConfig, Tokens, WeightSource};
    use std::sync::Arc;

    const CONFIG: &str = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 64}"#;
    const LIMITS: Limits = Limits {
        step_tokens: 64,
        sequences: 4,
        longest: 100,
        blocks: 40,
        block_size: 8,
    };

    fn worker() -> Worker {
        let config = ModelConfig::parse("config.json", CONFIG).expect("good");
        let tokens = Arc::new(Tokens::new(LIMITS.contents(), config.vocab, 1));
        let model = Model::new(config, &WeightSource::Generated(1)).expect("made up");
        let settings = CpuSettings {
            num_gpu_blocks: 41,
            block_size: 8,
            threads: 1,
        };
        let cpu = CpuExecutor::new(Arc::new(model), tokens, settings).expect("small");
        Worker::Cpu(Box::new(cpu))
    }

    #[test]
    fn a_pass_is_the_sum_of_its_parts() {
        use crate::ops::Op;
        let mut worker = worker();
        worker.fill_kv().expect("a CPU");
        let points = LIMITS.points(1, 0);
        let point = points
            .iter()
            .find(|point| !point.prefill.is_empty() && !point.decode.is_empty());
        let batch = point
            .expect("some are drawn with both")
            .batch(&LIMITS, &LIMITS.scattered_blocks(1));
        let start = Instant::now();
        let times = worker.op_times(&batch, 3).expect("runs");
        let ops: Vec<Op> = times.iter().map(|time| time.op).collect();
        assert_eq!(ops, [Op::Rest, Op::Products, Op::Head, Op::Attention]);
        let sum: f64 = times.iter().map(|time| time.ms).sum();
        assert!(
            sum <= 1e3 * start.elapsed().as_secs_f64() / 3.0 + 1e-6,
            "the least of three passes"
        );
    }

    #[test]
    fn copied_blocks_arrive_and_others_are_left_alone() {
        let mut worker = worker();
        worker.fill_kv().expect("a CPU");
        // Two layers, keys and values, 8 tokens of two heads of 8 numbers.
        assert_eq!(worker.block_bytes(), 2 * 2 * 8 * 16 * 4);
        let read = |worker: &mut Worker, blocks: &[BlockId]| match worker {
            Worker::Cpu(cpu) => {
                let mut host = vec![0.0; blocks.len() * cpu.block_numbers()];
                cpu.copy(Direction::Out, blocks, &mut host);
                host
            }
            #[cfg(feature = "cuda")]
            Worker::Cuda(_) => unreachable!("a CPU was asked for"),
        };
        let scattered = [9, 3, 17, 30, 5];
        let (before, other) = (read(&mut worker, &[9, 3]), read(&mut worker, &[5]));
        let times = worker.copy_times(Direction::Within, 2, &scattered, 3);
        assert_eq!(times.expect("runs").seconds.len(), 3);
        assert_eq!(read(&mut worker, &[17, 30]), before);
        assert_eq!(read(&mut worker, &[9, 3]), before);
        let times = worker
            .copy_times(Direction::In, 2, &scattered, 1)
            .expect("runs");
        assert_eq!((times.bytes(), times.blocks), (2 * 2 * 2 * 8 * 16 * 4, 2));
        // What comes from the host are ones.
        assert!(
            read(&mut worker, &[9, 3])
                .iter()
                .all(|number| *number == 1.0)
        );
        assert_eq!(read(&mut worker, &[17, 30]), before);
        assert_eq!(read(&mut worker, &[5]), other);
    }
}
