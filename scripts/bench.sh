#!/usr/bin/env bash
# Every figure of docs/performance.md, side by side with the reference tools on this machine; with
# --write the page's tables are rewritten. Arguments are bench.py's.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/fetch-etcd.sh --quiet
export ETCD_DR_ETCD_BINS="${ETCD_DR_ETCD_BINS:-$PWD/.cache/etcd/sid/bin}"
scripts/bench.py "$@"
# Stores away from the node, beside rclone.
scripts/fetch-servers.sh --more
scripts/bench-stores.py
