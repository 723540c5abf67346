#!/usr/bin/env bash
# Every figure of docs/performance-tables.md, side by side with the reference tools on this machine; with
# --write the tables of both pages are rewritten. Arguments are bench.py's: --parts and --sizes say what is
# measured, --estimate how long that takes.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/fetch-etcd.sh --quiet
export ETCD_DR_ETCD_BINS="${ETCD_DR_ETCD_BINS:-$PWD/.cache/etcd/sid/bin}"
exec scripts/bench.py "$@"
