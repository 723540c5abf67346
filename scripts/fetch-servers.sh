#!/usr/bin/env bash
# Lays the servers that the suite "store" speaks to into a private, cached folder:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/s3s/bin/s3s-fs                a real S3 server
#   ${ETCD_DR_CACHE:-<project>/.cache}/sshd/usr/sbin/sshd            a real sshd
#
# Nothing is installed into the system. What is there already is left alone. A
# part that cannot be had is named, and its tests say that they are skipped.
set -euo pipefail

readonly S3S_VERSION=0.14.1
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ETCD_DR_CACHE:-$project/.cache}
failed=0

say() { printf 'fetch-servers: %s\n' "$*" >&2; }

# About two minutes on two cores, once.
fetch_s3s() {
    [ -x "$cache/s3s/bin/s3s-fs" ] && return
    say "building s3s-fs $S3S_VERSION"
    local build
    build=$(mktemp -d)
    CARGO_TARGET_DIR=$build cargo install --quiet --locked --root "$cache/s3s" \
        --version "=$S3S_VERSION" --features binary s3s-fs || { rm -rf "$build"; return 1; }
    rm -rf "$build"
}

# Unpacked only: the package's scripts would make a user and start a daemon.
# Of its libraries those come along that this machine lacks.
fetch_sshd() {
    [ -x "$cache/sshd/usr/sbin/sshd" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking Debian's openssh-server"
    local debs fresh=$cache/sshd.new libraries
    debs=$(mktemp -d)
    rm -rf "$fresh"
    mkdir -p "$fresh"
    download "$debs" openssh-server || { rm -rf "$debs"; return 1; }
    dpkg -x "$debs"/openssh-server_*.deb "$fresh"
    if ldd "$fresh/usr/sbin/sshd" | grep -q 'not found'; then
        libraries=$(apt-cache depends openssh-server | awk '$1 == "Depends:" && $2 ~ /^lib/ && $2 != "libc6" { print $2 }')
        # shellcheck disable=SC2086  # one word a package
        download "$debs" $libraries || { rm -rf "$debs"; return 1; }
        for deb in "$debs"/lib*.deb; do dpkg -x "$deb" "$fresh/extra"; done
        mkdir -p "$fresh/lib"
        find "$fresh/extra" -name "*.so.*" ! -type d -exec cp -L {} "$fresh/lib/" \;
        rm -rf "$fresh/extra"
    fi
    rm -rf "$debs" "$cache/sshd"
    mv "$fresh" "$cache/sshd"
    local said
    said=$(LD_LIBRARY_PATH=$cache/sshd/lib "$cache/sshd/usr/sbin/sshd" -V 2>&1 | head -n 2 || true)
    case $said in
        *OpenSSH*) ;;
        *) say "this sshd does not run here: $said"; rm -rf "$cache/sshd"; return 1 ;;
    esac
}

# The lists are refreshed only when the first try fails.
download() {
    local into=$1
    shift
    (cd "$into" && apt-get download -qq "$@" >/dev/null 2>&1) ||
        { apt-get update -qq >&2 && (cd "$into" && apt-get download -qq "$@" >&2); }
}

mkdir -p "$cache"
fetch_s3s || { say "no s3s-fs: the S3 tests are skipped"; failed=1; }
fetch_sshd || { say "no sshd: the SFTP tests are skipped"; failed=1; }
[ -z "${ETCD_DR_REQUIRE:-}" ] || exit "$failed"
