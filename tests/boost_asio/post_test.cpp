// SPDX-License-Identifier: Apache-2.0
#define TASKPOOL_TEST_BOOST_ASIO 1
#include "../asio/post_cells.hpp"
