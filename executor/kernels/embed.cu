// The rows of the embedding, one block per token. `width` is a multiple of 8.

KERNEL(128) embed(u16* out, const u16* embedding, const u32* tokens, int width) {
    const uint4* from = (const uint4*)(embedding + (size_t)tokens[blockIdx.x] * width);
    uint4* to = (uint4*)(out + (size_t)blockIdx.x * width);
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) to[i] = from[i];
}
