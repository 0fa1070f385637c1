// silu(gate) · up, eight numbers per thread. A token has its gates, then its ups; `width` is a multiple of 8.

KERNEL(256) gated(u16* out, const u16* gate_up, int width) {
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= width / 8) return;
    const uint4* gates = (const uint4*)(gate_up + (size_t)blockIdx.x * 2 * width);
    const uint4* ups = (const uint4*)(gate_up + (size_t)blockIdx.x * 2 * width + width);
    Eight gate = unpacked(gates[i]);
    const Eight up = unpacked(ups[i]);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float x = gate.at[j];
        gate.at[j] = x / (1.0f + power_of_2(-1.44269504f * x)) * up.at[j];
    }
    ((uint4*)(out + (size_t)blockIdx.x * width))[i] = packed(gate);
}
