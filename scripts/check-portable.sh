#!/usr/bin/env bash
# Checks that a binary is portable: what it needs of glibc, its size, how fast it starts, and that it
# runs with only an old glibc: no shell, no other library, no /proc.
#
# usage: check-portable.sh BINARY [ROOT…]
#
#   ROOT   a folder with a glibc (lib64/ld-linux-x86-64.so.2 and the libraries it finds), to run
#          it in; without one, Debian 11's libc6 (2.31) and this machine's own are taken
#
#   ETCD_DR_CACHE   where Debian's libc is kept    (default <project>/.cache)
set -euo pipefail

readonly GLIBC_MAX=2.28 SIZE_MAX_MIB=25 VERSION_MAX_MS=10 OLD_SUITE=bullseye
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly project
readonly cache=${ETCD_DR_CACHE:-$project/.cache}/release
# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf 'check-portable: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

binary=${1:?usage: check-portable.sh BINARY [ROOT…]}
shift
roots=("$@")
work=$(mktemp -d "${TMPDIR:-/tmp}/etcd-dr-portable.XXXXXX")
trap 'rm -rf "$work"' EXIT

# ---- what it needs -----------------------------------------------------------

symbols() {
    local highest
    highest=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
    [ -n "$highest" ] || die "no versioned symbol: is it a dynamic executable?"
    [ "$(printf '%s\n' "$highest" "$GLIBC_MAX" | sort -V | tail -n 1)" = "$GLIBC_MAX" ] ||
        die "needs glibc $highest, and RHEL 8 has $GLIBC_MAX: $(objdump -T "$binary" | grep -F "GLIBC_$highest")"
    say "highest symbol version: GLIBC_$highest (at most $GLIBC_MAX)"
}

libraries() {
    local needed library
    needed=$(readelf -d "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    for library in $needed; do
        case $library in
            libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libutil.so.1 | ld-linux-*) ;;
            *) die "needs $library, which is not glibc's" ;;
        esac
    done
    say "needs only glibc's own: $(echo $needed)"
}

weight() {
    local bytes=$(stat -c %s "$binary")
    [ "$bytes" -lt $((SIZE_MAX_MIB << 20)) ] || die "weighs $bytes bytes, $SIZE_MAX_MIB MiB are allowed"
    ! readelf -SW "$binary" | grep -q '\.debug_info\|\.symtab' || die "is not stripped"
    readelf -SW "$binary" | grep -q '\.eh_frame ' || die "has no unwind tables"
    say "weighs $(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1048576 }') MiB, stripped, with unwind tables"
}

# The fastest start counts: on a busy machine the others measure other processes.
start_time() {
    local best median
    read -r best median < <(python3 - "$binary" <<'PYTHON'
import statistics, subprocess, sys, time
def start():
    begun = time.perf_counter()
    subprocess.run([sys.argv[1], "--version"], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) * 1000
times = [start() for _ in range(100)]
print(f"{min(times):.1f} {statistics.median(times):.1f}")
PYTHON
    )
    awk -v b="$best" -v m="$VERSION_MAX_MS" 'BEGIN { exit !(b < m) }' ||
        die "--version takes $best ms at best of 100 starts, $VERSION_MAX_MS are allowed"
    say "--version takes $median ms (median of 100 starts), $best at best"
}

paths() {
    local leak
    for leak in "$project" "$HOME/.cargo" "$HOME/.rustup"; do
        [ "$leak" != / ] || continue
        ! grep -aqF "$leak" "$binary" || die "the path $leak of this machine is in it"
    done
}

# ---- where it runs -----------------------------------------------------------

# Makes a root with the loader and the named libraries, and nothing else.
root_of_libc() {
    local from=$1 to=$2 library
    mkdir -p "$to/lib64" "$to/lib/x86_64-linux-gnu" "$to/tmp"
    for library in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libutil.so.1; do
        cp -L "$from/lib/x86_64-linux-gnu/$library" "$to/lib/x86_64-linux-gnu/"
    done
    cp -L "$from/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$to/lib64/"
}

old_debian() {
    local home=$cache/libc-$OLD_SUITE
    if [ ! -e "$home/whole" ]; then
        rm -rf "$home"
        mkdir -p "$home/debs"
        find_mirror || return 1
        private_apt "$OLD_SUITE" "$home" deb
        update_lists "$OLD_SUITE" "$home"
        (cd "$home/debs" && APT_CONFIG="$home/apt.conf" apt-get download -qq libc6) >&2
        dpkg -x "$home"/debs/libc6_*.deb "$home/libc"
        touch "$home/whole"
    fi
    root_of_libc "$home/libc" "$work/$OLD_SUITE"
    roots+=("$work/$OLD_SUITE")
}

version_of_libc() {
    grep -ao 'GNU C Library [^,]*version [0-9.]*[0-9]' "$(find "$1" -name libc.so.6 -o -name 'libc-2.*.so' | head -n 1)" |
        sed 's/.*version //'
}

enter() {
    local root=$1
    shift
    if [ "$(id -u)" = 0 ]; then chroot "$root" "$@"; else unshare -r chroot "$root" "$@"; fi
}

runs() {
    local root=$1 inside=$work/inside said status=0
    rm -rf "$inside"
    cp -a "$root" "$inside"
    mkdir -p "$inside/tmp"
    cp "$binary" "$inside/etcd-dr"
    cp -a "$project/fixtures/store" "$inside/store"
    enter "$inside" /etcd-dr --version >&2
    said=$(enter "$inside" /etcd-dr list /store -o json)
    grep -q '"schemaVersion"' <<< "$said" || die "list said: $said"
    # Threads, TLS and name resolution: nothing listens there, which is exit 4.
    said=$(enter "$inside" /etcd-dr --profile bare --endpoints http://127.0.0.1:1 backup /tmp/s 2>&1) || status=$?
    [ "$status" = 4 ] || die "backup from nowhere: exit $status: $said"
    say "runs with nothing but glibc $(version_of_libc "$inside")"
}

symbols
libraries
weight
start_time
paths
if [ ${#roots[@]} -eq 0 ] && [ "$(uname -m)" = x86_64 ]; then
    (set -e; old_debian) || die "Debian's $OLD_SUITE libc6 cannot be had"
    old_debian
    root_of_libc / "$work/here"
    roots+=("$work/here")
    # A glibc 2.28 itself, if one was built there.
    if [ -d "$cache/root-glibc-2.28" ]; then roots+=("$cache/root-glibc-2.28"); fi
fi
for root in "${roots[@]}"; do runs "$root"; done
