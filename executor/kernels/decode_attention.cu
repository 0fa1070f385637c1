// Attention of one new token per sequence to its context, through the block table: split over the context, then reduced.
//
// In words: a block of four warps takes one sequence, one key/value head and one of `splits` parts of the context. The
// GROUP query heads that share the keys are the rows of one 16-row tile, so that keys are read once and the tensor cores
// do the sums. Each warp walks 16 positions at a time, three copies ahead, with its own running maximum and sum (online
// softmax); the four are merged in shared memory. With one split the result is written, otherwise (sums, maximum, weight)
// go to `partial`, and `reduce_splits` merges them. Source: split-KV decoding ("Flash-Decoding", Dao et al. 2023).
//
// decode_rows[i] is the row of sequence i of the grid; first_tokens and contexts are by row. A context of 0 is padding.

#define CHUNK 16
#define STAGES 3
#define DECODE_WARPS 4
// Numbers of a stage: keys, then values.
#define STAGE_SIZE (2 * CHUNK * STRIDE)

struct DecodeState {
    float sums[HEAD_DIM / 8][4];
    float maximum[2], weight[2];
};

// Starts the copies of a chunk's keys and values.
DEVICE void fetch_chunk(u16* stage, const u16* keys, const u16* values, const int* table, int position, int end, int head,
                        int kv_heads) {
    // Unrolled in full, the addresses spill.
#pragma unroll 2
    for (int i = threadIdx.x % 32; i < CHUNK * HEAD_CHUNKS; i += 32) {
        const int slot = i / HEAD_CHUNKS, part = i % HEAD_CHUNKS * 8;
        const bool is_there = position + slot < end;
        const u32 at = is_there ? slot_offset(table, position + slot, head, kv_heads) + part : 0;
        copy_async(stage + slot * STRIDE + part, keys + at, is_there);
        copy_async(stage + (CHUNK + slot) * STRIDE + part, values + at, is_there);
    }
}

// Takes 16 positions into the state of a warp; `count` of them are real.
DEVICE void attend_chunk(DecodeState& state, const u32 (&query)[HEAD_DIM / 16][4], const u16* stage, int count,
                         float scale) {
    const int lane = threadIdx.x % 32;
    float scores[2][4] = {};
    const Corner key = columns_first(lane), value = rows_first(lane);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        u32 b[4];
        load_matrices(b, stage + key.row * STRIDE + 16 * k + key.column);
        multiply_add(scores[0], query[k], b[0], b[1]);
        multiply_add(scores[1], query[k], b[2], b[3]);
    }
    // Rows 8 to 15 are in use only where more than 8 heads share their keys.
#pragma unroll
    for (int half = 0; half < (GROUP > 8 ? 2 : 1); half++) {
        float maximum = state.maximum[half];
#pragma unroll
        for (int tile = 0; tile < 2; tile++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float& score = scores[tile][2 * half + i];
                const int position = 8 * tile + lane % 4 * 2 + i;
                score = position < count ? score * scale : NEGATIVE_INFINITY;
                maximum = fmaxf(maximum, score);
            }
        maximum = row_max(maximum);
        const float correction = power_of_2(state.maximum[half] - maximum);
        state.maximum[half] = maximum;
        state.weight[half] *= correction;
#pragma unroll
        for (int tile = 0; tile < 2; tile++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float& score = scores[tile][2 * half + i];
                score = power_of_2(score - maximum);
                state.weight[half] += score;
            }
#pragma unroll
        for (int tile = 0; tile < HEAD_DIM / 8; tile++) {
            state.sums[tile][2 * half] *= correction;
            state.sums[tile][2 * half + 1] *= correction;
        }
    }
    const u32 weights[4] = {bf16x2_of(scores[0][0], scores[0][1]), bf16x2_of(scores[0][2], scores[0][3]),
                            bf16x2_of(scores[1][0], scores[1][1]), bf16x2_of(scores[1][2], scores[1][3])};
#pragma unroll
    for (int tile = 0; tile < HEAD_DIM / 16; tile++) {
        u32 b[4];
        load_transposed(b, stage + (CHUNK + value.row) * STRIDE + 16 * tile + value.column);
        multiply_add(state.sums[2 * tile], weights, b[0], b[1]);
        multiply_add(state.sums[2 * tile + 1], weights, b[2], b[3]);
    }
}

// The queries of a group as a 16-row tile, zeros below; straight from memory into the registers of the tensor core.
DEVICE void load_group(u32 (&query)[HEAD_DIM / 16][4], const u16* q) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++)
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const int row = lane / 4 + part % 2 * 8, column = 16 * k + part / 2 * 8 + lane % 4 * 2;
            query[k][part] = row < GROUP ? *(const u32*)(q + row * HEAD_DIM + column) : 0;
        }
}

// The states of the four warps, one after the other in shared memory: sums by row, then maximum and weight.
#define WARP_STATE (16 * HEAD_DIM + 32)

DEVICE void leave_state(float* shared, const DecodeState& state) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < (GROUP > 8 ? 2 : 1); half++) {
        const int row = lane / 4 + 8 * half;
        const float weight = row_sum(state.weight[half]);
#pragma unroll
        for (int tile = 0; tile < HEAD_DIM / 8; tile++) {
            const int column = 8 * tile + lane % 4 * 2;
            shared[row * HEAD_DIM + column] = state.sums[tile][2 * half];
            shared[row * HEAD_DIM + column + 1] = state.sums[tile][2 * half + 1];
        }
        if (lane % 4 == 0) {
            shared[16 * HEAD_DIM + row] = state.maximum[half];
            shared[16 * HEAD_DIM + 16 + row] = weight;
        }
    }
}

KERNEL(128) decode_attention(u16* out, float* partial, const u16* qkv, const u16* keys, const u16* values,
                             const int* decode_rows, const int* first_tokens, const int* contexts, const int* tables,
                             int max_blocks, int kv_heads, float scale) {
    const int warp = threadIdx.x / 32, splits = gridDim.x, head = blockIdx.y;
    const int row = decode_rows[blockIdx.z];
    const int context = contexts[row], heads = kv_heads * GROUP;
    const int part = ceil_div(ceil_div(context, splits), DECODE_WARPS * CHUNK) * (DECODE_WARPS * CHUNK);
    const int begin = smaller(blockIdx.x * part, context), end = smaller(begin + part, context);
    const int* table = tables + (size_t)row * max_blocks;
    const size_t token = first_tokens[row];
    u16* stages = (u16*)shared_memory() + warp * STAGES * STAGE_SIZE;

    u32 query[HEAD_DIM / 16][4];
    load_group(query, qkv + (token * (heads + 2 * kv_heads) + head * GROUP) * HEAD_DIM);
    DecodeState state = {};
    state.maximum[0] = state.maximum[1] = NEGATIVE_INFINITY;
    const int step = DECODE_WARPS * CHUNK;
    int next = begin + warp * CHUNK;
    for (int stage = 0; stage < STAGES - 1; stage++, next += step) {
        if (next < end) fetch_chunk(stages + stage * STAGE_SIZE, keys, values, table, next, end, head, kv_heads);
        close_group();
    }
    int stage = 0;
    for (int position = begin + warp * CHUNK; position < end; position += step, next += step) {
        wait_groups<STAGES - 2>();
        sync_warp();
        const int ahead = stage == 0 ? STAGES - 1 : stage - 1;
        if (next < end) fetch_chunk(stages + ahead * STAGE_SIZE, keys, values, table, next, end, head, kv_heads);
        close_group();
        attend_chunk(state, query, stages + stage * STAGE_SIZE, end - position, scale);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    wait_groups<0>();
    sync_block();
    float* states = (float*)shared_memory();
    leave_state(states + warp * WARP_STATE, state);
    sync_block();

    for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += blockDim.x) {
        const int one = i / HEAD_DIM, column = i % HEAD_DIM;
        float maximum = NEGATIVE_INFINITY;
        for (int w = 0; w < DECODE_WARPS; w++)
            maximum = fmaxf(maximum, states[w * WARP_STATE + 16 * HEAD_DIM + one]);
        float sum = 0, weight = 0;
        for (int w = 0; w < DECODE_WARPS && begin < end; w++) {
            const float* other = states + w * WARP_STATE;
            const float share = power_of_2(other[16 * HEAD_DIM + one] - maximum);
            sum += share * other[one * HEAD_DIM + column];
            weight += share * other[16 * HEAD_DIM + 16 + one];
        }
        const size_t query_head = head * GROUP + one;
        if (splits == 1) {
            out[(token * heads + query_head) * HEAD_DIM + column] = bf16_of(weight > 0 ? sum / weight : 0);
        } else {
            float* to = partial + ((blockIdx.z * heads + query_head) * splits + blockIdx.x) * (HEAD_DIM + 2);
            to[column] = sum;
            if (column == 0) {
                to[HEAD_DIM] = maximum;
                to[HEAD_DIM + 1] = weight;
            }
        }
    }
}

// Merges the parts of `decode_attention`: one block of HEAD_DIM threads per query head and sequence.
KERNEL(128) reduce_splits(u16* out, const float* partial, const int* decode_rows, const int* first_tokens, int splits) {
    const size_t heads = gridDim.x;
    const float* from = partial + (blockIdx.y * heads + blockIdx.x) * splits * (HEAD_DIM + 2);
    float maximum = NEGATIVE_INFINITY, sum = 0, weight = 0;
    for (int split = 0; split < splits; split++)
        maximum = fmaxf(maximum, from[split * (HEAD_DIM + 2) + HEAD_DIM]);
    for (int split = 0; split < splits; split++) {
        const float* part = from + split * (HEAD_DIM + 2);
        // An empty part has the weight 0 and no maximum.
        const float share = part[HEAD_DIM + 1] > 0 ? power_of_2(part[HEAD_DIM] - maximum) : 0;
        sum += share * part[threadIdx.x];
        weight += share * part[HEAD_DIM + 1];
    }
    const size_t token = first_tokens[decode_rows[blockIdx.y]];
    out[(token * heads + blockIdx.x) * HEAD_DIM + threadIdx.x] = bf16_of(weight > 0 ? sum / weight : 0);
}
