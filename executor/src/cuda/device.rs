//! A GPU with one stream, memory on it, and launches: the few driver calls that the executor needs, made safe to call.
//!
//! Everything is launched on one stream, in order. Memory comes from `cuMemAlloc`, so that KV can be registered for RDMA,
//! and carries no events.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use super::Failure;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream};
use std::ffi::c_void;
use std::sync::Arc;

/// A GPU that is ready.
pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub multiprocessors: u32,
}

/// An error of the driver; by number, since the names are asked of the driver, which may not have them.
pub fn failed(what: &str) -> impl Fn(DriverError) -> Failure + '_ {
    move |error| {
        let code = error.0 as u32;
        let words = match code {
            2 => " (out of memory)",
            209 => " (no kernel image for this device)",
            214 => " (uncorrectable memory error)",
            218 => " (no PTX that the driver can compile)",
            222 => {
                " (NVRTC is newer than the driver: its PTX has a version that the driver does not know)"
            }
            700 => " (illegal address)",
            702 => " (launch timed out)",
            719 => " (launch failed)",
            _ => "",
        };
        Failure(format!("{what}: CUDA error {code}{words}"))
    }
}

impl Gpu {
    pub fn new(device: usize) -> Result<Gpu, Failure> {
        let context = CudaContext::new(device).map_err(failed("opening the device"))?;
        let stream = context.new_stream().map_err(failed("creating a stream"))?;
        let gpu = Gpu {
            context,
            stream,
            multiprocessors: 0,
        };
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(Gpu {
            multiprocessors: gpu.attribute(attribute)?,
            ..gpu
        })
    }

    /// Shared memory that a block can have, in bytes.
    pub fn most_shared_bytes(&self) -> Result<u32, Failure> {
        self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    fn attribute(&self, attribute: CUdevice_attribute) -> Result<u32, Failure> {
        let number = self.context.attribute(attribute);
        number
            .map(|number| number as u32)
            .map_err(failed("asking the device"))
    }

    /// Makes this thread talk to the device.
    pub fn bind(&self) -> Result<(), Failure> {
        self.context
            .bind_to_thread()
            .map_err(failed("binding the device to a thread"))
    }

    /// Waits for all that was launched.
    pub fn wait(&self) -> Result<(), Failure> {
        self.stream.synchronize().map_err(failed("a step"))
    }

    /// Blank memory, at least one byte.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer, Failure> {
        // SAFETY: the memory is given out as an address only, read by kernels after something was written there.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let gib = bytes as f64 / f64::from(1 << 30);
        Ok(Buffer {
            address: address.map_err(failed(&format!("{gib:.2} GiB of GPU memory")))?,
            bytes,
            context: self.context.clone(),
        })
    }

    /// Fills memory with a byte.
    pub fn fill(&self, buffer: &Buffer, byte: u8) -> Result<(), Failure> {
        let stream = self.stream.cu_stream();
        // SAFETY: the address and its length are an allocation of this context, alive for as long as `buffer`.
        let done = unsafe { result::memset_d8_async(buffer.address, byte, buffer.bytes, stream) };
        done.map_err(failed("filling memory"))
    }

    /// Copies numbers to `offset` bytes behind the start of a buffer, and waits.
    pub fn upload<T: Copy>(
        &self,
        numbers: &[T],
        to: &Buffer,
        offset: usize,
    ) -> Result<(), Failure> {
        assert!(
            offset + size_of_val(numbers) <= to.bytes,
            "a copy stays within its buffer"
        );
        let address = to.address + offset as u64;
        // SAFETY: the range was just checked; the stream is waited for before `numbers` can go.
        let done = unsafe { result::memcpy_htod_async(address, numbers, self.stream.cu_stream()) };
        done.map_err(failed("a copy to the GPU"))?;
        self.stream
            .synchronize()
            .map_err(failed("a copy to the GPU"))
    }

    /// Copies numbers back, and waits.
    pub fn download<T: Copy>(&self, from: &Buffer, numbers: &mut [T]) -> Result<(), Failure> {
        assert!(
            size_of_val(numbers) <= from.bytes,
            "a copy stays within its buffer"
        );
        if numbers.is_empty() {
            return self.wait();
        }
        // SAFETY: the range was just checked; the stream is waited for while `numbers` is still borrowed.
        let done =
            unsafe { result::memcpy_dtoh_async(numbers, from.address, self.stream.cu_stream()) };
        done.map_err(failed("a copy from the GPU"))?;
        self.wait()
    }

    /// Launches a kernel with arguments in its order.
    pub fn launch(
        &self,
        function: &CudaFunction,
        grid: Grid,
        arguments: &[Argument],
    ) -> Result<(), Failure> {
        let pointers = arguments.iter().map(Argument::pointer);
        let mut pointers: Vec<*mut c_void> = pointers.collect();
        let Grid {
            blocks,
            threads,
            shared_bytes,
        } = grid;
        let stream = self.stream.cu_stream();
        // SAFETY: every pointer names an argument of the kind the kernel declares (the tests run each kernel with these
        // lists), all are copied before the call returns, and the buffers they name outlive the stream's work, since
        // whoever drops one has waited.
        let done = unsafe {
            result::launch_kernel(
                function.cu_function(),
                blocks,
                (threads, 1, 1),
                shared_bytes,
                stream,
                &mut pointers,
            )
        };
        done.map_err(failed("launching a kernel"))
    }

    /// Milliseconds that the GPU takes for what `work` launches.
    pub fn time(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<f32, Failure> {
        let event = || {
            let event = self
                .context
                .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(failed("creating an event"))
        };
        let (start, end) = (event()?, event()?);
        start
            .record(&self.stream)
            .map_err(failed("recording an event"))?;
        work()?;
        end.record(&self.stream)
            .map_err(failed("recording an event"))?;
        self.wait()?;
        start.elapsed_ms(&end).map_err(failed("reading events"))
    }
}

/// How many blocks of how many threads, with how much shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    pub blocks: (u32, u32, u32),
    pub threads: u32,
    pub shared_bytes: u32,
}

/// Memory on a GPU; freed when dropped.
pub struct Buffer {
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Buffer {
    /// As an argument of a kernel, so many bytes behind its start.
    pub fn at(&self, offset: usize) -> Argument {
        assert!(offset <= self.bytes, "an address lies within its buffer");
        Argument::Address(self.address + offset as u64)
    }

    /// Where it is.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the address came from `malloc_sync` of this context and is freed here only; freeing waits for
            // the device. An error means that the device is lost, and its memory with it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// A pointer; 0 for none.
    Address(u64),
    /// `u64`.
    Long(u64),
    /// `int`.
    Int(i32),
    /// `float`.
    Float(f32),
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        let pointer: *const c_void = match self {
            Argument::Address(number) | Argument::Long(number) => (&raw const *number).cast(),
            Argument::Int(number) => (&raw const *number).cast(),
            Argument::Float(number) => (&raw const *number).cast(),
        };
        pointer.cast_mut()
    }
}
