// Causal attention of many new tokens of a sequence to its context and to each other, through the block table.
//
// In words: a block of four warps takes 128 new tokens of one sequence and one query head. It walks the context in tiles
// of 64 positions, one tile's copies ahead; each warp holds 32 queries with their running maxima and sums (online
// softmax) and never writes a score to memory. Tokens computed before count as context, so that chunks of a prompt need
// no special case. Source: FlashAttention-2 (Dao 2023).
//
// tiles[2i] is the row and tiles[2i + 1] the first new token of block i; first_tokens, new_tokens and contexts (with the
// new tokens) are by row.

#define QUERIES 128
#define TILE 64
#define PREFILL_WARPS 4
#define SLABS 2
// Numbers of a tile: keys, then values.
#define TILE_SIZE (2 * TILE * STRIDE)

struct PrefillState {
    float sums[SLABS][HEAD_DIM / 8][4];
    float maximum[SLABS][2], weight[SLABS][2];
};

DEVICE void fetch_queries(u16* shared, const u16* q, int stride, int count) {
    for (int i = threadIdx.x; i < QUERIES * HEAD_CHUNKS; i += 32 * PREFILL_WARPS) {
        const int row = i / HEAD_CHUNKS, part = i % HEAD_CHUNKS * 8;
        const bool is_there = row < count;
        copy_async(shared + row * STRIDE + part, q + (is_there ? (size_t)row * stride + part : 0), is_there);
    }
}

DEVICE void fetch_tile(u16* shared, const u16* keys, const u16* values, const int* table, int position, int end, int head,
                       int kv_heads) {
    // Unrolled in full, the addresses spill.
#pragma unroll 2
    for (int i = threadIdx.x; i < TILE * HEAD_CHUNKS; i += 32 * PREFILL_WARPS) {
        const int slot = i / HEAD_CHUNKS, part = i % HEAD_CHUNKS * 8;
        const bool is_there = position + slot < end;
        const u32 at = is_there ? slot_offset(table, position + slot, head, kv_heads) + part : 0;
        copy_async(shared + slot * STRIDE + part, keys + at, is_there);
        copy_async(shared + (TILE + slot) * STRIDE + part, values + at, is_there);
    }
}

DEVICE void score_tile(float (&scores)[SLABS][TILE / 8][4], const u16* queries, const u16* tile) {
    const int lane = threadIdx.x % 32;
    const Corner left = rows_first(lane), right = columns_first(lane);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        u32 a[SLABS][4];
#pragma unroll
        for (int slab = 0; slab < SLABS; slab++)
            load_matrices(a[slab], queries + (16 * slab + left.row) * STRIDE + 16 * k + left.column);
#pragma unroll
        for (int n = 0; n < TILE / 16; n++) {
            u32 b[4];
            load_matrices(b, tile + (16 * n + right.row) * STRIDE + 16 * k + right.column);
#pragma unroll
            for (int slab = 0; slab < SLABS; slab++) {
                multiply_add(scores[slab][2 * n], a[slab], b[0], b[1]);
                multiply_add(scores[slab][2 * n + 1], a[slab], b[2], b[3]);
            }
        }
    }
}

// Scores to weights, with what was summed before brought to the new maximum. `ahead` is the position of the warp's first
// query less that of the tile's first key.
DEVICE void weigh_tile(PrefillState& state, float (&scores)[SLABS][TILE / 8][4], int ahead, float scale) {
    const int lane = threadIdx.x % 32;
    const bool is_diagonal = ahead < TILE - 1;
#pragma unroll
    for (int slab = 0; slab < SLABS; slab++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            // Of the tile's columns that this lane holds, 8n + i, the last that its query sees.
            const int last = ahead + 16 * slab + 8 * half + lane / 4 - lane % 4 * 2;
            const float before = state.maximum[slab][half];
            float maximum = before;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float& score = scores[slab][n][2 * half + i];
                    if (is_diagonal && 8 * n + i > last) score = NEGATIVE_INFINITY;
                    maximum = fmaxf(maximum, score);
                }
            maximum = row_max(maximum);
            state.maximum[slab][half] = maximum;
            const float correction = power_of_2((before - maximum) * scale), offset = maximum * scale;
            float weight = state.weight[slab][half] * correction;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float& score = scores[slab][n][2 * half + i];
                    score = power_of_2(score * scale - offset);
                    weight += score;
                }
            state.weight[slab][half] = weight;
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 8; n++) {
                state.sums[slab][n][2 * half] *= correction;
                state.sums[slab][n][2 * half + 1] *= correction;
            }
        }
}

DEVICE void sum_tile(PrefillState& state, const float (&weights)[SLABS][TILE / 8][4], const u16* tile) {
    const Corner value = rows_first(threadIdx.x % 32);
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        u32 a[SLABS][4];
#pragma unroll
        for (int slab = 0; slab < SLABS; slab++)
#pragma unroll
            for (int part = 0; part < 4; part++) {
                const float* pair = &weights[slab][2 * k + part / 2][part % 2 * 2];
                a[slab][part] = bf16x2_of(pair[0], pair[1]);
            }
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 16; n++) {
            u32 b[4];
            load_transposed(b, tile + (TILE + 16 * k + value.row) * STRIDE + 16 * n + value.column);
#pragma unroll
            for (int slab = 0; slab < SLABS; slab++) {
                multiply_add(state.sums[slab][2 * n], a[slab], b[0], b[1]);
                multiply_add(state.sums[slab][2 * n + 1], a[slab], b[2], b[3]);
            }
        }
    }
}

// Results of a warp to memory, by way of its own queries in shared memory, so that 16 bytes are written at a time.
DEVICE void write_results(u16* out, const PrefillState& state, u16* queries, int stride, int count) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int slab = 0; slab < SLABS; slab++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float share = 1.0f / row_sum(state.weight[slab][half]);
            u16* row = queries + (16 * slab + 8 * half + lane / 4) * STRIDE + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 8; n++) {
                const float* sums = &state.sums[slab][n][2 * half];
                *(u32*)(row + 8 * n) = bf16x2_of(sums[0] * share, sums[1] * share);
            }
        }
    sync_warp();
    for (int i = lane; i < 16 * SLABS * HEAD_CHUNKS; i += 32) {
        const int row = i / HEAD_CHUNKS, part = i % HEAD_CHUNKS * 8;
        if (row < count) *(uint4*)(out + (size_t)row * stride + part) = *(const uint4*)(queries + row * STRIDE + part);
    }
}

KERNEL(128) prefill_attention(u16* out, const u16* qkv, const u16* keys, const u16* values, const int* tiles,
                              const int* first_tokens, const int* new_tokens, const int* contexts, const int* tables,
                              int max_blocks, int kv_heads, float scale) {
    const int warp = threadIdx.x / 32, head = blockIdx.y, heads = kv_heads * GROUP;
    const int row = tiles[2 * blockIdx.x], first = tiles[2 * blockIdx.x + 1];
    const int count = smaller(new_tokens[row] - first, QUERIES);
    const int position = contexts[row] - new_tokens[row] + first;
    const int end = position + count;
    const int* table = tables + (size_t)row * max_blocks;
    const size_t token = first_tokens[row] + first;
    const int width = (heads + 2 * kv_heads) * HEAD_DIM;
    u16* queries = (u16*)shared_memory();
    u16* pages = queries + QUERIES * STRIDE;

    fetch_queries(queries, qkv + token * width + head * HEAD_DIM, width, count);
    fetch_tile(pages, keys, values, table, 0, end, head / GROUP, kv_heads);
    close_group();
    PrefillState state = {};
#pragma unroll
    for (int slab = 0; slab < SLABS; slab++) state.maximum[slab][0] = state.maximum[slab][1] = NEGATIVE_INFINITY;

    u16* mine = queries + warp * 16 * SLABS * STRIDE;
    const int own = position + warp * 16 * SLABS;
    for (int start = 0; start < end; start += TILE) {
        wait_groups<0>();
        sync_block();
        u16* tile = pages + start / TILE % 2 * TILE_SIZE;
        if (start + TILE < end) {
            u16* next = pages + (start / TILE + 1) % 2 * TILE_SIZE;
            fetch_tile(next, keys, values, table, start + TILE, end, head / GROUP, kv_heads);
        }
        close_group();
        // None of the warp's queries sees a tile behind the last of them.
        if (start < own + 16 * SLABS) {
            float scores[SLABS][TILE / 8][4] = {};
            score_tile(scores, mine, tile);
            weigh_tile(state, scores, own - start, scale);
            sum_tile(state, scores, tile);
        }
    }
    // Read again rather than kept in registers through the loop.
    const int offset = tiles[2 * blockIdx.x + 1] + warp * 16 * SLABS;
    const size_t mine_first = first_tokens[tiles[2 * blockIdx.x]] + offset;
    u16* to = out + (mine_first * heads + head) * HEAD_DIM;
    write_results(to, state, mine, heads * HEAD_DIM, new_tokens[tiles[2 * blockIdx.x]] - offset);
}
