// AVX-512 with VNNI: sixteen lanes, a whole tile at a time.
#include <immintrin.h>

#include <cmath>

#include "attention.h"

namespace {

typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Integers __attribute__((vector_size(64)));

struct Vector {
    using I = __m512i;
    using F = __m512;
    static constexpr int L = 16, MOST_FEW = 8, MOST = 6, TILES = 2;

    static INLINE I none() { return _mm512_setzero_si512(); }
    static INLINE F zero() { return _mm512_setzero_ps(); }
    static INLINE I all(int32_t x) { return _mm512_set1_epi32(x); }
    static INLINE F all(float x) { return _mm512_set1_ps(x); }
    static INLINE I words(const uint8_t* p, int) { return _mm512_loadu_si512(p); }
    static INLINE void put(uint8_t* p, int, I x) { _mm512_storeu_si512(p, x); }
    static INLINE F halves(const uint8_t* p, int) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
    static INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
    static INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static INLINE F read(const float* p) { return load(p); }
    static INLINE F read(const uint16_t* p) {
        const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    static INLINE void write(float* p, F x) { store(p, x); }
    static INLINE void write(uint16_t* p, F x) {  // to nearest, ties to even; NaN as torch writes it
        const I bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), all(1));
        const I near = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, all(0x7fff))), 16);
        const I whole = _mm512_mask_mov_epi32(near, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), all(0x7fc0));
        _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(whole));
    }

    static INLINE I shifted(I x, int right) { return right ? (I)((Words)x >> right) : x; }
    template <int MASK>
    static INLINE I bits(I x, int right) { return _mm512_and_si512(shifted(x, right), _mm512_set1_epi8(MASK)); }
    template <int MASK>
    static INLINE I raised(I x, int left) { return _mm512_and_si512((I)((Words)x << left), _mm512_set1_epi8(MASK)); }
    static INLINE I either(I a, I b) { return _mm512_or_si512(a, b); }
    static INLINE I mix(I low, I top) { return _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x0f), low, top, 0xea); }
    static INLINE I byte(I x, int i) { return (I)(((Words)x >> (8 * i)) & 0xffu); }
    static INLINE I signed_byte(I x, int i) { return (I)(((Integers)((Words)x << (24 - 8 * i))) >> 24); }

    static INLINE F real(I x) { return _mm512_cvtepi32_ps(x); }
    static INLINE F negative(F x) { return _mm512_xor_ps(x, all(-0.0f)); }
    static INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
    static INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static INLINE F larger(F a, F b) { return _mm512_max_ps(a, b); }
    static INLINE F rounded(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static INLINE F power_of_two(F n) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), all(127)), 23));
    }
    static INLINE float total(F x) { return _mm512_reduce_add_ps(x); }
    static INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }

    template <int BITS, int QUADS>
    static INLINE I dot(I sum, const I* w, const int8_t* a) {
#pragma GCC unroll 8
        for (int j = 0; j < QUADS; j++) {
            int32_t quad;
            memcpy(&quad, a + 4 * j, 4);
            sum = _mm512_dpbusd_epi32(sum, w[j], all(quad));
        }
        return sum;
    }

    // A row's word of activations is loaded once for all tiles, a tile's word of levels once for all rows.
    template <int BITS, int QUADS, int T, int B>
    static INLINE void dots(I (&whole)[T][B], const uint8_t* tile, long next, int, const int8_t* a) {
#pragma GCC unroll 8
        for (int j = 0; j < QUADS; j++) {
            I w[T];
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) w[t] = words(tile + t * next + 64 * j, 0);
#pragma GCC unroll 12
            for (int m = 0; m < B; m++) {
                int32_t quad;
                memcpy(&quad, a + 32 * m + 4 * j, 4);
                const I by = all(quad);
#pragma GCC unroll 4
                for (int t = 0; t < T; t++) whole[t][m] = _mm512_dpbusd_epi32(whole[t][m], w[t], by);
            }
        }
    }

    template <class E>
    static INLINE float round_group(const E* x, int8_t* levels, Sums& sums) {
        const F first = read(x), second = read(x + 16);
        const I size = _mm512_set1_epi32(0x7fffffff);
        const I most = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(first), size),
                                        _mm512_and_si512(_mm512_castps_si512(second), size));
        const float scale = scale_of(_mm512_reduce_max_epu32(most));
        if (!(scale > 0)) {
            memset(levels, 0, 32);
            return scale;
        }
        const F by = all(scale);
        const I low = _mm512_cvtps_epi32(_mm512_div_ps(first, by)), high = _mm512_cvtps_epi32(_mm512_div_ps(second, by));
        _mm_storeu_si128((__m128i*)levels, _mm512_cvtepi32_epi8(low));
        _mm_storeu_si128((__m128i*)(levels + 16), _mm512_cvtepi32_epi8(high));
        sums = {_mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high)};
        return scale;
    }
};

}  // namespace

const Kernels lapilli::avx512 = TABLE(Vector);
