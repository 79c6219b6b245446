// One query against the keys and values of its own sequence, over pages; for linear.h's vectors V.
#pragma once

#include <initializer_list>

#include "linear.h"

namespace {

// exp(x) for x <= 0, to about two units in the last place: 2^n * e^r with |r| <= ln(2) / 2, e^r by its series.
template <class V>
INLINE typename V::F exponential(typename V::F x) {
    using F = typename V::F;
    x = V::larger(V::all(-87.0f), x);
    const F n = V::rounded(V::mul(x, V::all(1.44269504f)));
    F r = V::fma(n, V::all(-0.693359375f), x);
    r = V::fma(n, V::all(2.12194440e-4f), r);
    F p = V::all(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = V::fma(p, r, V::all(c));
    return V::mul(p, V::power_of_two(n));
}

struct Places {
    const Attention& job;
    const int32_t* table;
    long kv_head;
    template <class E>
    INLINE const E* of(const void* pages, const long* strides, long place) const {
        return (const E*)pages + table[place / job.S] * strides[0] + place % job.S * strides[1] + kv_head * strides[2];
    }
};

template <class V>
long attention_scratch(const Attention& job) {
    return 4 * (job.H / job.heads) * (job.longest + TILE);
}

// Scores of all places, then their softmax, then the values' sum: two passes over the pages, sums in order of places.
template <class V, class E>
void attend_to(const Attention& job, long row, long kv_head, uint8_t* scratch) {
    using F = typename V::F;
    const long R = job.H / job.heads, D = job.D, context = job.contexts[row];
    const long first = job.window > 0 && context > job.window ? context - job.window : 0;
    const long count = context - first, stride = (count + TILE - 1) / TILE * TILE;
    const Places places = {job, job.tables + row * job.tables_stride, kv_head};
    const float* q = job.q + (row * job.H + kv_head * R) * D;
    float* out = job.out + (row * job.H + kv_head * R) * D;
    float* scores = (float*)scratch;

    for (long i = 0; i < count; i++) {
        const E* k = places.of<E>(job.k, job.k_strides, first + i);
        for (long r = 0; r < R; r++) {
            F sum = V::zero();
            for (long d = 0; d < D; d += V::L) sum = V::fma(V::read(k + d), V::load(q + r * D + d), sum);
            scores[r * stride + i] = V::total(sum) * job.scale;
        }
    }
    for (long r = 0; r < R; r++) {
        float* s = scores + r * stride;
        for (long i = count; i < stride; i++) s[i] = -INFINITY;
        F most = V::load(s);
        for (long i = V::L; i < stride; i += V::L) most = V::larger(most, V::load(s + i));
        const F top = V::all(V::largest(most));
        F sum = V::zero();
        for (long i = 0; i < stride; i += V::L) {
            const F p = exponential<V>(V::sub(V::load(s + i), top));
            V::store(s + i, p);
            for (long past = i; past < i + V::L; past++)
                if (past >= count) s[past] = 0;
            sum = V::add(sum, V::load(s + i));
        }
        const float whole = V::total(sum);
        for (long i = 0; i < count; i++) s[i] /= whole;
    }
    constexpr int HEADS = V::L == 16 ? 4 : 2;
    for (long d = 0; d < D; d += TILE) {
        for (long r = 0; r < R; r += HEADS) {
            const long heads = R - r < HEADS ? R - r : HEADS;
            F sum[HEADS][TILE / V::L];
            for (auto& one : sum)
                for (auto& part : one) part = V::zero();
            for (long i = 0; i < count; i++) {
                const E* v = places.of<E>(job.v, job.v_strides, first + i) + d;
                for (int h = 0; h < HEADS; h++) {
                    const F p = V::all(scores[(r + (h < heads ? h : 0)) * stride + i]);
                    for (int part = 0; part < TILE / V::L; part++)
                        sum[h][part] = V::fma(V::read(v + part * V::L), p, sum[h][part]);
                }
            }
            for (long h = 0; h < heads; h++)
                for (int part = 0; part < TILE / V::L; part++)
                    V::store(out + (r + h) * D + d + part * V::L, sum[h][part]);
        }
    }
}

template <class V>
void attend(const Attention& job, long row, long kv_head, uint8_t* scratch) {
    if (job.dtype == F32)
        attend_to<V, float>(job, row, kv_head, scratch);
    else
        attend_to<V, uint16_t>(job, row, kv_head, scratch);
}

}  // namespace

#define TABLE(V) \
    {activation_bytes<V>, row_blocks<V>, round_rows<V>, chunks<V>, tile_scratch<V>, tiles<V>, tile<V>, attention_scratch<V>, attend<V>}
