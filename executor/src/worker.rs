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

impl Executor for Worker {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        match self {
            Worker::Cpu(cpu) => cpu.run(batch),
            #[cfg(feature = "cuda")]
            Worker::Cuda(cuda) => cuda.run(batch),
        }
    }
}
