#!/usr/bin/env bash
# build.sh PRESET [TARGET...]: installs what is missing, configures and builds a CMake preset. Building
# again builds what changed. ccache is used when it is installed.
set -euo pipefail

preset=${1:?usage: build.sh PRESET [TARGET...]}
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/install-packages.sh

options=()
if command -v ccache > /dev/null; then
  options=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1  # so that other checkouts hit, too
fi
cmake --preset "$preset" "${options[@]}"
cmake --build --preset "$preset" -j "$(nproc)" ${1:+--target "$@"}
