// Root mean square norm of the residual stream, with what the last product adds to it. One block per row of the output.
//
// In words: x = residual + delta, rounded to bf16; out = x / rms(x) · weight. Without `rows`, x goes back into the
// residual stream; with it (the end of the model), row i of the output is token rows[i], and the stream is left alone.
// `delta` may be null. `width` is a multiple of 8.

DEVICE Eight stream(const u16* residual, const u16* delta, int i) {
    Eight x = unpacked(((const uint4*)residual)[i]);
    if (delta) {
        const Eight more = unpacked(((const uint4*)delta)[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) x.at[j] = f32_of(bf16_of(x.at[j] + more.at[j]));
    }
    return x;
}

KERNEL(256) rms_norm(u16* out, u16* residual, const u16* delta, const u16* weight, const int* rows, int width,
                     float epsilon) {
    __shared__ float sums[8];
    const size_t token = rows ? rows[blockIdx.x] : blockIdx.x;
    residual += token * width;
    if (delta) delta += token * width;
    float sum = 0;
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        const Eight x = stream(residual, delta, i);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += x.at[j] * x.at[j];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    sync_block();
    sum = 0;
    for (int warp = 0; warp < 8; warp++) sum += sums[warp];
    const float scale = 1.0f / sqrtf(sum / width + epsilon);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * width);
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        Eight x = stream(residual, delta, i);
        if (delta && !rows) ((uint4*)residual)[i] = packed(x);
        const Eight w = unpacked(((const uint4*)weight)[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) x.at[j] *= scale * w.at[j];
        to[i] = packed(x);
    }
}
