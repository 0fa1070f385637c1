// The functions of `primitives.cuh` for a CPU, for tests of the kernels' index arithmetic and of their waiting.
//
// Tensor-core and warp functions exchange operands between the 32 fibers of a warp by the register layouts of the PTX
// manual (mma.m16n8k16, ldmatrix). An asynchronous copy leaves NaN until the thread that started it has waited for it.

#pragma once
#include <math.h>
#include <stddef.h>

#include "fibers.h"

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(16) uint4 {
    u32 x, y, z, w;
};

#define __shared__ static
#define DEVICE static inline
#define KERNEL(threads) static void
#define NEGATIVE_INFINITY (-INFINITY)

DEVICE u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
DEVICE float f32_of(u16 x) {
    const u32 bits = (u32)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}
DEVICE u16 bf16_of(float x) {
    if (isnan(x)) return 0x7fff;
    const u32 bits = bits_of(x);
    return (u16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
DEVICE u32 bf16x2_of(float low, float high) { return (u32)bf16_of(high) << 16 | bf16_of(low); }
DEVICE float power_of_2(float x) { return exp2f(x); }
DEVICE float divided(float a, float b) { return a / b; }
DEVICE float multiplied(float a, float b) { return a * b; }
DEVICE char* shared_memory() { return shared_bytes; }

DEVICE void sync_block() { arrive_and_wait(block.all, blockDim.x); }

// Shows the lane's words to its warp and returns what all lanes have shown.
DEVICE const Block::Exchange& exchange(const u32* words, int count, const void* address, unsigned& parity) {
    const unsigned warp = block.current / 32, lane = block.current % 32;
    parity = block.warps[warp].generation % 2;
    Block::Exchange& ours = block.exchanges[warp];
    for (int i = 0; i < count; i++) ours.words[parity][lane][i] = words[i];
    ours.addresses[parity][lane] = address;
    arrive_and_wait(block.warps[warp], 32);
    return ours;
}

DEVICE void sync_warp() {
    unsigned parity;
    exchange(nullptr, 0, nullptr, parity);
}
DEVICE u32 shuffle_xor(u32 x, int lanes) {
    unsigned parity;
    const Block::Exchange& all = exchange(&x, 1, nullptr, parity);
    return all.words[parity][(block.current % 32) ^ lanes][0];
}
DEVICE float shuffle_xor(float x, int lanes) {
    const u32 bits = shuffle_xor(bits_of(x), lanes);
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

DEVICE float half_of(u32 pair, int which) { return f32_of((u16)(pair >> (16 * which))); }

DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const u32 words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    unsigned parity;
    const Block::Exchange& all = exchange(words, 6, nullptr, parity);
    const int lane = block.current % 32;
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < 16; k++) {
            const int of_row = row % 8 * 4 + k % 8 / 2, of_column = column * 4 + k % 8 / 2;
            const float left = half_of(all.words[parity][of_row][row / 8 + k / 8 * 2], k % 2);
            sum += (double)left * half_of(all.words[parity][of_column][4 + k / 8], k % 2);
        }
        c[i] += (float)sum;
    }
}

DEVICE void load_any(u32 (&r)[4], const u16* address, bool is_transposed) {
    if ((uintptr_t)address % 16 != 0) {
        fprintf(stderr, "ldmatrix: a row that is not aligned to 16 bytes\n");
        exit(1);
    }
    unsigned parity;
    const Block::Exchange& all = exchange(nullptr, 0, address, parity);
    const int lane = block.current % 32;
    for (int m = 0; m < 4; m++) {
        u32 pair = 0;
        for (int i = 0; i < 2; i++) {
            const int row = is_transposed ? lane % 4 * 2 + i : lane / 4;
            const int column = is_transposed ? lane / 4 : lane % 4 * 2 + i;
            pair |= (u32)((const u16*)all.addresses[parity][8 * m + row])[column] << (16 * i);
        }
        r[m] = pair;
    }
    // Nobody may overwrite the rows before all have read them.
    sync_warp();
}
DEVICE void load_matrices(u32 (&r)[4], const u16* row) { load_any(r, row, false); }
DEVICE void load_transposed(u32 (&r)[4], const u16* row) { load_any(r, row, true); }

DEVICE void copy_async(u16* shared, const u16* from, bool is_there) {
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)from % 16 != 0) {
        fprintf(stderr, "cp.async: addresses that are not aligned to 16 bytes\n");
        exit(1);
    }
    Fiber::Copy copy = {(char*)shared, {}};
    if (is_there) memcpy(copy.bytes, from, 16);
    memset(shared, 0xff, 16);
    block.fibers[block.current].open_group.push_back(copy);
}
DEVICE void close_group() {
    Fiber& self = block.fibers[block.current];
    self.groups.push_back(std::move(self.open_group));
    self.open_group.clear();
}
template <int PENDING>
DEVICE void wait_groups() {
    Fiber& self = block.fibers[block.current];
    while (self.groups.size() > PENDING) {
        for (const Fiber::Copy& copy : self.groups.front()) memcpy(copy.to, copy.bytes, 16);
        self.groups.erase(self.groups.begin());
    }
}
