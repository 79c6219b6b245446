// What cpu.cpp shares with the two instruction sets: the jobs, and the table of what an instruction set offers.
#pragma once

#include <cstdint>

namespace lapilli {

enum Type : int { Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, TYPES };
enum Float : int { F32, BF16 };

struct Linear {
    const uint8_t* weight;  // tiles of 16 rows, see linear.h
    const void* x;          // (M, K), of `dtype`
    const float* bias;      // (N,), or null
    void* y;                // (M, N), of `dtype`
    long M, N, K;
    Type type;
    Float dtype;
    uint8_t* activations;  // x as int8, where `round_rows` leaves it
    long stride;           // from a row of y to the next, in numbers
};

struct Attention {
    const float* q;                    // (T, H, D)
    const void *k, *v;                 // (P, S, heads, D), of `dtype`
    const int32_t *tables, *contexts;  // (T, pages of a row), (T,)
    float* out;                        // (T, H, D)
    long T, H, heads, D, S, tables_stride, window, longest;  // window 0: there is none
    long k_strides[3], v_strides[3];   // of a page, a place and a head, in numbers
    float scale;
    Float dtype;
};

// A quantized matrix and its bias, which may be null; N 0: there is none.
struct Matrix {
    const uint8_t* data;
    const float* bias;
    long N, K;
    long type;
};

struct Layer {
    const float *norm1, *norm2;
    Matrix in[3];  // queries, keys and values, or all in the first
    Matrix out;
    Matrix gated[2];  // gate and up, or both in the first
    Matrix down;
    void *k, *v;  // the layer's pages
    long window;  // 0: there is none
};

// A token each of B rows through all layers of a decoder; B is at most 16.
struct Decode {
    const Layer* layers;
    float* x;                // (B, width): embeddings, and in their place the hidden states before the last norm
    const float *cos, *sin;  // (B, rotary)
    const int64_t* places;   // (B,): where a row's keys and values are kept, counted over all pages
    const int32_t *tables, *contexts;
    long count, B, width, inner, H, heads, D, rotary, S, tables_stride, longest;
    long k_strides[3], v_strides[3];  // as in Attention
    float scale, epsilon;
    Float dtype;  // of the pages
};

// The functions of an instruction set. Row blocks and tiles are numbered; any thread may take any of them.
struct Kernels {
    long (*activation_bytes)(const Linear&);
    long (*row_blocks)(const Linear&);
    void (*round_rows)(const Linear&, long block);
    long (*chunks)(const Linear&);  // parts of the rows that meet a tile while it is in the cache
    long (*tile_scratch)(const Linear&);
    long (*tiles)(const Linear&);
    void (*tile)(const Linear&, long chunk, long tile, uint8_t* scratch);
    long (*attention_scratch)(const Attention&);
    void (*attend)(const Attention&, long row, long kv_head, uint8_t* scratch);
};

extern const Kernels avx512, avx2;

}  // namespace lapilli
