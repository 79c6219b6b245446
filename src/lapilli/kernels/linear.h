// The kernels, written once over a vector V of 16 or 8 lanes and compiled once for each instruction set.
//
// A tile is 16 rows of a weight, a block what ggml calls one (32 or 256 weights of a row), a group 32 weights of a row,
// a word 4 of its levels. V of 8 lanes does a tile in two halves. Whatever is summed in floating point is summed in the
// order of the groups and by the same operations, however many rows are computed beside it.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>

#include "cpu.h"

#define INLINE inline __attribute__((always_inline))

namespace {

using namespace lapilli;

constexpr long TILE = 16, GROUP = 32;
constexpr long ROW = 44;        // bytes of a group of one row of activations: 32 levels, the scale, two sums
constexpr long EXPANDED = 640;  // bytes of a group of a tile with a byte for each level: 8 x 64, and twice 16 floats
constexpr long FEW = 16;        // rows up to which levels are taken straight from their packed form
constexpr long CHUNK = 640 << 10;  // bytes of activations that stay in the cache while a tile meets them

// How the integer sums of a group become a float:
// CENTRED  scale * (sum of level * a  -  centre * sum of a)
// LIFTED   scale * (sum of level * a)  +  lift * (sum of a)
// HALVES   CENTRED, with a scale for each 16 weights
enum Kind { CENTRED, LIFTED, HALVES };

// Where the numbers of a block of 16 rows lie: words of 16 rows side by side, then what is smaller than a word.
// `pair` gives the factors of a group (scale and lift, or two scales), `word` the levels 4j to 4j + 3 of its 32.

struct PackedQ8_0 {
    static constexpr Kind KIND = CENTRED;
    static constexpr int BITS = 8, CENTRE = 128, GROUPS = 1;
    static constexpr long BYTES = 34 * TILE;
    template <class V>
    struct Block {
        const uint8_t* at;
        int half;
        typename V::F d;
        INLINE Block(const uint8_t* at, int half) : at(at), half(half), d(V::halves(at + 512, half)) {}
        INLINE void pair(int, typename V::F& s0, typename V::F& s1) const { s0 = d, s1 = d; }
        INLINE typename V::I word(int, int j) const { return V::words(at + 64 * j, half); }
    };
};

struct PackedQ4_0 {
    static constexpr Kind KIND = CENTRED;
    static constexpr int BITS = 4, CENTRE = 8, GROUPS = 1;
    static constexpr long BYTES = 18 * TILE;
    template <class V>
    struct Block {
        const uint8_t* at;
        int half;
        typename V::F d;
        INLINE Block(const uint8_t* at, int half) : at(at), half(half), d(V::halves(at + 256, half)) {}
        INLINE void pair(int, typename V::F& s0, typename V::F& s1) const { s0 = d, s1 = d; }
        INLINE typename V::I word(int, int j) const {
            return V::template bits<0x0f>(V::words(at + 64 * (j & 3), half), j < 4 ? 0 : 4);
        }
    };
};

struct PackedQ4_1 {
    static constexpr Kind KIND = LIFTED;
    static constexpr int BITS = 4, CENTRE = 0, GROUPS = 1;
    static constexpr long BYTES = 20 * TILE;
    template <class V>
    struct Block {
        const uint8_t* at;
        int half;
        typename V::F d, m;
        INLINE Block(const uint8_t* at, int half)
            : at(at), half(half), d(V::halves(at + 256, half)), m(V::halves(at + 288, half)) {}
        INLINE void pair(int, typename V::F& s0, typename V::F& s1) const { s0 = d, s1 = m; }
        INLINE typename V::I word(int, int j) const {
            return V::template bits<0x0f>(V::words(at + 64 * (j & 3), half), j < 4 ? 0 : 4);
        }
    };
};

// Scales and lowest values have six bits: twelve bytes a row, that is three words.
struct PackedQ4_K {
    static constexpr Kind KIND = LIFTED;
    static constexpr int BITS = 4, CENTRE = 0, GROUPS = 8;
    static constexpr long BYTES = 144 * TILE;
    template <class V>
    struct Block {
        using I = typename V::I;
        const uint8_t* at;
        int half;
        typename V::F d, m;
        I scale[2], lowest[2];
        INLINE Block(const uint8_t* at, int half)
            : at(at), half(half), d(V::halves(at + 2240, half)), m(V::negative(V::halves(at + 2272, half))) {
            const I a = V::words(at + 2048, half), b = V::words(at + 2112, half), c = V::words(at + 2176, half);
            scale[0] = V::template bits<0x3f>(a, 0);
            lowest[0] = V::template bits<0x3f>(b, 0);
            scale[1] = V::either(V::template bits<0x0f>(c, 0), V::template bits<0x30>(a, 2));
            lowest[1] = V::either(V::template bits<0x0f>(c, 4), V::template bits<0x30>(b, 2));
        }
        INLINE void pair(int g, typename V::F& s0, typename V::F& s1) const {
            s0 = V::mul(d, V::real(V::byte(scale[g >> 2], g & 3)));
            s1 = V::mul(m, V::real(V::byte(lowest[g >> 2], g & 3)));
        }
        INLINE I word(int g, int j) const {
            return V::template bits<0x0f>(V::words(at + 512 * (g >> 1) + 64 * j, half), 4 * (g & 1));
        }
    };
};

struct PackedQ6_K {
    static constexpr Kind KIND = HALVES;
    static constexpr int BITS = 6, CENTRE = 32, GROUPS = 8;
    static constexpr long BYTES = 210 * TILE;
    template <class V>
    struct Block {
        using I = typename V::I;
        const uint8_t* at;
        int half;
        typename V::F d;
        INLINE Block(const uint8_t* at, int half) : at(at), half(half), d(V::halves(at + 3328, half)) {}
        INLINE void pair(int g, typename V::F& s0, typename V::F& s1) const {
            const I steps = V::words(at + 3072 + 64 * (g >> 1), half);
            s0 = V::mul(d, V::real(V::signed_byte(steps, 2 * (g & 1))));
            s1 = V::mul(d, V::real(V::signed_byte(steps, 2 * (g & 1) + 1)));
        }
        INLINE I word(int g, int j) const {
            const int part = g & 3;
            const I low = V::words(at + 1024 * (g >> 2) + 512 * (part & 1) + 64 * j, half);
            const I high = V::words(at + 2048 + 512 * (g >> 2) + 64 * j, half);
            const I top = part == 0   ? V::template raised<0x30>(high, 4)
                          : part == 1 ? V::template raised<0x30>(high, 2)
                          : part == 2 ? V::template bits<0x30>(high, 0)
                                      : V::template bits<0x30>(high, 2);
            return V::mix(V::shifted(low, part < 2 ? 0 : 4), top);
        }
    };
};

// Rows: they are cut into blocks of at most MOST, all of one size but the last, which is padded to a size there is.

template <class V>
INLINE long most(long M) {
    return M <= FEW ? V::MOST_FEW : V::MOST;
}

INLINE long padded(long rows, bool few) {
    if (few) return rows <= 4 ? rows : (rows + 1) / 2 * 2;
    return (rows + 3) / 4 * 4;
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

template <class V, Kind KIND, int BITS, int B>
void expanded_tile(const uint8_t* tile, int half, long groups, const uint8_t* a, float* out) {
    typename V::F sum[B];
    for (int m = 0; m < B; m++) sum[m] = V::zero();
    for (long g = 0; g < groups; g++, tile += EXPANDED, a += B * ROW) {
        typename V::I w[8];
        for (int j = 0; j < 8; j++) w[j] = V::words(tile + 64 * j, half);
        const float* pair = (const float*)(tile + 512) + half * V::L;
        step<V, KIND, BITS, B>(w, V::load(pair), V::load(pair + TILE), a, sum);
    }
    store<V, B>(sum, half, out);
}

// From sums to the answer's rows: bias, the answer's type, and no column past N.
INLINE void finish(const Linear& job, long tile, long first, long rows, const float* out) {
    const long column = tile * TILE, columns = job.N - column < TILE ? job.N - column : TILE;
    for (long m = 0; m < rows; m++, out += TILE) {
        float line[TILE];
        for (long n = 0; n < TILE; n++) line[n] = out[n];
        if (job.bias)
            for (long n = 0; n < columns; n++) line[n] += job.bias[column + n];
        const long at = (first + m) * job.N + column;
        if (job.dtype == F32) {
            memcpy((float*)job.y + at, line, columns * 4);
            continue;
        }
        uint16_t halves[TILE];
        for (long n = 0; n < TILE; n++) {  // to nearest, ties to even; NaN as torch writes it
            uint32_t bits;
            memcpy(&bits, &line[n], 4);
            halves[n] = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        }
        memcpy((uint16_t*)job.y + at, halves, columns * 2);
    }
}

template <class V, class P, int B>
INLINE void packed_halves(const Linear& job, const uint8_t* tile, const uint8_t* a, float* out) {
    for (int half = 0; half < TILE / V::L; half++) packed_tile<V, P, B>(tile, half, job.K / GROUP / P::GROUPS, a, out);
}

template <class V, class P, int B>
INLINE void expanded_halves(const Linear& job, const uint8_t* tile, const uint8_t* a, float* out) {
    for (int half = 0; half < TILE / V::L; half++)
        expanded_tile<V, P::KIND, P::BITS, B>(tile, half, job.K / GROUP, a, out);
}

template <class V, class P>
void run_tile(const Linear& job, long chunk, long number, uint8_t* scratch) {
    const long blocks = job.K / GROUP / P::GROUPS;
    const uint8_t* tile = job.weight + number * blocks * P::BYTES;
    if (job.M > FEW) {
        expand_tile<V, P>(tile, blocks, scratch);
        tile = scratch;
    }
    const long first = chunk * blocks_in_chunk<V>(job), all = row_blocks<V>(job);
    const long last = first + blocks_in_chunk<V>(job) < all ? first + blocks_in_chunk<V>(job) : all;
    for (long block = first; block < last; block++) {
        alignas(64) float out[12 * TILE];
        const uint8_t* a = block_of<V>(job, block);
        const long rows = rows_of<V>(job, block), B = padded(rows, job.M <= FEW);
        if (job.M > FEW) {
            if (B == 4) expanded_halves<V, P, 4>(job, tile, a, out);
            if constexpr (V::MOST == 12) {
                if (B == 8) expanded_halves<V, P, 8>(job, tile, a, out);
                if (B == 12) expanded_halves<V, P, 12>(job, tile, a, out);
            }
        } else {
            if (B == 1) packed_halves<V, P, 1>(job, tile, a, out);
            if (B == 2) packed_halves<V, P, 2>(job, tile, a, out);
            if (B == 3) packed_halves<V, P, 3>(job, tile, a, out);
            if (B == 4) packed_halves<V, P, 4>(job, tile, a, out);
            if constexpr (V::MOST_FEW == 8) {
                if (B == 6) packed_halves<V, P, 6>(job, tile, a, out);
                if (B == 8) packed_halves<V, P, 8>(job, tile, a, out);
            }
        }
        finish(job, number, block * most<V>(job.M), rows, out);
    }
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
    return job.M > FEW ? job.K / GROUP * EXPANDED : 0;
}

}  // namespace
