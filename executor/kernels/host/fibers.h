// A block of GPU threads on one CPU thread: every thread is a fiber with a stack of its own, and runs until it must wait.
//
// In words: the fibers are resumed one after the other, forwards or backwards (`order`), so that code which leans on an
// order of threads shows. A barrier, of the block or of a warp, is a count of arrivals and a generation; a fiber that
// waits yields until the generation has passed. A full round in which nobody gets on is a deadlock, and an error.
// Shared memory is filled with NaN before each block.

#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <vector>

struct Index {
    unsigned x = 0, y = 0, z = 0;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    std::vector<char> stack = std::vector<char>(256 << 10);
    bool is_started = false, is_done = false;
    // Copies under way: by group, oldest first.
    struct Copy {
        char* to;
        char bytes[16];
    };
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open_group;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Barrier> warps;
    Barrier all;
    // What the lanes of a warp show each other, twice: a lane is at most one exchange ahead of another.
    struct Exchange {
        uint32_t words[2][32][8];
        const void* addresses[2][32];
    };
    std::vector<Exchange> exchanges;
    unsigned current = 0;
    uint64_t progress = 0;
    jmp_buf scheduler;
    const std::function<void()>* kernel = nullptr;
};
static Block block;
alignas(16) static char shared_bytes[256 << 10];

static void yield() {
    Fiber& self = block.fibers[block.current];
    if (_setjmp(self.at) == 0) _longjmp(block.scheduler, 1);
}

static void arrive_and_wait(Barrier& barrier, unsigned count) {
    const unsigned generation = barrier.generation;
    block.progress++;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.generation++;
    }
    while (barrier.generation == generation) yield();
}

static void run_fiber() {
    (*block.kernel)();
    block.fibers[block.current].is_done = true;
    block.progress++;
    _longjmp(block.scheduler, 1);
}

static void resume(unsigned index) {
    Fiber& fiber = block.fibers[index];
    block.current = index;
    threadIdx.x = index;
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.is_started) _longjmp(fiber.at, 1);
    fiber.is_started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
    setcontext(&fiber.start);
}

static void run_block(unsigned threads, bool is_backwards) {
    if (block.fibers.size() < threads) block.fibers.resize(threads);
    block.warps.assign(threads / 32, Barrier());
    block.exchanges.resize(threads / 32);
    block.all = Barrier();
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = block.fibers[i];
        fiber.is_started = fiber.is_done = false;
        fiber.groups.clear();
        fiber.open_group.clear();
    }
    memset(shared_bytes, 0xff, sizeof shared_bytes);
    for (unsigned done = 0; done < threads;) {
        const uint64_t before = block.progress;
        done = 0;
        for (unsigned i = 0; i < threads; i++) {
            const unsigned index = is_backwards ? threads - 1 - i : i;
            if (!block.fibers[index].is_done) resume(index);
            done += block.fibers[index].is_done;
        }
        if (block.progress == before) {
            fprintf(stderr, "deadlock in block %u,%u,%u: threads wait at different barriers\n", blockIdx.x, blockIdx.y,
                    blockIdx.z);
            exit(1);
        }
    }
}

// Runs `kernel` over a grid, every second launch with its threads backwards.
static void launch(Index grid, unsigned threads, const std::function<void()>& kernel) {
    static bool is_backwards = false;
    is_backwards = !is_backwards;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    block.kernel = &kernel;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(threads, is_backwards);
            }
}
