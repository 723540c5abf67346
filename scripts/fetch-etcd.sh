#!/usr/bin/env bash
# Puts real etcd binaries into a private, cached folder, for tests and the demo:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/etcd/<suite>/bin/{etcd,etcdctl[,etcdutl]}
#   ${ETCD_DR_CACHE:-<project>/.cache}/etcd/<suite>/VERSION
#
# usage: fetch-etcd.sh [--refresh] [--quiet] [SUITE…]     (bookworm trixie sid)
#
# It downloads Debian's packages with an apt configuration of its own: nothing is
# installed. If a suite is already there, it does nothing and needs no network;
# --refresh checks for a newer version.
#
#   ETCD_DR_ETCD_BINS   colon-separated folders, each with etcd and etcdctl:
#                       use these, download nothing
#   ETCD_DR_APT_MIRROR  the Debian archive to use if the machine's own apt
#                       sources name none
set -euo pipefail

readonly DEFAULT_SUITES=(bookworm trixie sid)
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly project
readonly cache="${ETCD_DR_CACHE:-$project/.cache}/etcd"
# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf 'fetch-etcd: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

version_of() { "$1/etcd" --version | sed -n 's/^etcd Version: //p'; }

usable() { [ -x "$1/etcd" ] && [ -x "$1/etcdctl" ] && [ -n "$(version_of "$1" 2>/dev/null)" ]; }

row() { [ -n "$quiet" ] || printf '%-10s %-9s %s\n' "$@"; }

# ---- where nothing is fetched ------------------------------------------------

report_given() {
    local dir found=0
    row SUITE VERSION PATH
    local IFS=:
    for dir in $ETCD_DR_ETCD_BINS; do
        [ -n "$dir" ] || continue
        usable "$dir" || die "ETCD_DR_ETCD_BINS names $dir, which has no working etcd and etcdctl"
        row given "$(version_of "$dir")" "$dir"
        found=1
    done
    [ "$found" = 1 ] || die "ETCD_DR_ETCD_BINS names no folder"
}

report_path() {
    local dir
    dir=$(dirname "$(command -v etcd || echo /nowhere/etcd)")
    usable "$dir" || return 1
    row SUITE VERSION PATH
    row PATH "$(version_of "$dir")" "$dir"
}

# ---- one suite ---------------------------------------------------------------

# Debian links etcd dynamically; a newer release's may want a newer libc than
# this machine has. Its own loader and libc then come along.
bring_libc() {
    local home=$1 fresh=$2
    say "  this machine's libc does not run it: taking the suite's own"
    (cd "$home/debs" && APT_CONFIG="$home/apt.conf" apt-get download -qq libc6) >&2
    dpkg -x "$home"/debs/libc6_*.deb "$home/libc"
    mkdir -p "$fresh/lib" "$fresh/libexec"
    find "$home/libc" \( -name '*.so' -o -name '*.so.*' \) ! -type d -path '*-linux-*' \
        ! -path '*/gconv/*' -exec cp -L {} "$fresh/lib/" \;
    local loader tool
    loader=$(cd "$fresh/lib" && ls ld-linux*.so.* | head -n 1)
    for tool in "$fresh"/bin/*; do
        mv "$tool" "$fresh/libexec/"
        cat > "$tool" <<WRAP
#!/bin/sh
here=\$(cd "\$(dirname "\$0")/.." && pwd)
exec "\$here/lib/$loader" --library-path "\$here/lib" "\$here/libexec/$(basename "$tool")" "\$@"
WRAP
        chmod 0755 "$tool"
    done
}

fetch_suite() {
    local suite=$1 target=$cache/$1 home fresh version
    home=$(mktemp -d "$cache/.fetch-$suite.XXXXXX")
    # Only a complete folder ever gets the suite's name.
    # shellcheck disable=SC2064  # the folder of now is meant
    trap "rm -rf '$home'" EXIT
    fresh=$home/fresh
    private_apt "$suite" "$home" deb
    say "asking the Debian archive what $suite has"
    update_lists "$suite" "$home"
    mkdir -p "$home/debs" "$fresh/bin"
    (cd "$home/debs" && APT_CONFIG="$home/apt.conf" apt-get download -qq etcd-server etcd-client) >&2
    local deb tool
    for deb in "$home"/debs/*.deb; do
        dpkg -x "$deb" "$home/unpacked"
    done
    for tool in etcd etcdctl etcdutl; do
        if [ -e "$home/unpacked/usr/bin/$tool" ]; then
            cp -L "$home/unpacked/usr/bin/$tool" "$fresh/bin/$tool"
        fi
    done
    usable "$fresh/bin" || bring_libc "$home" "$fresh"
    usable "$fresh/bin" || die "the etcd of $suite does not run on this machine"
    version=$(version_of "$fresh/bin")
    printf '%s\n' "$version" > "$fresh/VERSION"
    say "$suite has etcd $version"
    if [ -e "$target" ]; then
        mv "$target" "$home/old"
    fi
    mv "$fresh" "$target"
    rm -rf "$home"
    trap - EXIT
}

# ---- all of them -------------------------------------------------------------

refresh='' quiet='' suites=()
while [ $# -gt 0 ]; do
    case $1 in
        --refresh) refresh=1 ;;
        --quiet) quiet=1 ;;
        -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) die "unknown option $1" ;;
        *) suites+=("$1") ;;
    esac
    shift
done
[ ${#suites[@]} -gt 0 ] || suites=("${DEFAULT_SUITES[@]}")

if [ -n "${ETCD_DR_ETCD_BINS:-}" ]; then
    report_given
    exit 0
fi

have() { [ -s "$cache/$1/VERSION" ] && [ -x "$cache/$1/bin/etcd" ] && [ -x "$cache/$1/bin/etcdctl" ]; }

failed=()
mkdir -p "$cache"
# The lock is held by a file descriptor, so that it ends with this process
# however that ends; what an earlier, killed run left is then known to be dead.
exec 9> "$cache/.lock"
flock 9
rm -rf "$cache"/.fetch-*
for suite in "${suites[@]}"; do
    case $suite in *[!a-z]* | '') die "not the name of a Debian suite: $suite" ;; esac
    if [ -z "$refresh" ] && have "$suite"; then continue; fi
    if [ -z "${mirror:-}" ]; then
        if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg >/dev/null 2>&1 || ! find_mirror; then
            say "no apt, or no Debian archive among its sources (ETCD_DR_APT_MIRROR can name one)"
            report_path || die "no etcd and etcdctl in PATH either; set ETCD_DR_ETCD_BINS"
            exit 0
        fi
    fi
    # A subshell each: one suite's failure must not cost the others. Not as the
    # condition of an if, inside of which bash would ignore errexit.
    set +e
    (set -e; fetch_suite "$suite")
    status=$?
    set -e
    [ "$status" = 0 ] || failed+=("$suite")
done

row SUITE VERSION PATH
for suite in "${suites[@]}"; do
    if have "$suite"; then
        row "$suite" "$(cat "$cache/$suite/VERSION")" "$cache/$suite/bin"
    fi
done
[ ${#failed[@]} -eq 0 ] || die "could not fetch: ${failed[*]}"
