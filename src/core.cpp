// SPDX-License-Identifier: Apache-2.0
// The compiled functions that the templates call.
#include <taskpool/detail/core.hpp>

#include "pool_core.hpp"

namespace taskpool::detail {

submit_result submit(pool_core& core, const key_view& key, job_source& job, const job_options& how,
                     const patience& wait) {
    return core.submit(key, job, how, wait);
}
submit_result submit(pool_core& core, lane& l, job_source& job, const job_options& how, const patience& wait) {
    return core.submit(l, job, how, wait);
}
submit_result submit(pool_core& core, const key_view& key, std::string_view tag, job_source& job,
                     const job_options& how, const patience& wait) {
    return core.submit(key, tag, job, how, wait);
}
submit_result submit_together(pool_core& core, std::span<const key_view> keys, job_source& job, const job_options& how,
                              const patience& wait) {
    return core.submit_together(keys, job, how, wait);
}
submit_result submit_shared(pool_core& core, const key_view& key, job_source& job, const job_options& how,
                            const patience& wait) {
    return core.submit_shared(key, job, how, wait);
}
submit_result submit_shared(pool_core& core, lane& l, job_source& job, const job_options& how, const patience& wait) {
    return core.submit_shared(l, job, how, wait);
}

submit_result submit_barrier(pool_core& core, job_source& job, const job_options& how, const patience& wait) {
    return core.submit_barrier(job, how, wait);
}

std::uint64_t hash_of(const pool_core& core, const void* key_view) {
    return core.maker.keys.hash_view(core.maker.functions.get(), key_view);
}

lane* acquire_lane(pool_core& core, const key_view& key) { return core.acquire_lane(key); }
void share_lane(pool_core& core, lane& l) noexcept { core.share_lane(l); }
void release_lane(pool_core& core, lane& l) noexcept { core.unpin(l); }
const void* stored_key(const pool_core& core, const lane& l) noexcept { return core.maker.key_of(l); }

void destroy_core(pool_core& core) noexcept { core.destroy(); }
void start(pool_core& core) { core.start(); }
void close(pool_core& core) noexcept { core.close(); }
bool drain(pool_core& core, const patience& wait) { return core.drain(wait); }
bool drain(pool_core& core, const key_view& key, const patience& wait) { return core.drain(key, wait); }
std::size_t cancel(pool_core& core, const key_view& key) { return core.cancel(key); }
stop_report stop(pool_core& core) { return core.stop(); }

void limit(pool_core& core, const key_view& key, const rate& most) { core.limit(key, most); }
bool unlimit(pool_core& core, const key_view& key) { return core.unlimit(key); }
void limit_all(pool_core& core, const std::optional<rate>& most) { core.limit_all(most); }
void limit_by(pool_core& core, rate_function f) { core.limit_by(std::move(f)); }

bool pause(pool_core& core, const key_view& key) { return core.pause(key); }
bool resume(pool_core& core, const key_view& key) { return core.resume(key); }
std::size_t active_keys(const pool_core& core) noexcept { return core.active_keys(); }
void visit_active_keys(pool_core& core, key_visitor visitor) { core.visit_active_keys(visitor); }
void visit_paused_keys(pool_core& core, key_visitor visitor) { core.visit_paused_keys(visitor); }
void visit_hottest_keys(pool_core& core, std::size_t most, key_visitor visitor) {
    if (!core.is_forked())
        core.hottest.visit(most, visitor);
}
void visit_oldest_keys(const pool_core& core, std::size_t most, key_visitor visitor) {
    core.visit_oldest_keys(most, visitor);
}
pool_stats stats(const pool_core& core) { return core.stats(); }

} // namespace taskpool::detail
