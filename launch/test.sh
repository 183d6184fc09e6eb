#!/usr/bin/env bash
# Sets up a bare Debian 12 machine and runs every test of the cpu preset. Idempotent.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/build.sh cpu
exec ctest --preset cpu -j "$(nproc)"
