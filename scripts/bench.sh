#!/usr/bin/env bash
# Every figure of docs/performance-tables.md, side by side with the reference tools on this machine; with
# --write the tables of both pages are rewritten. Arguments are bench.py's.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/fetch-etcd.sh --quiet
export ETCD_DR_ETCD_BINS="${ETCD_DR_ETCD_BINS:-$PWD/.cache/etcd/sid/bin}"
scripts/bench.py "$@"
scripts/bench-look.py $(case " $* " in *" --write "*) echo --write ;; esac)
# A bucket, compared with rclone, if scripts/fetch-servers.sh --more has put both into .cache.
cache=${ETCD_DR_CACHE:-.cache}
if [ -x "$cache/rclone/usr/bin/rclone" ] && [ -x "$cache/s3s/bin/s3s-fs" ]; then
    scripts/bench-stores.py --rounds 2
else
    echo "SKIPPED stores: run scripts/fetch-servers.sh --more" >&2
fi
