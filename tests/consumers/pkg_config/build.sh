#!/bin/sh
# Builds and runs the program with nothing but a compiler and pkg-config. PKG_CONFIG_PATH leads to taskpool.pc; $1 is
# the folder to build in. A user's warnings must find nothing in the headers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
# The flags are words for the compiler.
# shellcheck disable=SC2046
"${CXX:-c++}" -std=c++20 -Wall -Wextra -Wshadow -Wconversion -Werror "$here/../main.cpp" -o "$1/consumer" \
  $(pkg-config --cflags --libs taskpool)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir taskpool) "$1/consumer"
