#!/usr/bin/env bash
# Installs the Debian packages that building and testing Strata needs, those that are missing only.
# Asks nothing. Works as root and through sudo. Ends with one line when something cannot be had.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config
  libopenmpi-dev openmpi-bin
  libdnnl-dev ocl-icd-opencl-dev  # the second is what the first asks CMake for
  liburing-dev libpcre2-dev libutf8proc-dev libxxhash-dev
  nlohmann-json3-dev libcli11-dev libfmt-dev
  libgtest-dev
)

fail() {
  echo "install-packages: $1" >&2
  exit 1
}

if ! command -v dpkg-query > /dev/null; then
  echo "install-packages: this is not a Debian system; it needs what Debian calls ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  command -v sudo > /dev/null || fail "as root, run: apt-get install ${missing[*]}"
  sudo -n true 2> /dev/null || fail "sudo asks for a password here; run: sudo apt-get install ${missing[*]}"
  as_root=(sudo -n)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get install -y --no-install-recommends "${missing[@]}" > "$log" 2>&1 < /dev/null
}

echo "Installing ${missing[*]}"
# The list of packages may be absent or old: fetch it when the first attempt fails.
if ! install; then
  "${as_root[@]}" apt-get update > "$log" 2>&1 < /dev/null ||
    fail "apt-get update failed: $(grep -m1 '^[EW]:' "$log" || tail -n1 "$log")"
  install || fail "cannot install ${missing[*]}: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
fi
