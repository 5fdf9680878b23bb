// SPDX-License-Identifier: Apache-2.0
// What a random test does, one operation after the other: four small numbers each, which whoever applies them reads as
// it likes. So any bytes are a sequence of operations, any part of a sequence is one, and a smaller number is a simpler
// operation: that is all that shrinking needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <vector>

namespace taskpool::random {

struct operation {
    std::uint8_t what = 0; ///< the call
    std::uint8_t key = 0;
    std::uint8_t how = 0;  ///< which of its forms
    std::uint8_t with = 0; ///< what the job is like

    friend bool operator==(const operation&, const operation&) = default;
};

using operations = std::vector<operation>;

/// Prints one as it would be written in a test.
inline std::ostream& operator<<(std::ostream& out, const operation& o) {
    return out << '{' << int{o.what} << ", " << int{o.key} << ", " << int{o.how} << ", " << int{o.with} << '}';
}

/// Four bytes each; what is left over at the end is dropped.
inline operations from_bytes(std::span<const std::uint8_t> bytes) {
    operations all;
    for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4)
        all.push_back({bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]});
    return all;
}

} // namespace taskpool::random
