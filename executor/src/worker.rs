//! A worker on whichever device: what a program that takes the device as an option holds.

use crate::cpu::CpuExecutor;
#[cfg(feature = "cuda")]
use crate::cuda::CudaExecutor;
use engine::{Batch, Executor, ExecutorError};

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
            Worker::Cpu(cpu) => cpu.logits(batch).map(drop),
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.pass(batch),
        }
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
