#!/usr/bin/env bash
# Puts the servers and validators that the suites use into a private, cached folder:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/s3s/bin/s3s-fs                a real S3 server
#   ${ETCD_DR_CACHE:-<project>/.cache}/azurite                       Microsoft's emulator of Azure Blob (npm)
#   ${ETCD_DR_CACHE:-<project>/.cache}/sshd/usr/sbin/sshd            a real sshd
#   ${ETCD_DR_CACHE:-<project>/.cache}/xfs/sbin/mkfs.xfs             makes a file system that shares blocks
#   ${ETCD_DR_CACHE:-<project>/.cache}/exfat                         makes and mounts one that keeps no modes
#   ${ETCD_DR_CACHE:-<project>/.cache}/prometheus/promtool           checks metrics and alerts
#   ${ETCD_DR_CACHE:-<project>/.cache}/qemu/usr/bin/qemu-x86_64      with lib/libfaketime.so.1: a wrong clock
#
# and, with --more, what `make test-stores` and scripts/bench-stores.py need:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/rgw                           a root with Ceph's gateway, of Debian sid
#   ${ETCD_DR_CACHE:-<project>/.cache}/rclone/usr/bin/rclone         etcd-dr is compared with it
#
# Nothing is installed into the system. What is already there is not fetched again. If a part is
# not available, the script says so, and the tests that need it print SKIPPED.
set -euo pipefail

readonly S3S_VERSION=0.14.1
readonly AZURITE_VERSION=3.37.0
# The packages of radosgw, a monitor and an OSD, a shell's tools, and a curl that signs.
readonly CEPH=(radosgw ceph-mon ceph-osd ceph-common curl libc6 dash coreutils)
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ETCD_DR_CACHE:-$project/.cache}
failed=0

# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf 'fetch-servers: %s\n' "$*" >&2; }

# Once. The tests need no fast server: half of the compiler's optimisation is left out.
fetch_s3s() {
    [ -x "$cache/s3s/bin/s3s-fs" ] && return
    say "building s3s-fs $S3S_VERSION"
    local build
    build=$(mktemp -d)
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=$build cargo install --quiet --locked --root "$cache/s3s" \
        --version "=$S3S_VERSION" --features binary s3s-fs || { rm -rf "$build"; return 1; }
    rm -rf "$build"
}

# An emulator that needs the machine's own node. None of its packages' scripts are run.
fetch_azurite() {
    local fresh=$cache/azurite.new
    [ -e "$cache/azurite/node_modules/azurite/dist/src/blob/main.js" ] && return
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    say "installing Azurite $AZURITE_VERSION"
    rm -rf "$fresh"
    npm install --prefix "$fresh" --ignore-scripts --no-audit --no-fund --loglevel error \
        "azurite@$AZURITE_VERSION" >&2 || { rm -rf "$fresh"; return 1; }
    rm -rf "${cache:?}/azurite"
    mv "$fresh" "$cache/azurite"
}

# Ceph of Debian sid with everything it needs except a kernel, unpacked into a root of its own, with
# the project's own apt configuration: 600 MB.
fetch_rgw() {
    [ -x "$cache/rgw/usr/bin/radosgw" ] && [ -x "$cache/rgw/usr/bin/curl" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null && find_mirror || return 1
    say "unpacking Ceph of Debian sid"
    local home fresh=$cache/rgw.new name
    home=$(mktemp -d "$cache/.fetch-rgw.XXXXXX")
    rm -rf "$fresh"
    mkdir -p "$home/debs" "$fresh"/{dev,mnt,proc,run,tmp} "$fresh"/usr/{bin,sbin,lib,lib64}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$fresh/$name"; done
    private_apt sid "$home" deb
    update_lists sid "$home" &&
        APT_CONFIG="$home/apt.conf" apt-get install -s --no-install-recommends "${CEPH[@]}" |
        awk '$1 == "Inst" { print $2 }' > "$home/names" &&
        (cd "$home/debs" && xargs env APT_CONFIG="$home/apt.conf" apt-get download -qq < "$home/names") >&2 ||
        { rm -rf "$home" "$fresh"; return 1; }
    for name in "$home"/debs/*.deb; do dpkg -x "$name" "$fresh"; done
    rm -rf "$home" "${cache:?}/rgw"
    mv "$fresh" "$cache/rgw"
}

fetch_rclone() {
    local debs
    [ -x "$cache/rclone/usr/bin/rclone" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking Debian's rclone"
    debs=$(mktemp -d)
    download "$debs" rclone && dpkg -x "$debs"/rclone_*.deb "$cache/rclone" || { rm -rf "$debs"; return 1; }
    rm -rf "$debs"
    "$cache/rclone/usr/bin/rclone" version >&2
}

# A Debian package with the libraries it needs and this machine lacks, unpacked
# only: the packages' scripts would make users and start daemons.
#   unpack NAME PACKAGE PROGRAM [FLAG THAT ASKS FOR THE VERSION]
unpack() {
    local fresh=$cache/$1.new package=$2 program=$3 ask=${4:--V} debs libraries said
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking Debian's $package"
    debs=$(mktemp -d)
    rm -rf "$fresh"
    mkdir -p "$fresh/lib"
    download "$debs" "$package" || { rm -rf "$debs"; return 1; }
    dpkg -x "$debs/${package}"_*.deb "$fresh"
    # Not by a pipe: it would break once grep has seen enough.
    if [[ $(ldd "$fresh/$program") == *'not found'* ]]; then
        libraries=$(apt-cache depends "$package" |
            awk '$1 == "Depends:" && $2 ~ /^lib/ && $2 != "libc6" { print $2 }')
        # shellcheck disable=SC2086  # one word a package
        download "$debs" $libraries || { rm -rf "$debs"; return 1; }
        for deb in "$debs"/lib*.deb; do dpkg -x "$deb" "$fresh/extra"; done
        find "$fresh/extra" -name '*.so.*' ! -type d -exec cp -L {} "$fresh/lib/" \;
        rm -rf "$fresh/extra"
    fi
    rm -rf "$debs" "${cache:?}/$1"
    mv "$fresh" "$cache/$1"
    # What it prints is its version; what it cannot load it names.
    said=$(LD_LIBRARY_PATH=$cache/$1/lib "$cache/$1/$program" "$ask" 2>&1 || true)
    if [[ $said != *OpenSSH* && $said != *version* ]]; then
        say "$package does not run here"
        rm -rf "${cache:?}/$1"
        return 1
    fi
}

fetch_sshd() { [ -x "$cache/sshd/usr/sbin/sshd" ] || unpack sshd openssh-server usr/sbin/sshd; }

fetch_xfs() { [ -x "$cache/xfs/sbin/mkfs.xfs" ] || unpack xfs xfsprogs sbin/mkfs.xfs; }

# Few kernels have FAT built in: an exFAT that FUSE mounts.
fetch_exfat() {
    local debs fresh=$cache/exfat.new name
    [ -x "$cache/exfat/usr/sbin/mkfs.exfat" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking exFAT for FUSE"
    debs=$(mktemp -d)
    rm -rf "$fresh"
    download "$debs" exfat-fuse exfatprogs libfuse2 || { rm -rf "$debs"; return 1; }
    for name in "$debs"/*.deb; do dpkg -x "$name" "$fresh"; done
    mkdir -p "$fresh/lib"
    find "$fresh" -name 'libfuse.so.2' -exec cp -L {} "$fresh/lib/" \;
    rm -rf "$debs" "${cache:?}/exfat"
    mv "$fresh" "$cache/exfat"
}

# A user-mode emulator that takes the time from the C library, and a library that changes it.
fetch_qemu() {
    local debs
    [ -f "$cache/qemu/lib/libfaketime.so.1" ] && return
    [ "$(uname -m)" = x86_64 ] || return 1
    unpack qemu qemu-user usr/bin/qemu-x86_64 -version || return 1
    debs=$(mktemp -d)
    download "$debs" libfaketime && dpkg -x "$debs"/libfaketime_*.deb "$debs/x" &&
        cp "$debs"/x/usr/lib/*/faketime/libfaketime.so.1 "$cache/qemu/lib/" || { rm -rf "$debs"; return 1; }
    rm -rf "$debs"
}

# One program of Debian's Prometheus.
fetch_promtool() {
    local debs
    [ -x "$cache/prometheus/promtool" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking promtool"
    debs=$(mktemp -d)
    download "$debs" prometheus && dpkg -x "$debs"/prometheus_*.deb "$debs/x" &&
        mkdir -p "$cache/prometheus" &&
        install -m 0755 "$debs/x/usr/bin/promtool" "$cache/prometheus/promtool" || { rm -rf "$debs"; return 1; }
    rm -rf "$debs"
}

mkdir -p "$cache"
fetch_s3s || { say "no s3s-fs: the S3 tests are skipped"; failed=1; }
fetch_azurite || { say "no Azurite: az:// is not tested"; failed=1; }
fetch_sshd || { say "no sshd: the SFTP tests are skipped"; failed=1; }
fetch_xfs || { say "no mkfs.xfs: sharing blocks is not tried"; failed=1; }
fetch_exfat || { say "no exFAT: a file system that keeps no modes is not tried"; failed=1; }
fetch_promtool || { say "no promtool: metrics and alerts are not judged by it"; failed=1; }
fetch_qemu || { say "no qemu-user with libfaketime: no member's clock is made wrong"; failed=1; }
if [ "${1:-}" = --more ]; then
    fetch_rgw || { say "no Ceph: its gateway is not tested"; failed=1; }
    fetch_rclone || { say "no rclone: nothing is measured beside it"; failed=1; }
fi
[ -z "${ETCD_DR_REQUIRE:-}" ] || exit "$failed"
