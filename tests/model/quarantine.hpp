// SPDX-License-Identifier: Apache-2.0
// Memory that an execution gives back is kept until its end, and filled with 0xDD: no address comes again within an
// execution, and who uses memory after its end does not get away with it.
#pragma once

namespace taskpool::model {

/// REQUIRES: no execution runs.
void release_quarantine() noexcept;

} // namespace taskpool::model
