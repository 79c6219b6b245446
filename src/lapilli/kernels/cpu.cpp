// The C ABI of the CPU kernels: it chooses the instruction set and shares the work out to torch's own threads.
#include "cpu.h"

#include <atomic>
#include <cstdlib>
#include <new>

using namespace lapilli;

namespace {

// Threads are those of the OpenMP library that torch has loaded: a second pool beside it would spin against it.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using Barrier = void (*)();
Parallel parallel = nullptr;
Barrier barrier = nullptr;

const Kernels& of_level(int level) { return level == 2 ? avx512 : avx2; }

struct Scratch {
    uint8_t* at = nullptr;
    long size = 0;
    ~Scratch() { free(at); }
    uint8_t* of(long bytes) {
        if (bytes > size) {
            free(at);
            size = (bytes + 63) / 64 * 64;
            at = (uint8_t*)aligned_alloc(64, size);
            if (!at) abort();
        }
        return at;
    }
};
thread_local Scratch own, shared;

// Items 0 to `count`, taken by whoever is free, `run` of them at a time.
template <class Work>
struct Shared {
    const Work& work;
    long count, run;
    std::atomic<long> next{0};
    static void enter(void* self) {
        auto& all = *(Shared*)self;
        for (long from; (from = all.next.fetch_add(all.run, std::memory_order_relaxed)) < all.count;)
            for (long i = from; i < all.count && i < from + all.run; i++) all.work(i);
    }
};

template <class Work>
void share(long count, long run, int threads, const Work& work) {
    if (threads < 2 || count <= run || !parallel) {
        for (long i = 0; i < count; i++) work(i);
        return;
    }
    Shared<Work> all{work, count, run};
    parallel(Shared<Work>::enter, &all, threads, 0);
}

long at_least(long a, long b) { return a > b ? a : b; }

}  // namespace

#include "decode.h"

#pragma GCC visibility push(default)
extern "C" {

int lapilli_abi() { return 2; }

int lapilli_has(int level) {
    __builtin_cpu_init();
    if (level == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

void lapilli_threads(void* gomp_parallel, void* gomp_barrier) {
    parallel = (Parallel)gomp_parallel;
    barrier = (Barrier)gomp_barrier;
}

void lapilli_linear(const void* weight, const void* x, const void* bias, void* y, long M, long N, long K, int type,
                    int dtype, int threads, int level) {
    if (M <= 0 || N <= 0) return;
    const Kernels& kernels = of_level(level);
    Linear job = {(const uint8_t*)weight, x, (const float*)bias, y, M, N, K, (Type)type, (Float)dtype, nullptr, N};
    job.activations = shared.of(kernels.activation_bytes(job));
    share(kernels.row_blocks(job), 1, M * K < 65536 ? 1 : threads, [&](long block) { kernels.round_rows(job, block); });

    const long tiles = kernels.tiles(job), chunks = kernels.chunks(job), scratch = kernels.tile_scratch(job);
    const long run = M > 16 ? 1 : at_least(1, tiles / (8 * at_least(threads, 1)));
    share(chunks * tiles, run, M * N * K < 65536 ? 1 : threads, [&](long i) {
        kernels.tile(job, i / tiles, i % tiles, own.of(scratch));
    });
}

void lapilli_attend(const Attention* job, int threads, int level) {
    const Kernels& kernels = of_level(level);
    const long scratch = kernels.attention_scratch(*job);
    const int needed = job->T * job->H * job->longest * job->D < 32768 ? 1 : threads;
    share(job->T * job->heads, 1, needed, [&](long i) {
        kernels.attend(*job, i / job->heads, i % job->heads, own.of(scratch));
    });
}

void lapilli_decode(const Decode* job, int threads, int level) { decode(*job, of_level(level), threads); }
}
#pragma GCC visibility pop
