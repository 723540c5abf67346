#!/usr/bin/env bash
# Every figure of docs/performance.md, side by side with the reference tools on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/fetch-etcd.sh --quiet
export ETCD_DR_ETCD_BINS="${ETCD_DR_ETCD_BINS:-$PWD/.cache/etcd/sid/bin}"
scripts/fetch-servers.sh --more
for script in scripts/bench-backup.py scripts/bench-verify.* scripts/bench-restore.* scripts/bench-stores.*; do
    [ -x "$script" ] || continue
    echo "== $script"
    "$script" "$@"
done
