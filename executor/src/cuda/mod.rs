//! The executor for NVIDIA GPUs: the decoder in bf16, with our own kernels for all but the products.
//!
//! | Place | What |
//! |---|---|
//! | `../../kernels/*.cu` | the kernels; `host/` runs them on a CPU, `compile.py` compiles them without a GPU |
//! | [`layout`] | a batch as the arrays that the kernels read |
//! | `device`, `kernels`, `products` | the driver, NVRTC and cuBLASLt, made safe to call |
//! | `weights`, `forward` | the decoder: its tensors, and what is launched in which order |
//! | `executor` | steps: buffers, CUDA graphs of decode batches, tokens in and out |
//!
//! Built with the feature `cuda`, which needs no CUDA: libcuda.so.1, libnvrtc.so.13 and libcublasLt.so.13 are looked for
//! in the loader's path when a GPU is asked for. Without the feature, [`probe`] says how to build.

pub mod layout;

#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod executor;
#[cfg(feature = "cuda")]
mod forward;
#[cfg(feature = "cuda")]
mod kernels;
#[cfg(feature = "cuda")]
mod products;
#[cfg(feature = "cuda")]
mod weights;

#[cfg(feature = "cuda")]
pub use executor::{CudaExecutor, CudaSettings};

use std::fmt;

/// A GPU that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As the driver calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
    /// The CUDA version that the driver supports, as 1000·major + 10·minor.
    pub driver: i32,
    /// Devices there are.
    pub count: usize,
}

/// Why a GPU cannot be used, or gave up, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Whether device number `device` can be used.
///
/// # Errors
/// Built without CUDA; no driver, no such device, or a library that cannot be loaded.
#[cfg(not(feature = "cuda"))]
pub fn probe(_device: usize) -> Result<Device, Failure> {
    Err(Failure(
        "found a program without CUDA, expected one built with it: cargo build --release --features cuda (no CUDA is needed to \
         build)"
            .to_owned(),
    ))
}

/// Whether device number `device` can be used.
///
/// # Errors
/// Built without CUDA; no driver, no such device, or a library that cannot be loaded.
#[cfg(feature = "cuda")]
pub fn probe(device: usize) -> Result<Device, Failure> {
    guarded(|| libraries().and_then(|()| look(device)))
}

/// Runs what may panic because an old driver lacks a function.
#[cfg(feature = "cuda")]
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let work = std::panic::AssertUnwindSafe(work);
    std::panic::catch_unwind(work).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.unwrap_or_else(|| "no reason given".to_owned());
        Err(Failure(format!(
            "the CUDA libraries of this machine do not fit: {text}"
        )))
    })
}

#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "asks the loader for libraries")]
fn libraries() -> Result<(), Failure> {
    // SAFETY: these load NVIDIA's libraries, whose initialisers are trusted as those of any dependency.
    let present = unsafe {
        [
            (
                cudarc::driver::sys::is_culib_present(),
                "no CUDA driver on this machine (libcuda.so.1",
            ),
            (
                cudarc::nvrtc::sys::is_culib_present(),
                "no NVRTC (libnvrtc.so.13, of the package nvidia-cuda-nvrtc",
            ),
            (
                cudarc::cublaslt::sys::is_culib_present(),
                "no cuBLASLt (libcublasLt.so.13, of the package nvidia-cublas",
            ),
        ]
    };
    match present.iter().find(|(is_present, _)| !is_present) {
        Some((_, what)) => {
            let hint = "could not be loaded; is its folder in LD_LIBRARY_PATH?";
            Err(Failure(format!("found {what} {hint})")))
        }
        None => Ok(()),
    }
}

#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "asks the driver for its version")]
fn look(device: usize) -> Result<Device, Failure> {
    use cudarc::driver::{CudaContext, result, sys};
    use device::failed;
    result::init().map_err(failed("found a CUDA driver that does not start"))?;
    let count = CudaContext::device_count().map_err(failed("counting devices"))? as usize;
    if device >= count {
        let found = format!("found {count} CUDA devices");
        return Err(Failure(format!(
            "{found}, expected device {device}: CUDA_VISIBLE_DEVICES may hide some"
        )));
    }
    let context = CudaContext::new(device).map_err(failed("opening the device"))?;
    let asked = failed("asking the device");
    let mut driver = 0;
    // SAFETY: writes one int.
    unsafe { sys::cuDriverGetVersion(&raw mut driver) }
        .result()
        .map_err(&asked)?;
    Ok(Device {
        name: context.name().map_err(&asked)?,
        capability: context.compute_capability().map_err(&asked)?,
        memory: context.total_mem().map_err(&asked)? as u64,
        driver,
        count,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_without_a_gpu_is_told_so_and_nothing_panics() {
        // With the feature and a GPU there is nothing to be told.
        if let Err(failure) = super::probe(0) {
            let text = failure.to_string();
            let known = [
                "without CUDA",
                "could not be loaded",
                "CUDA devices",
                "does not start",
            ];
            assert!(known.iter().any(|part| text.contains(part)), "{text}");
        }
    }
}
