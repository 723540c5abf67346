#!/usr/bin/env bash
# Runs cargo-deny over deny.toml: licences, bans, sources. cargo-deny is built once into .cache, unoptimised:
# the check takes a second either way, the build half as long. If it is missing and cannot be built, the
# script prints SKIPPED, or fails with ETCD_DR_REQUIRE=1. tests/supply checks licences, bans and sources
# offline in any case.
#
# usage: deny.sh [CHECK…]      default: licenses bans sources; advisories need their database
#
#   ETCD_DR_CACHE   where cargo-deny is kept    (default <project>/.cache)
set -euo pipefail

readonly DENY=0.20.2
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${ETCD_DR_CACHE:-$project/.cache}/release/cargo-deny-$DENY
if [ ! -x "$tools/bin/cargo-deny" ]; then
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --quiet --root "$tools" \
        --target-dir "$tools/build" --no-default-features "cargo-deny@$DENY" || {
        echo "SKIPPED deny: cargo-deny $DENY cannot be built here" >&2
        [ "${ETCD_DR_REQUIRE:-0}" != 1 ]
        exit
    }
    rm -rf "$tools/build"
fi
[ $# -gt 0 ] || set -- licenses bans sources
cd "$project"
# Second versions of a crate are the choice of those who use it: cargo tree --duplicates shows them.
exec "$tools/bin/cargo-deny" --locked check --hide-inclusion-graph --allow duplicate "$@"
