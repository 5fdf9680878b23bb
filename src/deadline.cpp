// SPDX-License-Identifier: Apache-2.0
// Jobs that come to their turn after their deadline. Such a job ends by an exception, which tells its future, and the
// worker counts it as discarded (worker::settle).
#include <taskpool/deadline.hpp>

#include <mutex>
#include <utility>

#include "pool_core.hpp"

namespace taskpool::detail {

namespace {

/// Whether the job has done anything that others may know of: then it has begun.
bool has_begun(const running_job& job) noexcept {
    const std::lock_guard lock(job.in.head_lock);
    const job_extras* const e = job.in.current_extras_locked();
    return job.earlier_attempts > 0 || (e != nullptr && (e->joint == nullptr || e->holds > 0));
}

} // namespace

bool expire_if_late(const running_job& job, clock::time_point deadline) noexcept {
    if (job.core.time.now() <= deadline || job.after != verdict::none || has_begun(job))
        return false;
    job.after = verdict::late;
    job.to_be_settled = true;
    job.core.report_discard(job.core.maker.key_of(job.in), discard_reason::expired);
    return true;
}

/// Counts a job that has failed, or came too late: then it ends here. Whether it did.
bool worker::settle(running_job& self) noexcept {
    exchange_current_job(&self); // what the policy owns ends as a part of the job
    delete std::exchange(self.policy, nullptr);
    exchange_current_job(nullptr);
    if (self.after == verdict::late && self.joint != nullptr) {
        expired.add();
        core.expire_joint(*self.joint);
        return false;
    }
    if (self.after == verdict::late) {
        bool ends = false;
        {
            const std::lock_guard lock(self.in.head_lock);
            ends = self.in.current_extras_locked() == nullptr; // else it went on all the same
            if (ends)
                self.in.end_job_locked();
        }
        if (ends) {
            expired.add();
            core.give_token_back(self.in);
            return true;
        }
    }
    if (self.failed)
        failed.add();
    return false;
}

} // namespace taskpool::detail
