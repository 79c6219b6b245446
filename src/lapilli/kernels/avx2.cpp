// AVX2 with FMA: eight lanes, a tile in two halves.
#include <immintrin.h>

#include <cmath>

#include "attention.h"

namespace {

typedef uint32_t Words __attribute__((vector_size(32)));
typedef int32_t Integers __attribute__((vector_size(32)));

struct Vector {
    using I = __m256i;
    using F = __m256;
    static constexpr int L = 8, MOST_FEW = 4, MOST = 4, TILES = 1;

    static INLINE I none() { return _mm256_setzero_si256(); }
    static INLINE F zero() { return _mm256_setzero_ps(); }
    static INLINE I all(int32_t x) { return _mm256_set1_epi32(x); }
    static INLINE F all(float x) { return _mm256_set1_ps(x); }
    static INLINE I words(const uint8_t* p, int half) { return _mm256_loadu_si256((const __m256i*)(p + 32 * half)); }
    static INLINE void put(uint8_t* p, int half, I x) { _mm256_storeu_si256((__m256i*)(p + 32 * half), x); }
    static INLINE F halves(const uint8_t* p, int half) {
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 16 * half)));
    }
    static INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
    static INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x); }
    static INLINE F read(const float* p) { return load(p); }
    static INLINE F read(const uint16_t* p) {
        const I wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
    static INLINE void write(float* p, F x) { store(p, x); }
    static INLINE void write(uint16_t* p, F x) {  // to nearest, ties to even; NaN as torch writes it
        const I bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), all(1));
        const I near = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, all(0x7fff))), 16);
        const I whole = _mm256_blendv_epi8(near, all(0x7fc0), _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
        const I packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(whole, whole), 0x08);
        _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
    }

    static INLINE I shifted(I x, int right) { return right ? (I)((Words)x >> right) : x; }
    template <int MASK>
    static INLINE I bits(I x, int right) { return _mm256_and_si256(shifted(x, right), _mm256_set1_epi8(MASK)); }
    template <int MASK>
    static INLINE I raised(I x, int left) { return _mm256_and_si256((I)((Words)x << left), _mm256_set1_epi8(MASK)); }
    static INLINE I either(I a, I b) { return _mm256_or_si256(a, b); }
    static INLINE I mix(I low, I top) { return either(bits<0x0f>(low, 0), top); }
    static INLINE I byte(I x, int i) { return (I)(((Words)x >> (8 * i)) & 0xffu); }
    static INLINE I signed_byte(I x, int i) { return (I)(((Integers)((Words)x << (24 - 8 * i))) >> 24); }

    static INLINE F real(I x) { return _mm256_cvtepi32_ps(x); }
    static INLINE F negative(F x) { return _mm256_xor_ps(x, all(-0.0f)); }
    static INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
    static INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static INLINE F larger(F a, F b) { return _mm256_max_ps(a, b); }
    static INLINE F rounded(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static INLINE F power_of_two(F n) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), all(127)), 23));
    }
    static INLINE float total(F x) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    static INLINE float largest(F x) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
    static INLINE int32_t total(I x) {
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
    }

    // Pairs of products are summed in 16 bits, which saturate: of 4-bit levels 8 pairs fit (8 * 2 * 15 * 127), of 6-bit
    // levels 2, of 8-bit levels none, so those are taken as signed: their size, times a with their sign, fits.
    template <int BITS, int QUADS>
    static INLINE I dot(I sum, const I* w, const int8_t* a) {
        const I ones = _mm256_set1_epi16(1);
        I pairs = none();
        if (BITS == 8) sum = none();
#pragma GCC unroll 8
        for (int j = 0; j < QUADS; j++) {
            int32_t quad;
            memcpy(&quad, a + 4 * j, 4);
            if constexpr (BITS == 8) {
                const I level = _mm256_xor_si256(w[j], _mm256_set1_epi8(-128));
                const I product = _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(all(quad), level));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(product, ones));
            } else {
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[j], all(quad)));
                if (BITS == 4 ? j == QUADS - 1 : j % 2 == 1) {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
                    pairs = none();
                }
            }
        }
        return sum;
    }

    template <int BITS, int QUADS, int T, int B>
    static INLINE void dots(I (&whole)[T][B], const uint8_t* tile, long, int half, const int8_t* a) {
        I w[QUADS];
        for (int j = 0; j < QUADS; j++) w[j] = words(tile + 64 * j, half);
        for (int m = 0; m < B; m++) whole[0][m] = dot<BITS, QUADS>(whole[0][m], w, a + 32 * m);
    }

    template <class E>
    static INLINE float round_group(const E* x, int8_t* levels, Sums& sums) {
        const F part[4] = {read(x), read(x + 8), read(x + 16), read(x + 24)};
        I most = none();
        for (const F& one : part)
            most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(one), all(0x7fffffff)));
        alignas(32) uint32_t sizes[8];
        _mm256_store_si256((I*)sizes, most);
        uint32_t size = 0;
        for (const uint32_t one : sizes) size = one > size ? one : size;
        const float scale = scale_of(size);
        if (!(scale > 0)) {
            memset(levels, 0, 32);
            return scale;
        }
        I level[4];
        for (int i = 0; i < 4; i++) level[i] = _mm256_cvtps_epi32(_mm256_div_ps(part[i], all(scale)));
        const I low = _mm256_packs_epi32(level[0], level[1]), high = _mm256_packs_epi32(level[2], level[3]);
        const I mixed = _mm256_packs_epi16(low, high);  // packs work within halves: put the words back in order
        const I order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((I*)levels, _mm256_permutevar8x32_epi32(mixed, order));
        sums = {total(_mm256_add_epi32(level[0], level[1])), total(_mm256_add_epi32(level[2], level[3]))};
        return scale;
    }
};

}  // namespace

const Kernels lapilli::avx2 = TABLE(Vector);
