// What the kernels ask of the machine, in PTX: bf16 as 16 bits, tensor cores, asynchronous copies, warps.
//
// No header is needed, so that NVRTC compiles the kernels wherever the driver is. `host/primitives.h` has the same
// functions for a CPU. A model fixes three numbers at compile time: HEAD_DIM (a multiple of 16 up to 128), BLOCK_SIZE
// (tokens of a KV block) and GROUP (query heads per key/value head, up to 16).

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define NEGATIVE_INFINITY __uint_as_float(0xff800000u)

DEVICE float f32_of(u16 x) { return __uint_as_float((u32)x << 16); }

DEVICE u16 bf16_of(float x) {
    u16 half;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

// Two numbers, the first in the low half.
DEVICE u32 bf16x2_of(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

DEVICE float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// IEEE division and multiplication, never contracted: the weights must be those of the CPU to the bit.
DEVICE float divided(float a, float b) { return __fdiv_rn(a, b); }
DEVICE float multiplied(float a, float b) { return __fmul_rn(a, b); }

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }

DEVICE float shuffle_xor(float x, int lanes) { return __shfl_xor_sync(0xffffffffu, x, lanes); }
DEVICE u32 shuffle_xor(u32 x, int lanes) { return __shfl_xor_sync(0xffffffffu, x, lanes); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE void sync_block() { __syncthreads(); }

// Shared memory of the size given at launch, aligned to 16 bytes.
DEVICE char* shared_memory() {
    extern __shared__ uint4 shared[];
    return (char*)shared;
}

DEVICE u32 shared_address(const void* shared) { return (u32)__cvta_generic_to_shared(shared); }

// c += a·b: a 16x16 by rows, b 16x8 by columns, c 16x8.
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices: lane 8·m + r gives the address of row r of matrix m.
DEVICE void load_matrices(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed.
DEVICE void load_transposed(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 bytes to shared memory behind the back of the thread, or writes zeros.
DEVICE void copy_async(u16* shared, const u16* from, bool is_there) {
    const int bytes = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(from), "r"(bytes)
                 : "memory");
}
DEVICE void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last `PENDING` groups of this thread are there.
template <int PENDING>
DEVICE void wait_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
