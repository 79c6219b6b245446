// The kernels, written once over a vector V of 16 or 8 lanes and compiled once for each instruction set.
//
// Whatever is summed in floating point is summed in the order of the groups and by the same operations, however many
// rows are computed beside it: a row's bits never depend on its company.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>

#include "packed.h"

namespace {

constexpr long ROW = 44;        // bytes of a group of one row of activations: 32 levels, the scale, two sums
constexpr long EXPANDED = 640;  // bytes of a group of a tile with a byte for each level: 8 x 64, and twice 16 floats
constexpr long FEW = 16;        // rows up to which levels are taken straight from their packed form
constexpr long AHEAD = 8192;    // bytes of a weight asked for before they are wanted
constexpr long CHUNK = 640 << 10;  // bytes of activations that stay in the cache while a tile meets them

// Rows: they are cut into blocks of at most MOST, all of one size but the last, which is padded to a size there is.

template <class V>
INLINE long most(long M) {
    return M <= FEW ? V::MOST_FEW : V::MOST;
}

INLINE long padded(long rows, bool few) {
    if (few) return rows <= 4 ? rows : (rows + 1) / 2 * 2;
    return (rows + 1) / 2 * 2;
}

template <class V>
long row_blocks(const Linear& job) {
    return (job.M + most<V>(job.M) - 1) / most<V>(job.M);
}

template <class V>
INLINE long rows_of(const Linear& job, long block) {
    const long first = block * most<V>(job.M);
    return job.M - first < most<V>(job.M) ? job.M - first : most<V>(job.M);
}

template <class V>
INLINE uint8_t* block_of(const Linear& job, long block) {
    return job.activations + block * most<V>(job.M) * (job.K / GROUP) * ROW;
}

template <class V>
long activation_bytes(const Linear& job) {
    return row_blocks<V>(job) * most<V>(job.M) * (job.K / GROUP) * ROW;
}

template <class V>
INLINE long blocks_in_chunk(const Linear& job) {
    const long fit = CHUNK / (most<V>(job.M) * (job.K / GROUP) * ROW);
    return job.M <= FEW || fit < 4 ? 4 : fit;
}

template <class V>
long chunks(const Linear& job) {
    return (row_blocks<V>(job) + blocks_in_chunk<V>(job) - 1) / blocks_in_chunk<V>(job);
}

struct Sums {
    int32_t first, second;  // of the levels 0 to 15, and 16 to 31
};

// The scale of a group from the bits of its largest size: NaN where that is no number, zero where it is nothing.
INLINE float scale_of(uint32_t bits) {
    float size;
    memcpy(&size, &bits, 4);
    const float scale = size / 127.0f;
    return bits >= 0x7f800000 ? NAN : scale < FLT_MIN ? 0.0f : scale;
}

INLINE void write_sums(uint8_t* aux0, uint8_t* aux1, Kind kind, int centre, float scale, Sums sums) {
    int32_t first = -centre * (kind == HALVES ? sums.first : sums.first + sums.second);
    const int32_t second = -centre * sums.second;
    if (kind == LIFTED) {
        const float lift = scale * float(sums.first + sums.second);
        memcpy(&first, &lift, 4);
    }
    memcpy(aux0, &first, 4);
    memcpy(aux1, &second, 4);
}

// Each group of 32 to int8: the scale is the largest size / 127, levels are rounded to nearest, ties to even. A group
// that holds NaN or infinity gets the scale NaN, one too small for a scale of full precision gets zeros.
template <class V>
void round_rows(const Linear& job, long block) {
    static constexpr Kind KINDS[TYPES] = {CENTRED, LIFTED, LIFTED, HALVES, CENTRED};
    static constexpr int CENTRES[TYPES] = {8, 0, 0, 32, 128};
    const Kind kind = KINDS[job.type];
    const int centre = CENTRES[job.type];
    const long rows = rows_of<V>(job, block), B = padded(rows, job.M <= FEW), groups = job.K / GROUP;
    uint8_t* base = block_of<V>(job, block);
    for (long m = 0; m < B; m++) {
        const long row = block * most<V>(job.M) + m;
        for (long g = 0; g < groups; g++) {
            uint8_t* at = base + g * B * ROW;
            uint8_t *levels = at + 32 * m, *scale_at = at + 32 * B + 4 * m;
            float scale = 0;
            Sums sums = {0, 0};
            if (m < rows) {
                const long from = row * job.K + g * GROUP;
                scale = job.dtype == F32 ? V::round_group((const float*)job.x + from, (int8_t*)levels, sums)
                                         : V::round_group((const uint16_t*)job.x + from, (int8_t*)levels, sums);
            } else {
                memset(levels, 0, 32);
            }
            memcpy(scale_at, &scale, 4);
            write_sums(scale_at + 4 * B, scale_at + 8 * B, kind, centre, scale, sums);
        }
    }
}

// The heart: one group of a tile against B rows.

template <class V, Kind KIND, int BITS, int B>
INLINE void step(const typename V::I* w, typename V::F s0, typename V::F s1, const uint8_t* a, typename V::F* sum) {
    const int8_t* levels = (const int8_t*)a;
    const float* scale = (const float*)(a + 32 * B);
    const int32_t *aux0 = (const int32_t*)(a + 36 * B), *aux1 = (const int32_t*)(a + 40 * B);
#pragma GCC unroll 12
    for (int m = 0; m < B; m++) {
        const typename V::F by = V::mul(s0, V::all(scale[m]));
        if constexpr (KIND == HALVES) {
            const auto low = V::template dot<BITS, 4>(V::all(aux0[m]), w, levels + 32 * m);
            const auto high = V::template dot<BITS, 4>(V::all(aux1[m]), w + 4, levels + 32 * m + 16);
            sum[m] = V::fma(V::real(low), by, sum[m]);
            sum[m] = V::fma(V::real(high), V::mul(s1, V::all(scale[m])), sum[m]);
        } else if constexpr (KIND == LIFTED) {
            const auto whole = V::template dot<BITS, 8>(V::none(), w, levels + 32 * m);
            sum[m] = V::fma(V::real(whole), by, sum[m]);
            sum[m] = V::fma(s1, V::all(((const float*)aux0)[m]), sum[m]);
        } else {
            const auto whole = V::template dot<BITS, 8>(V::all(aux0[m]), w, levels + 32 * m);
            sum[m] = V::fma(V::real(whole), by, sum[m]);
        }
    }
}

template <class V, int B>
INLINE void store(const typename V::F* sum, int half, float* out) {
    for (int m = 0; m < B; m++) V::store(out + m * TILE + half * V::L, sum[m]);
}

// Asks for the bytes wanted some groups from now. With many rows a core looks too short a way ahead by itself; into the
// second cache and no nearer, because the first is full of activations.
template <class P>
INLINE void fetch(const uint8_t* tile, int g) {
    constexpr long each = P::BYTES / P::GROUPS;
    for (long at = (g * each + 63) / 64 * 64; at < (g + 1) * each; at += 64) __builtin_prefetch(tile + AHEAD + at, 0, 2);
}

template <class V, class P, int B>
void packed_tile(const uint8_t* tile, int half, long blocks, const uint8_t* a, float* out) {
    typename V::F sum[B];
    for (int m = 0; m < B; m++) sum[m] = V::zero();
    for (long b = 0; b < blocks; b++, tile += P::BYTES) {
        const typename P::template Block<V> block(tile, half);
#pragma GCC unroll 8
        for (int g = 0; g < P::GROUPS; g++, a += B * ROW) {
            typename V::I w[8];
            typename V::F s0, s1;
            if (B > 1 || P::BITS > 4) fetch<P>(tile, g);
            for (int j = 0; j < 8; j++) w[j] = block.word(g, j);
            block.pair(g, s0, s1);
            step<V, P::KIND, P::BITS, B>(w, s0, s1, a, sum);
        }
    }
    store<V, B>(sum, half, out);
}

template <class V, class P>
void expand_tile(const uint8_t* tile, long blocks, uint8_t* to) {
    for (long b = 0; b < blocks; b++, tile += P::BYTES) {
        for (int half = 0; half < TILE / V::L; half++) {
            const typename P::template Block<V> block(tile, half);
#pragma GCC unroll 8
            for (int g = 0; g < P::GROUPS; g++) {
                uint8_t* at = to + (b * P::GROUPS + g) * EXPANDED;
                typename V::F s0, s1;
                for (int j = 0; j < 8; j++) V::put(at + 64 * j, half, block.word(g, j));
                block.pair(g, s0, s1);
                V::store((float*)(at + 512) + half * V::L, s0);
                V::store((float*)(at + 576) + half * V::L, s1);
            }
        }
    }
}

// As packed_tile, with a byte for each level, and for V::TILES tiles side by side.
template <class V, Kind KIND, int BITS, int B>
void expanded_tiles(const uint8_t* tile, int half, long groups, const uint8_t* a, float* out) {
    constexpr int T = V::TILES;
    const long next = groups * EXPANDED;
    typename V::F sum[T][B];
    for (int t = 0; t < T; t++)
        for (int m = 0; m < B; m++) sum[t][m] = V::zero();
    for (long g = 0; g < groups; g++, tile += EXPANDED, a += B * ROW) {
        const int8_t* levels = (const int8_t*)a;
        const float *scale = (const float*)(a + 32 * B), *factors = (const float*)(tile + 512) + half * V::L;
        typename V::I whole[T][B];
#pragma GCC unroll 2
        for (int part = 0; part < (KIND == HALVES ? 2 : 1); part++) {
            const int32_t* aux = (const int32_t*)(a + (36 + 4 * part) * B);
            for (int t = 0; t < T; t++)
                for (int m = 0; m < B; m++) whole[t][m] = KIND == LIFTED ? V::none() : V::all(aux[m]);
            V::template dots<BITS, KIND == HALVES ? 4 : 8, T, B>(whole, tile + 256 * part, next, half, levels + 16 * part);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                const float* pair = (const float*)((const uint8_t*)factors + t * next);
                const typename V::F by = V::load(pair + TILE * part);
#pragma GCC unroll 12
                for (int m = 0; m < B; m++) {
                    sum[t][m] = V::fma(V::real(whole[t][m]), V::mul(by, V::all(scale[m])), sum[t][m]);
                    if (KIND == LIFTED) sum[t][m] = V::fma(V::load(pair + TILE), V::all(((const float*)aux)[m]), sum[t][m]);
                }
            }
        }
    }
    for (int t = 0; t < T; t++) store<V, B>(sum[t], half, out + t * B * TILE);
}

// From sums to the answer's rows: bias, the answer's type, and no column past N.
template <class V, class E>
INLINE void finish_rows(const Linear& job, long tile, long first, long rows, const float* out) {
    const long column = tile * TILE, columns = job.N - column < TILE ? job.N - column : TILE;
    float bias[TILE] = {};
    if (job.bias) memcpy(bias, job.bias + column, 4 * columns);
    for (long m = 0; m < rows; m++) {
        E* y = (E*)job.y + (first + m) * job.stride + column;
        E line[TILE], *to = columns == TILE ? y : line;
        for (int i = 0; i < TILE; i += V::L) {
            const typename V::F sums = V::load(out + m * TILE + i);
            V::write(to + i, job.bias ? V::add(sums, V::load(bias + i)) : sums);
        }
        if (columns < TILE) memcpy(y, line, sizeof(E) * columns);
    }
}

template <class V>
INLINE void finish(const Linear& job, long tile, long first, long rows, const float* out) {
    if (job.dtype == F32)
        finish_rows<V, float>(job, tile, first, rows, out);
    else
        finish_rows<V, uint16_t>(job, tile, first, rows, out);
}

template <class V, class P, int B>
INLINE void packed_halves(const Linear& job, const uint8_t* tile, const uint8_t* a, float* out) {
    for (int half = 0; half < TILE / V::L; half++) packed_tile<V, P, B>(tile, half, job.K / GROUP / P::GROUPS, a, out);
}

template <class V, class P>
void run_few(const Linear& job, long number) {
    const uint8_t* tile = job.weight + number * (job.K / GROUP / P::GROUPS) * P::BYTES;
    for (long block = 0; block < row_blocks<V>(job); block++) {
        alignas(64) float out[V::MOST_FEW * TILE];
        const uint8_t* a = block_of<V>(job, block);
        const long rows = rows_of<V>(job, block), B = padded(rows, true);
        if (B == 1) packed_halves<V, P, 1>(job, tile, a, out);
        if (B == 2) packed_halves<V, P, 2>(job, tile, a, out);
        if (B == 3) packed_halves<V, P, 3>(job, tile, a, out);
        if (B == 4) packed_halves<V, P, 4>(job, tile, a, out);
        if constexpr (V::MOST_FEW == 8) {
            if (B == 6) packed_halves<V, P, 6>(job, tile, a, out);
            if (B == 8) packed_halves<V, P, 8>(job, tile, a, out);
        }
        finish<V>(job, number, block * V::MOST_FEW, rows, out);
    }
}

template <class V, class P, int B>
INLINE void expanded_halves(const Linear& job, const uint8_t* tile, const uint8_t* a, float* out) {
    for (int half = 0; half < TILE / V::L; half++)
        expanded_tiles<V, P::KIND, P::BITS, B>(tile, half, job.K / GROUP, a, out);
}

template <class V, class P>
void run_many(const Linear& job, long chunk, long number, uint8_t* scratch) {
    const long blocks = job.K / GROUP / P::GROUPS, first = number * V::TILES;
    const long tiles = (job.N + TILE - 1) / TILE - first < V::TILES ? (job.N + TILE - 1) / TILE - first : V::TILES;
    for (long t = 0; t < tiles; t++)
        expand_tile<V, P>(job.weight + (first + t) * blocks * P::BYTES, blocks, scratch + t * job.K / GROUP * EXPANDED);
    const long each = blocks_in_chunk<V>(job), all = row_blocks<V>(job);
    for (long block = chunk * each; block < all && block < (chunk + 1) * each; block++) {
        alignas(64) float out[V::TILES * V::MOST * TILE];
        const uint8_t* a = block_of<V>(job, block);
        const long rows = rows_of<V>(job, block), B = padded(rows, false);
        if (B == 2) expanded_halves<V, P, 2>(job, scratch, a, out);
        if (B == 4) expanded_halves<V, P, 4>(job, scratch, a, out);
        if constexpr (V::MOST == 6)
            if (B == 6) expanded_halves<V, P, 6>(job, scratch, a, out);
        for (long t = 0; t < tiles; t++) finish<V>(job, first + t, block * V::MOST, rows, out + t * B * TILE);
    }
}

template <class V, class P>
void run_tile(const Linear& job, long chunk, long number, uint8_t* scratch) {
    if (job.M > FEW)
        run_many<V, P>(job, chunk, number, scratch);
    else
        run_few<V, P>(job, number);
}

template <class V>
void tile(const Linear& job, long chunk, long number, uint8_t* scratch) {
    switch (job.type) {
        case Q4_0: return run_tile<V, PackedQ4_0>(job, chunk, number, scratch);
        case Q4_1: return run_tile<V, PackedQ4_1>(job, chunk, number, scratch);
        case Q4_K: return run_tile<V, PackedQ4_K>(job, chunk, number, scratch);
        case Q6_K: return run_tile<V, PackedQ6_K>(job, chunk, number, scratch);
        default: return run_tile<V, PackedQ8_0>(job, chunk, number, scratch);
    }
}

template <class V>
long tile_scratch(const Linear& job) {
    return job.M > FEW ? V::TILES * (job.K / GROUP) * EXPANDED : 0;
}

template <class V>
long tiles(const Linear& job) {
    const long each = TILE * (job.M > FEW ? V::TILES : 1);
    return (job.N + each - 1) / each;
}

}  // namespace
