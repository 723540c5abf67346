#!/usr/bin/env bash
# Builds the released binary: optimised, stripped, linked against glibc 2.28 so that it runs on RHEL 8
# and 9 and their CoreOS, and identical to the byte wherever it is built from the same commit.
#
# usage: portable-build.sh [unstripped]      prints the binary's path
#
#   unstripped   the same with symbols, for scripts/sizes.py; it is not released
#
#   ETCD_DR_CACHE   where the linker is kept    (default <project>/.cache)
#   CARGO_TARGET_DIR  where cargo builds        (default <project>/target)
set -euo pipefail

# Everything that decides the bytes, apart from the sources and Cargo.lock. The linker is zig's,
# which knows the symbols of every glibc since 2.17.
readonly GLIBC=2.28 RUST=1.95.0 ZIG=0.17.1 ZIGBUILD=0.24.0
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly project
readonly tools=${ETCD_DR_CACHE:-$project/.cache}/release
readonly target_dir=${CARGO_TARGET_DIR:-$project/target}

say() { printf 'release: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

case $(uname -m) in
    x86_64) target=x86_64-unknown-linux-gnu ;;
    aarch64) target=aarch64-unknown-linux-gnu ;;
    *) die "no portable build for $(uname -m)" ;;
esac

# A folder of Python's own with zig and cargo-zigbuild, both ready to run.
fetch_tools() {
    local venv=$tools/zig-$ZIG-zigbuild-$ZIGBUILD
    if [ ! -e "$venv/whole" ]; then
        say "fetching zig $ZIG and cargo-zigbuild $ZIGBUILD"
        rm -rf "$venv"
        mkdir -p "$tools"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check \
            "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD" >&2
        touch "$venv/whole"
    fi
    PATH=$venv/bin:$PATH
}

found=$(rustc --version | awk '{ print $2 }')
[ "$found" = "$RUST" ] || say "rustc is $found: the bytes will not be those of $RUST"
fetch_tools

# Paths of this machine must not get into the binary. The last match counts, since the target
# directory may be inside the project.
home=${CARGO_HOME:-$HOME/.cargo}
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$project=/etcd-dr"
for pair in "$home=/cargo" "$target_dir=/target"; do
    CARGO_ENCODED_RUSTFLAGS+=$'\x1f'"--remap-path-prefix=$pair"
done
export CFLAGS="-ffile-prefix-map=$target_dir=/target -ffile-prefix-map=$home=/cargo"
export CARGO_ZIGBUILD_CACHE_DIR=$tools/wrappers ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache
export ZIG_LOCAL_CACHE_DIR=$tools/zig-cache CARGO_INCREMENTAL=0
unset RUSTFLAGS
cd "$project"
what=(--release --locked --bin etcd-dr --target "$target.$GLIBC" --target-dir "$target_dir")
if [ "${1:-}" = unstripped ]; then
    # Only the last crate is built otherwise: what it is made of stays.
    cargo-zigbuild rustc "${what[@]}" -- -C strip=none >&2
    mkdir -p "$target_dir/sizes"
    mv "$target_dir/$target/release/etcd-dr" "$target_dir/sizes/etcd-dr"
    printf '%s\n' "$target_dir/sizes/etcd-dr"
    exit
fi
cargo-zigbuild zigbuild "${what[@]}" >&2
printf '%s\n' "$target_dir/$target/release/etcd-dr"
