// Bias, norm of queries and keys, rotary embedding, and keys and values into their blocks. One warp per token and head.
//
// In words: heads of a token lie side by side, queries, keys, values. A lane holds the pairs (i, i + HEAD_DIM/2) with
// i = lane, lane + 32: turned by the angles of the token's position. Queries go back where they were, keys and values
// into the pool. `bias` and the norms may be null. A token without a row (-1: padding) is left out.

#define HALF (HEAD_DIM / 2)
#define PAIRS ((HALF + 31) / 32)

KERNEL(128) rotary_and_store(u16* qkv, u16* keys, u16* values, const float* angles, const u16* bias, const u16* q_norm,
                             const u16* k_norm, const int* token_rows, const int* positions, const int* tables,
                             int max_blocks, int kv_heads, float epsilon) {
    const int lane = threadIdx.x % 32, head = blockIdx.y * 4 + threadIdx.x / 32;
    const int q_heads = kv_heads * GROUP, heads = q_heads + 2 * kv_heads;
    const int row = token_rows[blockIdx.x];
    if (row < 0 || head >= heads) return;
    const int position = positions[blockIdx.x];
    u16* x = qkv + ((size_t)blockIdx.x * heads + head) * HEAD_DIM;
    const bool is_query = head < q_heads, is_value = head >= q_heads + kv_heads;

    float low[PAIRS], high[PAIRS], squares = 0;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        const int at = lane + 32 * i;
        if (at < HALF) {
            low[i] = f32_of(x[at]);
            high[i] = f32_of(x[at + HALF]);
            if (bias) {
                low[i] += f32_of(bias[head * HEAD_DIM + at]);
                high[i] += f32_of(bias[head * HEAD_DIM + at + HALF]);
            }
            squares += low[i] * low[i] + high[i] * high[i];
        }
    }
    const u16* norm = is_query ? q_norm : k_norm;
    float scale = 1;
    if (norm && !is_value) scale = 1.0f / sqrtf(warp_sum(squares) / HEAD_DIM + epsilon);

    u16* to = x;
    if (!is_query) {
        const int kv_head = (head - q_heads) % kv_heads;
        const int* table = tables + (size_t)row * max_blocks;
        to = (is_value ? values : keys) + slot_offset(table, position, kv_head, kv_heads);
    }
    const float* turn = angles + (size_t)position * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        const int at = lane + 32 * i;
        if (at < HALF) {
            float a = low[i], b = high[i];
            if (!is_value) {
                if (norm) {
                    a *= scale * f32_of(norm[at]);
                    b *= scale * f32_of(norm[at + HALF]);
                }
                const float cosine = turn[at], sine = turn[at + HALF], first = a;
                a = a * cosine - b * sine;
                b = b * cosine + first * sine;
            }
            to[at] = bf16_of(a);
            to[at + HALF] = bf16_of(b);
        }
    }
}
