#!/bin/sh
# Compiles the program to function.wasm. CC is a compiler for wasm32-wasi with its libc: wasi-sdk's
# clang, Debian's (clang, lld, wasi-libc and libclang-rt-dev-wasm32), or, where nothing is said, the
# zig of `pip install ziglang`.
set -eu
cd "$(dirname "$0")"
: "${CC:=python3 -m ziglang cc}"
$CC --target=wasm32-wasi -O2 -s -Wall -Wextra -o function.wasm file_type.c
