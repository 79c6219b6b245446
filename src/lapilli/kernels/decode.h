// A decoder's step as one piece of work: all layers for a token each of a few rows, threads meeting after each part.
//
// What is summed for a row is summed in one order, whatever rows are beside it and however many threads there are.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "cpu.h"

namespace {

// What all threads of a step share: a counter for each part, from which they take items.
struct Team {
    std::vector<std::atomic<long>> next;
    bool alone;
};

// One thread's way through the parts. Each takes the same way, so parts need no names.
struct Member {
    Team& team;
    long part = 0;

    template <class Work>
    void share(long count, long run, const Work& work) {
        auto& next = team.next[part++];
        for (long from; (from = next.fetch_add(run, std::memory_order_relaxed)) < count;)
            for (long i = from; i < count && i < from + run; i++) work(i);
        if (!team.alone) barrier();
    }
};

constexpr long PARTS = 13;      // of a layer
constexpr long SEGMENT = 1024;  // numbers of the gated product taken at a time

// x += what a layer adds; then its root mean square norm, from sixteen sums side by side.
void add_and_norm(float* x, const float* add, const float* weight, float* out, long width, float epsilon) {
    float sums[16] = {};
    if (add)
        for (long i = 0; i < width; i++) x[i] += add[i];
    for (long i = 0; i < width; i += 16)
        for (long j = 0; j < 16 && i + j < width; j++) sums[j] += x[i + j] * x[i + j];
    float sum = 0;
    for (const float each : sums) sum += each;
    const float by = 1.0f / sqrtf(sum / float(width) + epsilon);
    for (long i = 0; i < width; i++) out[i] = weight[i] * (x[i] * by);
}

void turn(float* head, const float* cos, const float* sin, long rotary) {
    const long half = rotary / 2;
    for (long i = 0; i < half; i++) {
        const float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i + half] + first * sin[i + half];
    }
}

// To the nearest bfloat16, ties to even.
uint16_t brain(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (std::isnan(value)) return 0x7fc0;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void keep(void* pages, Float dtype, long at, const float* head, long D) {
    if (dtype == F32)
        memcpy((float*)pages + at, head, 4 * D);
    else
        for (long i = 0; i < D; i++) ((uint16_t*)pages)[at + i] = brain(head[i]);
}

// Matrices with one input, their outputs side by side.
struct Products {
    Linear jobs[3];
    long count = 0, tiles = 0;

    Products(const Matrix* matrices, long most, const float* x, float* y, long stride, long B, uint8_t* activations,
             const Kernels& kernels) {
        for (; count < most && matrices[count].N; count++) {
            const Matrix& one = matrices[count];
            Linear& job = jobs[count];
            job = {one.data, x, one.bias, y, B, one.N, one.K, (Type)one.type, F32, activations, stride};
            activations += (kernels.activation_bytes(job) + 63) / 64 * 64;
            y += one.N;
            tiles += kernels.tiles(job);
        }
    }

    void multiply(Member& me, const Kernels& kernels, int threads) const {
        const long blocks = kernels.row_blocks(jobs[0]);
        me.share(count * blocks, 1, [&](long i) { kernels.round_rows(jobs[i / blocks], i % blocks); });
        me.share(tiles, at_least(1, tiles / (8 * threads)), [&](long i) {
            long one = 0;
            for (long here; i >= (here = kernels.tiles(jobs[one])); one++) i -= here;
            kernels.tile(jobs[one], 0, i, nullptr);
        });
    }
};

// Where the numbers between the parts of a layer are kept.
struct Between {
    float *normed, *turned, *found, *added, *gated, *product;
    uint8_t* activations;

    static long bytes(const Decode& job, const Kernels& kernels) {
        const long wide = (job.H + 2 * job.heads) * job.D;
        const long numbers = 2 * job.width + wide + job.H * job.D + 3 * job.inner;
        const long widest = at_least(at_least(job.width, job.inner), job.H * job.D);
        const Linear largest = {nullptr, nullptr, nullptr, nullptr, job.B, 1, widest, Q8_0, F32, nullptr, 1};
        return 4 * job.B * numbers + 3 * (kernels.activation_bytes(largest) + 64) + 64;
    }

    Between(const Decode& job, uint8_t* at) {
        const long B = job.B, wide = (job.H + 2 * job.heads) * job.D;
        normed = (float*)at;
        added = normed + B * job.width;
        turned = added + B * job.width;
        found = turned + B * wide;
        gated = found + B * job.H * job.D;
        product = gated + B * 2 * job.inner;
        activations = (uint8_t*)(((uintptr_t)(product + B * job.inner) + 63) / 64 * 64);
    }
};

void layer(Member& me, const Decode& job, const Layer& one, const Between& at, bool first, const Kernels& kernels,
           int threads) {
    const long B = job.B, D = job.D, wide = (job.H + 2 * job.heads) * D, inner = job.inner;
    me.share(B, 1, [&](long b) {
        add_and_norm(job.x + b * job.width, first ? nullptr : at.added + b * job.width, one.norm1,
                     at.normed + b * job.width, job.width, job.epsilon);
    });
    Products(one.in, 3, at.normed, at.turned, wide, B, at.activations, kernels).multiply(me, kernels, threads);
    me.share(B * job.heads, 1, [&](long i) {
        const long b = i / job.heads, head = i % job.heads, R = job.H / job.heads;
        const float *cos = job.cos + b * job.rotary, *sin = job.sin + b * job.rotary;
        float *q = at.turned + b * wide + head * R * D, *k = at.turned + b * wide + (job.H + head) * D;
        for (long r = 0; r < R; r++) turn(q + r * D, cos, sin, job.rotary);
        turn(k, cos, sin, job.rotary);
        const long page = job.places[b] / job.S, place = job.places[b] % job.S;
        keep(one.k, job.dtype, page * job.k_strides[0] + place * job.k_strides[1] + head * job.k_strides[2], k, D);
        keep(one.v, job.dtype, page * job.v_strides[0] + place * job.v_strides[1] + head * job.v_strides[2],
             k + job.heads * D, D);
        memcpy(at.found + (b * job.H + head * R) * D, q, 4 * R * D);
    });
    // Queries lie side by side in `found`; each is read before its own answer takes its place.
    Attention look = {at.found, one.k, one.v, job.tables, job.contexts, at.found, B, job.H, job.heads, D, job.S,
                      job.tables_stride, one.window, job.longest, {}, {}, job.scale, job.dtype};
    memcpy(look.k_strides, job.k_strides, sizeof look.k_strides);
    memcpy(look.v_strides, job.v_strides, sizeof look.v_strides);
    const long scratch = kernels.attention_scratch(look);
    me.share(B * job.heads, 1, [&](long i) { kernels.attend(look, i / job.heads, i % job.heads, own.of(scratch)); });
    Products(&one.out, 1, at.found, at.added, job.width, B, at.activations, kernels).multiply(me, kernels, threads);
    me.share(B, 1, [&](long b) {
        add_and_norm(job.x + b * job.width, at.added + b * job.width, one.norm2, at.normed + b * job.width, job.width,
                     job.epsilon);
    });
    Products(one.gated, 2, at.normed, at.gated, 2 * inner, B, at.activations, kernels).multiply(me, kernels, threads);
    const long segments = (inner + SEGMENT - 1) / SEGMENT;
    me.share(B * segments, 1, [&](long i) {
        const long b = i / segments, from = i % segments * SEGMENT, to = from + SEGMENT < inner ? from + SEGMENT : inner;
        const float *gate = at.gated + b * 2 * inner, *up = gate + inner;
        for (long n = from; n < to; n++) at.product[b * inner + n] = gate[n] / (1.0f + expf(-gate[n])) * up[n];
    });
    Products(&one.down, 1, at.product, at.added, job.width, B, at.activations, kernels).multiply(me, kernels, threads);
}

struct Step {
    const Decode& job;
    const Kernels& kernels;
    const Between& between;
    Team& team;
    int threads;

    static void enter(void* self) {
        const Step& step = *(Step*)self;
        const Decode& job = step.job;
        Member me{step.team};
        for (long n = 0; n < job.count; n++)
            layer(me, job, job.layers[n], step.between, n == 0, step.kernels, step.threads);
        me.share(job.B, 1, [&](long b) {
            for (long i = 0; i < job.width; i++) job.x[b * job.width + i] += step.between.added[b * job.width + i];
        });
    }
};

void decode(const Decode& job, const Kernels& kernels, int threads) {
    const bool alone = threads < 2 || !parallel || !barrier;
    Team team{std::vector<std::atomic<long>>(job.count * PARTS + 1), alone};
    const Between between(job, shared.of(Between::bytes(job, kernels)));
    Step step{job, kernels, between, team, alone ? 1 : threads};
    if (alone)
        Step::enter(&step);
    else
        parallel(Step::enter, &step, threads, 0);
}

}  // namespace
