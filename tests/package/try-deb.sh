#!/usr/bin/env bash
# try-deb.sh [FILE.deb]: installs the package into a clean Debian 12 made by debootstrap, runs the command,
# trains there with two ranks, and builds the program of the user guide. Builds the package when none is named.
# Needs root, debootstrap and a Debian mirror (DEBIAN_MIRROR, default that of deb.debian.org).
set -euo pipefail

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

fail() {
  echo "try-deb: $1" >&2
  exit 1
}

((EUID == 0)) || fail "debootstrap needs root"
command -v debootstrap > /dev/null || fail "install it first: apt-get install debootstrap"
work=$(mktemp -d)
root=$work/root
cleanup() {
  umount "$root/proc" "$root/sys" "$root/dev/shm" 2> /dev/null || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

if (($#)); then
  package=$(realpath "$1")
else
  cmake -S "$source" -B "$work/build" -DSTRATA_TESTS=OFF -DSTRATA_EXAMPLES=OFF > "$work/log"
  cmake --build "$work/build" --target package -j "$(nproc)" > "$work/log" || { tail "$work/log"; fail "no package"; }
  package=$(echo "$work"/build/strata_*.deb)
fi
dpkg-deb --info "$package" | sed -n '/^ Package:/,$p'

debootstrap --variant=minbase bookworm "$root" "$mirror" > "$work/log" || { tail "$work/log"; fail "no clean root"; }
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o size=256m tmpfs "$root/dev/shm"
mkdir "$root/try"
cp "$package" "$root/try/strata.deb"
# The program of the guide: its first block of cmake and its first one of cpp after the heading.
for language in cmake cpp; do
  sed -n '/^## Your own program/,$p' "$source/docs/user-guide.md" |
    sed -n "/^\`\`\`$language\$/,/^\`\`\`\$/{/^\`\`\`/!p;/^\`\`\`\$/q}" > "$work/$language"
done
install -D "$work/cmake" "$root/try/mine/CMakeLists.txt"
install -D "$work/cpp" "$root/try/mine/main.cpp"

cat > "$root/try/inside.sh" << 'END'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
apt_install() {
  apt-get install -y "$@" > apt.log 2>&1 < /dev/null || { tail apt.log; exit 1; }
}
cd /try
apt_install --no-install-recommends ./strata.deb
echo "== alone: $(dpkg-query -W -f '${Installed-Size}' strata) KiB, $(dpkg-query -W -f '${Depends}' strata)"
strata --help > /dev/null
strata plan --preset gpt2-124m --dram 1GiB --swap /try > plan.log
tail -n 2 plan.log
strata init --preset llama-26m --out model --no_progress
strata inspect model > /dev/null
echo "== two ranks, with what is recommended"
apt-get remove -y strata > apt.log 2>&1
apt_install ./strata.deb
cat /usr/share/common-licenses/GPL-3 > text
mpirun -n 2 strata train --model model --data text --out trained --swap /try --dram 300MiB --residency none \
  --per_device_train_batch_size 1 --sequence_length 64 --max_steps 2 --no_progress > train.log ||
  { cat train.log; exit 1; }
tail -n 1 train.log
echo "== a program of one's own"
apt_install cmake g++
cmake -S mine -B mine/build > cmake.log
cmake --build mine/build > cmake.log || { cat cmake.log; exit 1; }
[[ $(mine/build/mine) == *"parameters, ranks: 1" ]]
[[ $(mpirun -n 2 mine/build/mine) == *"parameters, ranks: 2" ]]
[ -x /usr/share/strata/launch/convert-bin.py ]
apt-get remove -y strata > apt.log 2>&1
[ ! -e /usr/bin/strata ] && [ ! -e /usr/include/strata ]
END
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash /try/inside.sh
echo passed
