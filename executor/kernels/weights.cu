// Random weights by counter: number i of a tensor is a function of (seed, name, i), as on the CPU (executor/src/random.rs).
//
// `state` is seed and name, mixed on the host. The four 16-bit parts of the mixed counter are summed: nearly normal.
// Every operation is exact or rounds as IEEE says, so that CPU and GPU agree to the bit before the rounding to bf16.

DEVICE u64 mixed(u64 bits) {
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
    return bits ^ (bits >> 31);
}

KERNEL(256) random_weights(u16* out, u64 state, u64 count, float sigma) {
    const u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const u64 bits = mixed(state + i * 0x9e3779b97f4a7c15ull);
        u32 sum = 0;
        for (int part = 0; part < 4; part++) sum += (u32)(bits >> (16 * part)) & 0xffffu;
        const float normal = divided((float)sum - 131070.0f, 37837.227f);
        out[i] = bf16_of(multiplied(sigma, normal));
    }
}

// The same number everywhere.
KERNEL(256) constant_weights(u16* out, u64 count, float number) {
    const u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) out[i] = bf16_of(number);
}
