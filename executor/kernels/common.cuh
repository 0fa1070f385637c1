// What several kernels share.

// Sum over the lanes of a warp.
DEVICE float warp_sum(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += shuffle_xor(x, lanes);
    return x;
}

// Reduces over the four lanes that hold a row of a tensor core's tile.
DEVICE float row_sum(float x) {
    x += shuffle_xor(x, 1);
    return x + shuffle_xor(x, 2);
}
DEVICE float row_max(float x) {
    x = fmaxf(x, shuffle_xor(x, 1));
    return fmaxf(x, shuffle_xor(x, 2));
}

DEVICE int smaller(int a, int b) { return a < b ? a : b; }
DEVICE int ceil_div(int x, int unit) { return (x + unit - 1) / unit; }

// Eight bf16 numbers.
struct Eight {
    float at[8];
};
DEVICE Eight unpacked(uint4 bits) {
    const u32 words[4] = {bits.x, bits.y, bits.z, bits.w};
    Eight eight;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        eight.at[2 * i] = f32_of((u16)words[i]);
        eight.at[2 * i + 1] = f32_of((u16)(words[i] >> 16));
    }
    return eight;
}
DEVICE uint4 packed(const Eight& x) {
    uint4 bits;
    bits.x = bf16x2_of(x.at[0], x.at[1]);
    bits.y = bf16x2_of(x.at[2], x.at[3]);
    bits.z = bf16x2_of(x.at[4], x.at[5]);
    bits.w = bf16x2_of(x.at[6], x.at[7]);
    return bits;
}

// A row of keys or values in shared memory: padded by 16 bytes, so that the eight rows of a matrix lie in different
// banks (2·HEAD_DIM + 16 is an odd multiple of 16).
#define STRIDE (HEAD_DIM + 8)
#define HEAD_CHUNKS (HEAD_DIM / 8)

// Where the keys or values of one head at one position lie. A pool is by block, head, slot; that of a layer has fewer
// than 2^32 numbers, so that addresses in the loops take one register.
DEVICE u32 slot_offset(const int* table, int position, int head, int kv_heads) {
    const u32 block = (u32)table[(u32)position / BLOCK_SIZE];
    return ((block * kv_heads + head) * BLOCK_SIZE + (u32)position % BLOCK_SIZE) * HEAD_DIM;
}

// Rows and columns of the matrices that a lane names to `load_matrices`, within a 16x16 tile.
struct Corner {
    int row, column;
};
// Rows first: the left operand by rows, and the right one transposed.
DEVICE Corner rows_first(int lane) { return {lane % 16, lane / 16 * 8}; }
// Columns first: the right operand by columns.
DEVICE Corner columns_first(int lane) { return {lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8}; }
