#!/usr/bin/env bash
# cargo-deny over deny.toml: licences, bans, sources. Built once into .cache, which takes minutes:
# that is why `make test` has a suite of its own for licences and sources (tests/supply).
#
# usage: deny.sh [CHECK…]      default: licenses bans sources; advisories need their database
#
#   ETCD_DR_CACHE   where cargo-deny is kept    (default <project>/.cache)
set -euo pipefail

readonly DENY=0.20.2
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${ETCD_DR_CACHE:-$project/.cache}/release/cargo-deny-$DENY
if [ ! -x "$tools/bin/cargo-deny" ]; then
    cargo install --locked --quiet --root "$tools" "cargo-deny@$DENY" --no-default-features \
        --target-dir "$tools/build"
    rm -rf "$tools/build"
fi
[ $# -gt 0 ] || set -- licenses bans sources
cd "$project"
exec "$tools/bin/cargo-deny" --locked check --hide-inclusion-graph "$@"
