// Every kernel against a few obvious lines, on small shapes with scrambled block tables. Prints what differs; exit code 1.
//
// What no kernel may read (blocks that are in no table, slots behind the context) is NaN, and so is what none may write.

#include "kernels.h"

#include <algorithm>
#include <string>

static int failures = 0;

static void expect(bool is_good, const std::string& what) {
    if (is_good) return;
    failures++;
    printf("wrong: %s\n", what.c_str());
}

// A number that depends on nothing but its place, about normal.
static float noise(u64 place) {
    const u64 bits = mixed(place * 0x9e3779b97f4a7c15ull + 1);
    float sum = 0;
    for (int part = 0; part < 4; part++) sum += (float)((bits >> (16 * part)) & 0xffff);
    return (sum - 131070.0f) / 37837.0f;
}
static std::vector<u16> noises(size_t count, u64 seed, float scale = 1) {
    std::vector<u16> out(count);
    for (size_t i = 0; i < count; i++) out[i] = bf16_of(scale * noise(seed << 32 | i));
    return out;
}
static bool is_close(float found, double exact, double tolerance) {
    return fabs(found - exact) <= tolerance * (1 + fabs(exact));
}

struct Sequence {
    int new_tokens, context;
};

// A batch with its paged keys and values and what attention makes of it.
struct Paged {
    static constexpr int kv_heads = 2, heads = kv_heads * GROUP;
    std::vector<Sequence> sequences;
    int max_blocks = 0, tokens = 0;
    std::vector<int> first_tokens, new_tokens, contexts, tables;
    std::vector<u16> qkv, keys, values, out;
    std::vector<double> exact;

    explicit Paged(std::vector<Sequence> given) : sequences(given) {
        int blocks = 3;
        for (const Sequence& s : sequences) {
            max_blocks = std::max(max_blocks, ceil_div(s.context, BLOCK_SIZE));
            blocks += ceil_div(s.context, BLOCK_SIZE);
            first_tokens.push_back(tokens);
            new_tokens.push_back(s.new_tokens);
            contexts.push_back(s.context);
            tokens += s.new_tokens;
        }
        std::vector<int> free(blocks);
        for (int i = 0; i < blocks; i++) free[i] = i;
        std::sort(free.begin(), free.end(), [](int a, int b) { return mixed(a) < mixed(b); });
        tables.assign(sequences.size() * max_blocks, 1 << 30);
        keys.assign((size_t)blocks * kv_heads * BLOCK_SIZE * HEAD_DIM, 0x7fff);
        values = keys;
        for (size_t row = 0; row < sequences.size(); row++)
            for (int position = 0; position < sequences[row].context; position++) {
                if (position % BLOCK_SIZE == 0) {
                    tables[row * max_blocks + position / BLOCK_SIZE] = free.back();
                    free.pop_back();
                }
                for (int head = 0; head < kv_heads; head++) {
                    const size_t at = slot_offset(&tables[row * max_blocks], position, head, kv_heads);
                    for (int i = 0; i < HEAD_DIM; i++) {
                        keys[at + i] = bf16_of(noise(number(row, position, head, i)));
                        values[at + i] = bf16_of(noise(number(row, position, head, i) + 1));
                    }
                }
            }
        qkv = noises((size_t)tokens * (heads + 2 * kv_heads) * HEAD_DIM, 77, 2);
        out.assign((size_t)tokens * heads * HEAD_DIM, 0x7fff);
        attend();
    }

    static u64 number(size_t row, int position, int head, int i) {
        return (((u64)row * 10000 + position) * 16 + head) * 512 + 2 * i;
    }
    static float scale() { return 1.44269504f / sqrtf(HEAD_DIM); }

    // Dense attention in double precision.
    void attend() {
        exact.assign(out.size(), 0);
        for (size_t row = 0; row < sequences.size(); row++)
            for (int t = 0; t < new_tokens[row]; t++)
                for (int head = 0; head < heads; head++) {
                    const size_t token = first_tokens[row] + t;
                    const int seen = contexts[row] - new_tokens[row] + t + 1;
                    const u16* q = &qkv[(token * (heads + 2 * kv_heads) + head) * HEAD_DIM];
                    double weight = 0;
                    double* sums = &exact[(token * heads + head) * HEAD_DIM];
                    for (int position = 0; position < seen; position++) {
                        const size_t at = slot_offset(&tables[row * max_blocks], position, head / GROUP, kv_heads);
                        double score = 0;
                        for (int i = 0; i < HEAD_DIM; i++) score += (double)f32_of(q[i]) * f32_of(keys[at + i]);
                        const double share = exp(score / sqrt(HEAD_DIM));
                        weight += share;
                        for (int i = 0; i < HEAD_DIM; i++) sums[i] += share * f32_of(values[at + i]);
                    }
                    for (int i = 0; i < HEAD_DIM; i++) sums[i] /= weight;
                }
    }

    // Weights and results are rounded to bf16: 2^-9 each.
    void compare(const std::string& what) const {
        double worst = 0;
        size_t at = 0;
        for (size_t i = 0; i < out.size(); i++) {
            const double error = fabs(f32_of(out[i]) - exact[i]) / (1 + fabs(exact[i]));
            if (!(error <= worst)) {
                worst = error;
                at = i;
                if (error != error) break;
            }
        }
        const size_t token = at / HEAD_DIM / heads;
        expect(worst < 0.008, what + ": token " + std::to_string(token) + " head " +
                                  std::to_string(at / HEAD_DIM % heads) + " number " + std::to_string(at % HEAD_DIM) +
                                  ": found " + std::to_string(f32_of(out[at])) + ", expected " +
                                  std::to_string(exact[at]));
    }
};

static void check_decode(unsigned splits) {
    std::vector<Sequence> sequences;
    for (int context : {1, 15, 16, 17, 63, 64, 65, 129, 200, 333}) sequences.push_back({1, context});
    Paged paged(sequences);
    std::vector<int> rows;
    // Any order, and padding at the end: row 10 has no context and a token of its own.
    for (int row : {3, 1, 0, 2, 9, 8, 4, 5, 7, 6, 10}) rows.push_back(row);
    paged.contexts.push_back(0);
    paged.first_tokens.push_back(paged.tokens);
    paged.qkv.resize(paged.qkv.size() + (Paged::heads + 2 * Paged::kv_heads) * HEAD_DIM);
    paged.out.resize(paged.out.size() + Paged::heads * HEAD_DIM, 0x7fff);
    paged.exact.resize(paged.out.size(), 0);
    std::vector<float> partial(rows.size() * Paged::heads * splits * (HEAD_DIM + 2), NAN);
    launch({splits, Paged::kv_heads, (unsigned)rows.size()}, 128, [&] {
        decode_attention(paged.out.data(), partial.data(), paged.qkv.data(), paged.keys.data(), paged.values.data(),
                         rows.data(), paged.first_tokens.data(), paged.contexts.data(), paged.tables.data(),
                         paged.max_blocks, Paged::kv_heads, Paged::scale());
    });
    if (splits > 1)
        launch({Paged::heads, (unsigned)rows.size(), 1}, HEAD_DIM, [&] {
            reduce_splits(paged.out.data(), partial.data(), rows.data(), paged.first_tokens.data(), (int)splits);
        });
    paged.compare("decode_attention, " + std::to_string(splits) + " splits");
}

static void check_prefill() {
    Paged paged({{5, 5}, {70, 70}, {1, 40}, {130, 131}, {33, 97}, {129, 300}, {64, 128}});
    std::vector<int> tiles;
    for (int row = 6; row >= 0; row--)
        for (int first = 0; first < paged.new_tokens[row]; first += QUERIES) {
            tiles.push_back(row);
            tiles.push_back(first);
        }
    launch({(unsigned)tiles.size() / 2, Paged::heads, 1}, 128, [&] {
        prefill_attention(paged.out.data(), paged.qkv.data(), paged.keys.data(), paged.values.data(), tiles.data(),
                          paged.first_tokens.data(), paged.new_tokens.data(), paged.contexts.data(),
                          paged.tables.data(), paged.max_blocks, Paged::kv_heads, Paged::scale());
    });
    paged.compare("prefill_attention");
}

static void check_norm(bool with_delta, bool with_rows) {
    const int width = 8 * 301, tokens = 5;
    const std::vector<u16> before = noises(tokens * width, 5), delta = noises(tokens * width, 6),
                           weight = noises(width, 7);
    std::vector<u16> residual = before;
    const std::vector<int> rows = {4, 1};
    const unsigned outputs = with_rows ? 2 : tokens;
    std::vector<u16> out(outputs * width, 0x7fff);
    launch({outputs, 1, 1}, 256, [&] {
        rms_norm(out.data(), residual.data(), with_delta ? delta.data() : nullptr, weight.data(),
                 with_rows ? rows.data() : nullptr, width, 1e-5f);
    });
    bool is_good = true;
    for (unsigned row = 0; row < outputs; row++) {
        const size_t token = with_rows ? rows[row] : row;
        std::vector<float> x(width);
        double squares = 0;
        for (int i = 0; i < width; i++) {
            x[i] = f32_of(before[token * width + i]);
            if (with_delta) x[i] = f32_of(bf16_of(x[i] + f32_of(delta[token * width + i])));
            squares += (double)x[i] * x[i];
            const float stream = with_rows ? f32_of(before[token * width + i]) : x[i];
            is_good &= f32_of(residual[token * width + i]) == stream;
        }
        for (int i = 0; i < width; i++) {
            const double exact = x[i] / sqrt(squares / width + 1e-5) * f32_of(weight[i]);
            is_good &= is_close(f32_of(out[row * width + i]), exact, 0.004);
        }
    }
    expect(is_good, std::string("rms_norm") + (with_delta ? " with delta" : "") + (with_rows ? " of rows" : ""));
}

static void check_rotary(bool with_bias, bool with_norm) {
    const int kv_heads = 2, heads = kv_heads * GROUP, all = heads + 2 * kv_heads, tokens = 4, max_blocks = 80;
    const std::vector<int> rows = {1, 0, -1, 1}, positions = {17, 5, 0, 18};
    std::vector<int> tables(2 * max_blocks);
    for (int i = 0; i < 2 * max_blocks; i++) tables[i] = (i * 37 + 11) % (2 * max_blocks);
    const std::vector<u16> before = noises((size_t)tokens * all * HEAD_DIM, 8), bias = noises(all * HEAD_DIM, 9),
                           q_norm = noises(HEAD_DIM, 10), k_norm = noises(HEAD_DIM, 11);
    std::vector<float> angles(20 * HEAD_DIM);
    for (int position = 0; position < 20; position++)
        for (int i = 0; i < HALF; i++) {
            angles[position * HEAD_DIM + i] = cosf(position * 0.1f + i);
            angles[position * HEAD_DIM + HALF + i] = sinf(position * 0.1f + i);
        }
    std::vector<u16> qkv = before, keys((size_t)2 * max_blocks * kv_heads * BLOCK_SIZE * HEAD_DIM, 0x7fff);
    std::vector<u16> values = keys, expected_keys = keys, expected_values = keys;
    launch({tokens, (unsigned)ceil_div(all, 4), 1}, 128, [&] {
        rotary_and_store(qkv.data(), keys.data(), values.data(), angles.data(), with_bias ? bias.data() : nullptr,
                         with_norm ? q_norm.data() : nullptr, with_norm ? k_norm.data() : nullptr, rows.data(),
                         positions.data(), tables.data(), max_blocks, kv_heads, 1e-6f);
    });
    bool is_good = true;
    size_t written = 0;
    for (int token = 0; token < tokens; token++)
        for (int head = 0; head < all && rows[token] >= 0; head++) {
            const size_t from = ((size_t)token * all + head) * HEAD_DIM;
            const bool is_query = head < heads, is_value = head >= heads + kv_heads;
            std::vector<double> x(HEAD_DIM);
            double squares = 0;
            for (int i = 0; i < HEAD_DIM; i++) {
                x[i] = f32_of(before[from + i]) + (with_bias ? f32_of(bias[head * HEAD_DIM + i]) : 0);
                squares += x[i] * x[i];
            }
            if (with_norm && !is_value)
                for (int i = 0; i < HEAD_DIM; i++)
                    x[i] *= f32_of((is_query ? q_norm : k_norm)[i]) / sqrt(squares / HEAD_DIM + 1e-6);
            for (int i = 0; i < HEAD_DIM; i++) {
                const double angle = positions[token] * 0.1f + i % HALF;
                const double turned = i < HALF ? x[i] * cos(angle) - x[i + HALF] * sin(angle)
                                               : x[i] * cos(angle) + x[i - HALF] * sin(angle);
                const u16* found = &qkv[from];
                if (!is_query) {
                    const size_t block = tables[rows[token] * max_blocks + positions[token] / BLOCK_SIZE];
                    const size_t slot = (block * kv_heads + (head - heads) % kv_heads) * BLOCK_SIZE;
                    found = &(is_value ? values : keys)[(slot + positions[token] % BLOCK_SIZE) * HEAD_DIM];
                    written++;
                }
                is_good &= is_close(f32_of(found[i]), is_value ? x[i] : turned, 0.004);
            }
        }
    for (const std::vector<u16>* pool : {&keys, &values})
        for (u16 number : *pool) written -= number != 0x7fff;
    expect(is_good && written == 0, std::string("rotary_and_store") + (with_bias ? " with bias" : "") +
                                        (with_norm ? " with norm" : ""));
}

static void check_small() {
    const int width = 8 * 37, tokens = 3;
    const std::vector<u16> rows = noises(9 * width, 12), gates = noises(tokens * 2 * width, 13, 4);
    const std::vector<u32> ids = {7, 0, 7};
    std::vector<u16> out(tokens * width);
    launch({tokens, 1, 1}, 128, [&] { embed(out.data(), rows.data(), ids.data(), width); });
    bool is_good = true;
    for (int i = 0; i < tokens * width; i++) is_good &= out[i] == rows[ids[i / width] * width + i % width];
    expect(is_good, "embed");

    launch({tokens, (unsigned)ceil_div(width / 8, 256), 1}, 256, [&] { gated(out.data(), gates.data(), width); });
    for (int i = 0; i < tokens * width; i++) {
        const double gate = f32_of(gates[i / width * 2 * width + i % width]);
        const double up = f32_of(gates[(i / width * 2 + 1) * width + i % width]);
        is_good &= is_close(f32_of(out[i]), gate / (1 + exp(-gate)) * up, 0.004);
    }
    expect(is_good, "gated");

    const int vocab = 1531;
    std::vector<float> logits(5 * vocab);
    for (size_t i = 0; i < logits.size(); i++) logits[i] = noise(i) - 9;
    logits[0 * vocab + 1530] = logits[0 * vocab + 700] = -0.5f;
    logits[1 * vocab + 3] = NAN;
    logits[2 * vocab + 1000] = -INFINITY;
    logits[3 * vocab + 40] = 0.0f;
    logits[3 * vocab + 41] = -0.0f;
    logits[4 * vocab + 12] = 3e38f;
    std::vector<u32> found(5);
    launch({5, 1, 1}, 512, [&] { argmax(found.data(), logits.data(), vocab); });
    expect(found == std::vector<u32>({700, ~0u, ~0u, 40, 12}), "argmax");

    std::vector<u32> from(2 * 6 * 4 * 4), to(2 * 9 * 4 * 4, 0);
    for (size_t i = 0; i < from.size(); i++) from[i] = (u32)i + 1;
    const std::vector<int> pairs = {8, 2, 0, 5};
    launch({2, 2, 1}, 256, [&] {
        copy_blocks((uint4*)to.data(), (const uint4*)from.data(), pairs.data(), 9 * 4, 6 * 4, 4);
    });
    for (int region = 0; region < 2; region++)
        for (int at = 0; at < 9; at++)
            for (int i = 0; i < 16; i++) {
                const int source = at == 8 ? 2 : at == 0 ? 5 : -1;
                is_good &= to[(region * 9 + at) * 16 + i] == (source < 0 ? 0 : from[(region * 6 + source) * 16 + i]);
            }
    expect(is_good, "copy_blocks");
}

int main() {
    check_small();
    for (bool with_delta : {false, true})
        for (bool with_rows : {false, true}) check_norm(with_delta, with_rows);
    for (bool with_bias : {false, true})
        for (bool with_norm : {false, true}) check_rotary(with_bias, with_norm);
    for (unsigned splits : {1, 2, 5}) check_decode(splits);
    check_prefill();
    printf("HEAD_DIM=%d BLOCK_SIZE=%d GROUP=%d: %d wrong\n", HEAD_DIM, BLOCK_SIZE, GROUP, failures);
    return failures ? 1 : 0;
}
