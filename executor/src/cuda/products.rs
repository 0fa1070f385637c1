//! Products of activations and weights on the tensor cores, by cuBLASLt.
//!
//! In words: `y = x · Wᵀ` with rows side by side is, to a library of columns, the weights transposed times `x`. Descriptors
//! and the algorithm are made once for each shape and kept. For up to 256 rows, where the choice matters most, the eight
//! best guesses of the library are timed; above it the first is taken. Rows are rounded up ([`rounded`]), so that shapes are
//! few: each step of served prompts has a number of tokens of its own, and a choice for each would take the time of steps
//! that no calibration sees. The rows on top are computed on whatever lies there and never read; a tile of the tensor cores
//! is no smaller.
#![expect(unsafe_code, reason = "calls of cuBLASLt")]

use super::Failure;
use super::device::{Buffer, Gpu};
use cudarc::cublaslt::{result, sys};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;

/// Bytes that an algorithm may use on the side; what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are timed.
const CANDIDATES: usize = 8;
/// Rows up to which they are.
const TIMED_ROWS: usize = 256;

/// Rows that are computed for so many: a power of two up to 16, a multiple of 16 up to 256, of 64 above.
#[must_use]
pub const fn rounded(rows: usize) -> usize {
    match rows {
        0..=16 => rows.next_power_of_two(),
        17..=TIMED_ROWS => rows.next_multiple_of(16),
        _ => rows.next_multiple_of(64),
    }
}

/// `rows × inputs` times the transpose of `outputs × inputs`, all of them more than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Results are f32, not bf16.
    pub is_f32: bool,
}

/// Where the operands lie.
#[derive(Debug, Clone, Copy)]
pub struct Operands {
    pub x: u64,
    pub weights: u64,
    pub y: u64,
}

/// The library, with what it has chosen.
pub struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
    /// Looked up only.
    plans: HashMap<Shape, Plan>,
}

/// A product, ready to run.
struct Plan {
    descriptor: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

fn failed(what: &str) -> impl Fn(result::CublasError) -> Failure + '_ {
    move |error| Failure(format!("{what}: cuBLASLt error {}", error.0 as u32))
}

impl Products {
    pub fn new(gpu: &Gpu) -> Result<Products, Failure> {
        Ok(Products {
            workspace: gpu.alloc(WORKSPACE)?,
            handle: result::create_handle().map_err(failed("opening cuBLASLt"))?,
            plans: HashMap::new(),
        })
    }

    /// Runs a product over rows rounded up, for which the operands have room. The first of a shape must not be captured in a
    /// graph.
    pub fn run(&mut self, gpu: &Gpu, shape: Shape, operands: Operands) -> Result<(), Failure> {
        let shape = Shape {
            rows: rounded(shape.rows),
            ..shape
        };
        if !self.plans.contains_key(&shape) {
            let plan = self.plan(gpu, shape, operands)?;
            self.plans.insert(shape, plan);
        }
        self.launch(gpu, &self.plans[&shape], operands)
    }

    fn plan(&self, gpu: &Gpu, shape: Shape, operands: Operands) -> Result<Plan, Failure> {
        let bf16 = sys::cudaDataType::CUDA_R_16BF;
        let f32 = sys::cudaDataType::CUDA_R_32F;
        let result_type = if shape.is_f32 { f32 } else { bf16 };
        let (inputs, outputs, rows) =
            (shape.inputs as u64, shape.outputs as u64, shape.rows as u64);
        let matrix = |kind, height: u64, width| {
            let made = result::create_matrix_layout(kind, height, width, height as i64);
            made.map_err(failed("describing a matrix"))
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let descriptor = result::create_matmul_desc(compute, f32);
        let mut plan = Plan {
            descriptor: descriptor.map_err(failed("describing a product"))?,
            weights: matrix(bf16, inputs, outputs)?,
            x: matrix(bf16, inputs, rows)?,
            y: matrix(result_type, outputs, rows)?,
            // SAFETY: a plain struct of integers, overwritten below.
            algorithm: unsafe { std::mem::zeroed() },
        };
        // CUBLAS_OP_T.
        let transposed = 1_i32;
        // SAFETY: the descriptor was just made, and the attribute is an enum of this size.
        let set = unsafe {
            result::set_matmul_desc_attribute(
                plan.descriptor,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )
        };
        set.map_err(failed("describing a product"))?;
        let found = self.candidates(&plan)?;
        let count = if shape.rows <= TIMED_ROWS {
            found.len()
        } else {
            1
        };
        let (mut best, mut refused) = (None, None);
        for candidate in &found[..count] {
            plan.algorithm = candidate.algo;
            let time = if count == 1 {
                Ok(0.0)
            } else {
                self.time(gpu, &plan, operands)
            };
            // A guess that does not run is passed over; if none does, the last says why.
            match time {
                Ok(time) if best.is_none_or(|(least, _)| time < least) => {
                    best = Some((time, candidate.algo));
                }
                Ok(_) => {}
                Err(why) => refused = Some(why),
            }
        }
        let (_, algorithm) = best.ok_or_else(|| {
            let why = refused.map_or_else(String::new, |why| format!(": {why}"));
            Failure(format!(
                "cuBLASLt has no algorithm that runs for {shape:?}{why}"
            ))
        })?;
        plan.algorithm = algorithm;
        Ok(plan)
    }

    /// Milliseconds of four runs after one.
    fn time(&self, gpu: &Gpu, plan: &Plan, operands: Operands) -> Result<f32, Failure> {
        self.launch(gpu, plan, operands)?;
        gpu.time(|| (0..4).try_for_each(|_| self.launch(gpu, plan, operands)))
    }

    fn candidates(
        &self,
        plan: &Plan,
    ) -> Result<Vec<sys::cublasLtMatmulHeuristicResult_t>, Failure> {
        let preference = result::create_matmul_pref().map_err(failed("a preference"))?;
        // SAFETY: plain structs of integers, overwritten by the library.
        let mut found: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] =
            unsafe { std::mem::zeroed() };
        let (mut count, workspace) = (0, WORKSPACE);
        // SAFETY: all descriptors are alive, the array has the room that is named, and the preference goes here only.
        let asked = unsafe {
            let set = result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            );
            let asked = set.and_then(|()| {
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle,
                    plan.descriptor,
                    plan.weights,
                    plan.x,
                    plan.y,
                    plan.y,
                    preference,
                    CANDIDATES as i32,
                    found.as_mut_ptr(),
                    &raw mut count,
                )
                .result()
            });
            asked.and(result::destroy_matmul_pref(preference))
        };
        asked.map_err(failed("choosing an algorithm"))?;
        let good = found.into_iter().take(count as usize);
        let good: Vec<_> = good.filter(|one| one.state.result().is_ok()).collect();
        if good.is_empty() {
            return Err(Failure(
                "cuBLASLt has no algorithm for a product".to_owned(),
            ));
        }
        Ok(good)
    }

    fn launch(&self, gpu: &Gpu, plan: &Plan, operands: Operands) -> Result<(), Failure> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let Operands { x, weights, y } = operands;
        let constant = |address: u64| address as *const c_void;
        // SAFETY: the plan's descriptors live as long as `self`; the operands are buffers of at least the plan's shape
        // that outlive the stream's work; alpha and beta are read before the call returns.
        let done = unsafe {
            result::matmul(
                self.handle,
                plan.descriptor,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                constant(weights),
                plan.weights,
                constant(x),
                plan.x,
                constant(y),
                plan.y,
                y as *mut c_void,
                plan.y,
                &raw const plan.algorithm,
                self.workspace.address() as *mut c_void,
                self.workspace.bytes(),
                gpu.stream.cu_stream().cast(),
            )
        };
        done.map_err(failed("a product"))
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        for plan in self.plans.values() {
            // SAFETY: made by this library, in use by nobody else, and destroyed here only. That it fails means that the
            // device is lost: nothing to be done.
            let _ = unsafe {
                result::destroy_matmul_desc(plan.descriptor)
                    .and(result::destroy_matrix_layout(plan.weights))
                    .and(result::destroy_matrix_layout(plan.x))
                    .and(result::destroy_matrix_layout(plan.y))
            };
        }
        if !self.handle.is_null() {
            self.handle = close(self.handle);
        }
    }
}

/// Closes the library; what is left of a handle.
fn close(handle: sys::cublasLtHandle_t) -> sys::cublasLtHandle_t {
    // SAFETY: the handle came from `create_handle` and is closed once.
    let _ = unsafe { result::destroy_handle(handle) };
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn rows_are_rounded_to_few_numbers() {
        for (rows, expected) in [
            (1, 1),
            (3, 4),
            (16, 16),
            (17, 32),
            (77, 80),
            (256, 256),
            (257, 320),
            (8192, 8192),
        ] {
            assert_eq!(rounded(rows), expected, "{rows}");
        }
        let mut all: Vec<usize> = (1..=8192).map(rounded).collect();
        assert!(all.is_sorted() && (1..).zip(&all).all(|(rows, more)| *more >= rows));
        all.dedup();
        // 1, 2, 4, 8, 16; 32 to 256; 320 to 8,192.
        assert_eq!(all.len(), 5 + 15 + 124);
    }
}
