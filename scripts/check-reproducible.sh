#!/usr/bin/env bash
# Builds the commit again, in another directory and with another target directory, and compares: anybody
# must be able to make the output of release.sh again, to the byte.
#
# usage: check-reproducible.sh DIST     the folder that release.sh filled from this very commit
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dist=$(cd "${1:?usage: check-reproducible.sh DIST}" && pwd)
export ETCD_DR_CACHE=${ETCD_DR_CACHE:-$project/.cache}
# A longer path than the project's, and one with other letters.
work=$(mktemp -d "${TMPDIR:-/tmp}/made.again.somewhere.else.XXXXXX")
trap 'rm -rf "$work"' EXIT

git -C "$project" diff --quiet HEAD || echo "check-reproducible: what is not committed is not compared" >&2
git clone --quiet --local "$project" "$work/the clone"
env -u ETCD_DR CARGO_TARGET_DIR="$work/target" "$work/the clone/scripts/release.sh" "$work/dist" > /dev/null
diff "$dist/SHA256SUMS" "$work/dist/SHA256SUMS" || {
    echo "check-reproducible: the second build differs (< first, > second)" >&2
    exit 1
}
echo "check-reproducible: both builds are the same:"
cat "$dist/SHA256SUMS"
