// A whole forward pass of a generated model by the kernels, on a CPU: what the CUDA executor launches, in its order.
//
// Reads from stdin: the model (layers hidden kv_heads ffn vocab is_tied has_bias has_qk_norm epsilon seed), KV blocks, a
// table of angles (positions, then HEAD_DIM numbers each), and batches (the numbers of executor/src/cuda/layout.rs, the
// splits of decode attention, then all its words) until the end. Writes one line of logits and the token per row that
// samples. Products are plain loops, rounded to bf16 as cuBLASLt does.

#include "kernels.h"

#include <iostream>
#include <map>
#include <string>

struct Shape {
    int layers, hidden, kv_heads, ffn, vocab, is_tied, has_bias, has_qk_norm;
    float epsilon;
    u64 seed;
    int heads() const { return kv_heads * GROUP; }
    int qkv_width() const { return (heads() + 2 * kv_heads) * HEAD_DIM; }
};

typedef std::vector<u16> Numbers;

// As `Counter::new` of executor/src/random.rs.
static u64 state_of(u64 seed, const std::string& name) {
    u64 hash = 0xcbf29ce484222325ull;
    for (unsigned char byte : name) hash = (hash ^ byte) * 0x100000001b3ull;
    return mixed(hash ^ mixed(seed));
}

static void append(Numbers& to, const Shape& shape, const std::string& name, size_t count) {
    const size_t from = to.size();
    to.resize(from + count);
    const bool is_norm = name.size() > 11 && name.substr(name.size() - 11) == "norm.weight";
    launch({2, 1, 1}, 256, [&] {
        if (is_norm)
            constant_weights(&to[from], count, 1.0f);
        else
            random_weights(&to[from], state_of(shape.seed, name), count, 0.02f);
    });
}

struct Layer {
    Numbers attention_norm, qkv, bias, q_norm, k_norm, output, ffn_norm, gate_up, down;
};

static Layer layer_of(const Shape& shape, int index) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const size_t hidden = shape.hidden, q = shape.heads() * HEAD_DIM, kv = shape.kv_heads * HEAD_DIM;
    Layer layer;
    append(layer.attention_norm, shape, prefix + "input_layernorm.weight", hidden);
    append(layer.ffn_norm, shape, prefix + "post_attention_layernorm.weight", hidden);
    const std::map<std::string, size_t> widths = {{"q", q}, {"k", kv}, {"v", kv}};
    for (const char* part : {"q", "k", "v"}) {
        const std::string name = prefix + "self_attn." + part + "_proj.";
        append(layer.qkv, shape, name + "weight", widths.at(part) * hidden);
        if (shape.has_bias) append(layer.bias, shape, name + "bias", widths.at(part));
    }
    if (shape.has_qk_norm) {
        append(layer.q_norm, shape, prefix + "self_attn.q_norm.weight", HEAD_DIM);
        append(layer.k_norm, shape, prefix + "self_attn.k_norm.weight", HEAD_DIM);
    }
    append(layer.output, shape, prefix + "self_attn.o_proj.weight", hidden * q);
    append(layer.gate_up, shape, prefix + "mlp.gate_proj.weight", shape.ffn * hidden);
    append(layer.gate_up, shape, prefix + "mlp.up_proj.weight", shape.ffn * hidden);
    append(layer.down, shape, prefix + "mlp.down_proj.weight", hidden * shape.ffn);
    return layer;
}

// rows × inputs times the transpose of outputs × inputs.
static std::vector<float> product(const Numbers& x, const Numbers& weights, int inputs) {
    const size_t rows = x.size() / inputs, outputs = weights.size() / inputs;
    std::vector<float> y(rows * outputs);
    for (size_t row = 0; row < rows; row++)
        for (size_t output = 0; output < outputs; output++) {
            float sum = 0;
            for (int i = 0; i < inputs; i++) sum += f32_of(x[row * inputs + i]) * f32_of(weights[output * inputs + i]);
            y[row * outputs + output] = sum;
        }
    return y;
}
static Numbers rounded(const std::vector<float>& x) {
    Numbers out;
    for (float number : x) out.push_back(bf16_of(number));
    return out;
}

static u16* or_null(Numbers& numbers) { return numbers.empty() ? nullptr : numbers.data(); }

int main() {
    Shape shape;
    int blocks, positions;
    std::cin >> shape.layers >> shape.hidden >> shape.kv_heads >> shape.ffn >> shape.vocab >> shape.is_tied >>
        shape.has_bias >> shape.has_qk_norm >> shape.epsilon >> shape.seed >> blocks >> positions;
    std::vector<float> angles((size_t)positions * HEAD_DIM);
    for (float& number : angles) std::cin >> number;
    Numbers embedding, head, norm;
    append(embedding, shape, "model.embed_tokens.weight", (size_t)shape.vocab * shape.hidden);
    if (!shape.is_tied) append(head, shape, "lm_head.weight", (size_t)shape.vocab * shape.hidden);
    append(norm, shape, "model.norm.weight", shape.hidden);
    std::vector<Layer> layers;
    for (int index = 0; index < shape.layers; index++) layers.push_back(layer_of(shape, index));
    const size_t pool = (size_t)blocks * shape.kv_heads * BLOCK_SIZE * HEAD_DIM;
    std::vector<Numbers> keys(shape.layers, Numbers(pool, 0x7fff)), values = keys;

    int tokens, rows, decodes, tiles, samples, max_blocks, splits;
    while (std::cin >> tokens >> rows >> decodes >> tiles >> samples >> max_blocks >> splits) {
        auto array = [](size_t count) {
            std::vector<int> numbers(count);
            for (int& number : numbers) {
                long long word = 0;
                std::cin >> word;
                number = (int)(u32)word;
            }
            return numbers;
        };
        const std::vector<int> ids = array(tokens), token_rows = array(tokens), places = array(tokens),
                               firsts = array(rows), news = array(rows), contexts = array(rows),
                               decode_rows = array(decodes), tile_list = array(2 * tiles), ends = array(samples),
                               tables = array((size_t)rows * max_blocks);
        const float scale = 1.44269504f / sqrtf(HEAD_DIM);
        const unsigned many = tokens;
        Numbers hidden((size_t)tokens * shape.hidden), normed = hidden, delta;
        launch({many, 1, 1}, 128, [&] { embed(hidden.data(), embedding.data(), (const u32*)ids.data(), shape.hidden); });
        for (int index = 0; index < shape.layers; index++) {
            Layer& layer = layers[index];
            launch({many, 1, 1}, 256, [&] {
                rms_norm(normed.data(), hidden.data(), or_null(delta), layer.attention_norm.data(), nullptr,
                         shape.hidden, shape.epsilon);
            });
            Numbers qkv = rounded(product(normed, layer.qkv, shape.hidden));
            const unsigned groups = ceil_div(shape.heads() + 2 * shape.kv_heads, 4);
            launch({many, groups, 1}, 128, [&] {
                rotary_and_store(qkv.data(), keys[index].data(), values[index].data(), angles.data(),
                                 or_null(layer.bias), or_null(layer.q_norm), or_null(layer.k_norm), token_rows.data(),
                                 places.data(), tables.data(), max_blocks, shape.kv_heads, shape.epsilon);
            });
            Numbers attended((size_t)tokens * shape.heads() * HEAD_DIM, 0x7fff);
            if (tiles > 0)
                launch({(unsigned)tiles, (unsigned)shape.heads(), 1}, 128, [&] {
                    prefill_attention(attended.data(), qkv.data(), keys[index].data(), values[index].data(),
                                      tile_list.data(), firsts.data(), news.data(), contexts.data(), tables.data(),
                                      max_blocks, shape.kv_heads, scale);
                });
            if (decodes > 0) {
                std::vector<float> partial((size_t)decodes * shape.heads() * splits * (HEAD_DIM + 2), NAN);
                launch({(unsigned)splits, (unsigned)shape.kv_heads, (unsigned)decodes}, 128, [&] {
                    decode_attention(attended.data(), partial.data(), qkv.data(), keys[index].data(),
                                     values[index].data(), decode_rows.data(), firsts.data(), contexts.data(),
                                     tables.data(), max_blocks, shape.kv_heads, scale);
                });
                if (splits > 1)
                    launch({(unsigned)shape.heads(), (unsigned)decodes, 1}, HEAD_DIM, [&] {
                        reduce_splits(attended.data(), partial.data(), decode_rows.data(), firsts.data(), splits);
                    });
            }
            delta = rounded(product(attended, layer.output, shape.heads() * HEAD_DIM));
            launch({many, 1, 1}, 256, [&] {
                rms_norm(normed.data(), hidden.data(), delta.data(), layer.ffn_norm.data(), nullptr, shape.hidden,
                         shape.epsilon);
            });
            const Numbers gate_up = rounded(product(normed, layer.gate_up, shape.hidden));
            Numbers gates((size_t)tokens * shape.ffn);
            launch({many, (unsigned)ceil_div(shape.ffn / 8, 256), 1}, 256,
                   [&] { gated(gates.data(), gate_up.data(), shape.ffn); });
            delta = rounded(product(gates, layer.down, shape.ffn));
        }
        Numbers last((size_t)samples * shape.hidden);
        launch({(unsigned)samples, 1, 1}, 256, [&] {
            rms_norm(last.data(), hidden.data(), delta.data(), norm.data(), ends.data(), shape.hidden, shape.epsilon);
        });
        const std::vector<float> logits = product(last, shape.is_tied ? embedding : head, shape.hidden);
        std::vector<u32> sampled(samples);
        launch({(unsigned)samples, 1, 1}, 512, [&] { argmax(sampled.data(), logits.data(), shape.vocab); });
        for (int row = 0; row < samples; row++) {
            for (int i = 0; i < shape.vocab; i++) printf("%.9g ", logits[(size_t)row * shape.vocab + i]);
            printf("%u\n", sampled[row]);
        }
    }
    return 0;
}
