// How ggml's types lie in memory once 16 rows are interleaved, and how a vector V of 16 or 8 lanes takes them apart.
//
// A tile is 16 rows of a weight, a block what ggml calls one (32 or 256 weights of a row), a group 32 weights of a row,
// a word 4 of its levels. V of 8 lanes does a tile in two halves.
#pragma once

#include "cpu.h"

#define INLINE inline __attribute__((always_inline))

namespace {

using namespace lapilli;

constexpr long TILE = 16, GROUP = 32;

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

}  // namespace
