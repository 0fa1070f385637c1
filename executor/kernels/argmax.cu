// The greatest logit of each row, the first of equals; 0xffffffff if one is not finite. One block per row.
//
// In words: a float's bits are made to order like an integer, the index is inverted and put below them, and the greatest
// of these keys wins. A number that is not finite gets the greatest key there is.

DEVICE u64 argmax_key(float logit, u32 index) {
    const u32 bits = bits_of(logit);
    if ((bits & 0x7f800000u) == 0x7f800000u) return ~0ull;
    // Both zeros are equal.
    const u32 same = bits == 0x80000000u ? 0u : bits;
    const u32 ordered = same & 0x80000000u ? ~same : same | 0x80000000u;
    return (u64)ordered << 32 | (u32)~index;
}
DEVICE u64 greater(u64 a, u64 b) { return a > b ? a : b; }

KERNEL(512) argmax(u32* tokens, const float* logits, int vocab) {
    __shared__ u64 keys[16];
    const float* row = logits + (size_t)blockIdx.x * vocab;
    u64 key = 0;
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) key = greater(key, argmax_key(row[i], i));
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const u32 high = shuffle_xor((u32)(key >> 32), lanes), low = shuffle_xor((u32)key, lanes);
        key = greater(key, (u64)high << 32 | low);
    }
    if (threadIdx.x % 32 == 0) keys[threadIdx.x / 32] = key;
    sync_block();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < 16; warp++) key = greater(key, keys[warp]);
        tokens[blockIdx.x] = key == ~0ull ? 0xffffffffu : ~(u32)key;
    }
}
