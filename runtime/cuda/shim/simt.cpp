// The scheduler of simt.hpp: fibers, barriers, clusters, and the launch that the Python side calls.
#include "simt.hpp"
#include "fibers.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdarg>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace simt {
namespace {

constexpr long MOST_PAUSES = 20'000'000;  // of one launch: beyond it, nobody will ever do what is waited for

struct Copy { void* to; const void* from; size_t bytes, filled; };

enum class State { ready, at_warp, at_block, at_cluster, done };

struct Block;
struct Thread : Self {
    State state = State::done;
    Place place;
    Block* home = nullptr;
    int index = 0;
    int turn = 0;  // place in Block::order
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
    std::vector<Deferred> later;
    std::vector<std::vector<Deferred>> later_groups;
};

struct Warp {
    unsigned arrived = 0;
    unsigned here = 0;  // lanes that exist and have not returned
    std::array<void*, WARP> data{};
    std::array<unsigned, WARP> mask{};
    std::array<Combine, WARP> combine{};
};

struct Launch;
struct Block {
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<int> order;
    Place scheduler;
    Launch* launch = nullptr;
    int live = 0, waiting = 0, in_cluster = 0;
    Votes votes{0, 1, 0}, result{0, 1, 0};
    char* dynamic = nullptr;
    char* anchor = nullptr;
    bool finished = false;
};

struct Launch {
    Stub stub = nullptr;
    void** args = nullptr;
    dim3 grid, block;
    size_t dynamic_bytes = 0;
    unsigned cluster = 1;
    int order = 0;
    long pauses = 0;
    std::array<Block, MAX_CLUSTER> blocks;
    bool failed = false;
    char message[512] = "";
    // The baton: only the block whose turn it is runs.
    std::mutex mutex;
    std::condition_variable turned;
    unsigned turn = 0;
    unsigned idle = 0;
};

thread_local char shared_anchor;  // where this block's static shared memory is, relative to another block's
char last_error[512] = "";

Thread& me() { return *static_cast<Thread*>(self); }

// On to the next thread in order that can run; behind the last one, and after a failure, to the scheduler.
void leave() {
    Thread& t = me();
    Block& b = *t.home;
    const int count = b.launch->failed ? 0 : static_cast<int>(b.order.size());
    for (int turn = t.turn + 1; turn < count; ++turn) {
        Thread& next = b.threads[b.order[turn]];
        if (next.state != State::ready) continue;
        self = &next;
        change(t.place, next.place);
        return;
    }
    change(t.place, b.scheduler);
}

void release_block(Block& b) {
    b.result = b.votes;
    b.votes = {0, 1, 0};
    b.waiting = 0;
    for (Thread& t : b.threads) if (t.state == State::at_block) t.state = State::ready;
}

void entry() {
    Thread& t = me();
    Block& b = *t.home;
    b.launch->stub(b.launch->args);
    t.state = State::done;
    b.warps[t.index / WARP].here &= ~(1u << t.lane);
    if (--b.live > 0 && b.waiting == b.live) release_block(b);
    leave();
    __builtin_unreachable();
}

void start(Block& b, unsigned slot, uint3 at) {
    Launch& l = *b.launch;
    int count = static_cast<int>(l.block.x * l.block.y * l.block.z);
    if (b.threads.empty()) {
        b.threads.resize(count);
        b.warps.resize((count + WARP - 1) / WARP);
        b.order.resize(count);
        for (int t = 0; t < count; ++t) b.order[t] = l.order == 1 ? count - 1 - t : t;
        if (l.order > 1) std::shuffle(b.order.begin(), b.order.end(), std::mt19937(l.order));
        for (int turn = 0; turn < count; ++turn) b.threads[b.order[turn]].turn = turn;
    }
    std::fill(b.warps.begin(), b.warps.end(), Warp{});
    if (b.dynamic) std::memset(b.dynamic, 0xff, l.dynamic_bytes);
    b.live = count;
    b.waiting = b.in_cluster = 0;
    b.votes = {0, 1, 0};
    b.finished = false;
    for (int i = 0; i < count; ++i) {
        Thread& t = b.threads[i];
        t.thread = {i % l.block.x, i / l.block.x % l.block.y, i / (l.block.x * l.block.y)};
        t.block = at;
        t.threads = l.block;
        t.blocks = l.grid;
        t.lane = i % WARP;
        t.cluster_rank = slot;
        t.cluster_size = l.cluster;
        t.dynamic_shared = b.dynamic;
        t.home = &b;
        t.index = i;
        b.warps[i / WARP].here |= 1u << t.lane;
        t.open.clear();
        t.groups.clear();
        t.later.clear();
        t.later_groups.clear();
        t.state = State::ready;
        prepare(t.place, stack_of(slot, i), STACK_BYTES, entry);
    }
}

// Runs the block until every thread is done or waits for the cluster; each thread goes over to the next by itself.
// False: nothing can go on.
bool run(Block& b) {
    for (;;) {
        auto first = std::find_if(b.order.begin(), b.order.end(), [&](int i) { return b.threads[i].state == State::ready; });
        if (first == b.order.end()) return b.live == 0 || (b.in_cluster > 0 && b.in_cluster == b.live);
        self = &b.threads[*first];
        change(b.scheduler, b.threads[*first].place);
        if (b.launch->failed) return false;
    }
}

void note_deadlock(Block& b) {
    Launch& l = *b.launch;
    if (l.failed) return;
    int warp = 0, block = 0, cluster = 0;
    for (Thread& t : b.threads) {
        warp += t.state == State::at_warp;
        block += t.state == State::at_block;
        cluster += t.state == State::at_cluster;
    }
    l.failed = true;
    std::snprintf(l.message, sizeof l.message,
                  "deadlock in block (%u, %u, %u): %d threads wait in a warp operation, %d at __syncthreads, %d at "
                  "cluster_sync, %d have returned", b.threads[0].block.x, b.threads[0].block.y, b.threads[0].block.z,
                  warp, block, cluster, static_cast<int>(b.threads.size()) - b.live);
}

// One block of a cluster on its own OS thread, so that its thread_local (static shared) memory is its own.
void run_in_cluster(Launch& l, unsigned rank) {
    Block& b = l.blocks[rank];
    std::unique_lock lock(l.mutex);
    auto mine = [&] { return l.turn == rank || l.failed; };
    b.anchor = &shared_anchor;
    for (;;) {
        l.turned.wait(lock, mine);
        if (l.failed) break;
        bool ready = std::any_of(b.threads.begin(), b.threads.end(), [](Thread& t) { return t.state == State::ready; });
        l.idle = ready ? 0 : l.idle + 1;
        if (ready && !run(b)) note_deadlock(b);
        if (b.live == 0) b.finished = true;
        bool all_wait = true, all_done = true;
        for (unsigned r = 0; r < l.cluster; ++r) {
            Block& other = l.blocks[r];
            all_done &= other.finished;
            all_wait &= other.finished || other.in_cluster == other.live;
        }
        if (all_wait && !all_done) {
            for (unsigned r = 0; r < l.cluster; ++r) {
                l.blocks[r].in_cluster = 0;
                for (Thread& t : l.blocks[r].threads) if (t.state == State::at_cluster) t.state = State::ready;
            }
        } else if (!all_done && l.idle > 2 * l.cluster) {
            note_deadlock(b);
        }
        do l.turn = (l.turn + 1) % l.cluster; while (!all_done && l.blocks[l.turn].finished);
        l.turned.notify_all();
        if (b.finished || l.failed) break;
    }
    l.turned.notify_all();
}

}  // namespace

Self* self = nullptr;

void fail(const char* format, ...) {
    Thread& t = me();
    Launch& l = *t.home->launch;
    l.failed = true;
    va_list values;
    va_start(values, format);
    std::vsnprintf(l.message, sizeof l.message, format, values);
    va_end(values);
    size_t used = std::strlen(l.message);
    std::snprintf(l.message + used, sizeof l.message - used, " (block %u, %u, %u; thread %d)", t.block.x, t.block.y,
                  t.block.z, t.index);
    leave();
    __builtin_unreachable();
}

void warp_collective(unsigned mask, Combine combine, void* data) {
    Thread& t = me();
    Block& b = *t.home;
    Warp& w = b.warps[t.index / WARP];
    if (!(mask >> t.lane & 1)) fail("lane %d takes part in a warp operation whose mask %08x leaves it out", t.lane, mask);
    int first = t.index - t.lane;
    if (const unsigned gone = mask & ~w.here)
        fail("a warp operation's mask %08x names lane %d, which does not exist or has returned", mask, __builtin_ctz(gone));
    w.arrived |= 1u << t.lane;
    w.data[t.lane] = data;
    w.mask[t.lane] = mask;
    w.combine[t.lane] = combine;
    if ((w.arrived & mask) != mask) {
        t.state = State::at_warp;
        leave();
        return;
    }
    for (int lane = 0; lane < WARP; ++lane) {
        if (!(mask >> lane & 1)) continue;
        if (w.mask[lane] != mask || w.combine[lane] != combine) fail("lanes %d and %d of a warp are at different operations", lane, t.lane);
    }
    combine(w.data.data(), mask);
    w.arrived &= ~mask;
    for (int lane = 0; lane < WARP; ++lane)
        if (mask >> lane & 1) b.threads[first + lane].state = State::ready;
}

Votes block_vote(int predicate) {
    Thread& t = me();
    Block& b = *t.home;
    b.votes.count += predicate;
    b.votes.any |= predicate;
    b.votes.all &= predicate;
    t.state = State::at_block;
    if (++b.waiting == b.live) release_block(b);
    else leave();
    return b.result;
}

void cluster_wait() {
    Thread& t = me();
    if (t.home->launch->cluster == 1) {
        block_vote(0);
        return;
    }
    t.state = State::at_cluster;
    ++t.home->in_cluster;
    leave();
}

void pause() {
    Launch& l = *me().home->launch;
    if (l.cluster > 1) fail("waiting on a barrier in memory is not there for clusters");
    if (++l.pauses > MOST_PAUSES) fail("waits for ever on a barrier in memory");
    leave();
}

void defer(const Deferred& operation) { me().later.push_back(operation); }
void commit_deferred() {
    me().later_groups.push_back(std::move(me().later));
    me().later.clear();
}
void land_deferred(int groups_left) {
    auto& groups = me().later_groups;
    while (static_cast<int>(groups.size()) > groups_left) {
        for (const Deferred& d : groups.front()) d.run(d.to, d.left, d.right);
        groups.erase(groups.begin());
    }
}

void* of_rank(void* own, unsigned rank) {
    Thread& t = me();
    Launch& l = *t.home->launch;
    if (rank >= l.cluster) fail("shared memory of block %u of a cluster of %u", rank, l.cluster);
    Block& other = l.blocks[rank];
    auto* p = static_cast<char*>(own);
    char* dynamic = t.home->dynamic;
    if (dynamic && p >= dynamic && p < dynamic + l.dynamic_bytes) return other.dynamic + (p - dynamic);
    return l.cluster == 1 ? own : other.anchor + (p - t.home->anchor);
}

void copy_later(void* to, const void* from, size_t bytes, size_t filled) { me().open.push_back({to, from, bytes, filled}); }
void commit_copies() {
    me().groups.push_back(std::move(me().open));
    me().open.clear();
}
void land_copies(int groups_left) {
    auto& groups = me().groups;
    while (static_cast<int>(groups.size()) > groups_left) {
        for (const Copy& c : groups.front()) {
            std::memcpy(c.to, c.from, c.filled);
            std::memset(static_cast<char*>(c.to) + c.filled, 0, c.bytes - c.filled);
        }
        groups.erase(groups.begin());
    }
}

}  // namespace simt

// 0 when every thread returned; otherwise simt_error() says why. `order`: 0 ascending threads, 1 descending, else a seed.
extern "C" __attribute__((visibility("default"))) int simt_launch(
    simt::Stub stub, void** args, const unsigned* grid, const unsigned* block, size_t dynamic_bytes, unsigned cluster,
    int order) {
    using namespace simt;
    auto l = std::make_unique<Launch>();
    l->stub = stub;
    l->args = args;
    l->grid = {grid[0], grid[1], grid[2]};
    l->block = {block[0], block[1], block[2]};
    l->dynamic_bytes = dynamic_bytes;
    l->cluster = cluster;
    l->order = order;
    size_t threads = size_t{block[0]} * block[1] * block[2];
    last_error[0] = 0;
    if (threads < 1 || threads > MAX_THREADS || cluster < 1 || cluster > MAX_CLUSTER || grid[0] % cluster || !stack_of(0, 0)) {
        std::snprintf(last_error, sizeof last_error, "a launch of %zu threads a block in clusters of %u cannot be", threads, cluster);
        return 1;
    }
    std::vector<std::unique_ptr<char[]>> memory;
    for (unsigned r = 0; r < cluster; ++r) {
        Block& b = l->blocks[r];
        b.launch = l.get();
        memory.push_back(std::make_unique<char[]>(dynamic_bytes + 1024));
        auto address = (reinterpret_cast<uintptr_t>(memory.back().get()) + 1023) & ~uintptr_t{1023};
        b.dynamic = reinterpret_cast<char*>(address);
    }
    for (unsigned z = 0; z < grid[2] && !l->failed; ++z)
        for (unsigned y = 0; y < grid[1] && !l->failed; ++y)
            for (unsigned x = 0; x < grid[0] && !l->failed; x += cluster) {
                for (unsigned r = 0; r < cluster; ++r) start(l->blocks[r], r, {x + r, y, z});
                if (cluster == 1) {
                    l->blocks[0].anchor = nullptr;
                    if (!run(l->blocks[0])) note_deadlock(l->blocks[0]);
                } else {
                    l->turn = l->idle = 0;
                    // Blocks may meet each other's static shared memory only when all are there.
                    std::vector<std::thread> own;
                    {
                        std::unique_lock hold(l->mutex);
                        l->turn = cluster;
                        for (unsigned r = 0; r < cluster; ++r) own.emplace_back(run_in_cluster, std::ref(*l), r);
                    }
                    for (bool here = false; !here;) {
                        std::unique_lock hold(l->mutex);
                        here = std::all_of(l->blocks.begin(), l->blocks.begin() + cluster, [](Block& b) { return b.anchor; });
                        if (here) l->turn = 0;
                        hold.unlock();
                        here ? l->turned.notify_all() : std::this_thread::yield();
                    }
                    for (auto& t : own) t.join();
                    for (unsigned r = 0; r < cluster; ++r) l->blocks[r].anchor = nullptr;
                }
            }
    self = nullptr;
    if (l->failed) std::snprintf(last_error, sizeof last_error, "%s", l->message);
    return l->failed;
}

extern "C" __attribute__((visibility("default"))) const char* simt_error() { return simt::last_error; }
