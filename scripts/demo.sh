#!/usr/bin/env bash
# Shows etcd-dr at work: a real three-member etcd with mutual TLS behind the file
# system of an OpenShift control-plane node, some thousand keys, then a backup,
# its listing and its verification. Leaves nothing behind, however it ends.
#
# usage: demo.sh            (make demo builds what it needs)
#
#   ETCD_DR        the binary              (default target/debug/etcd-dr)
#   DEMO_CLUSTER   the cluster starter     (default beside it: examples/demo_cluster)
#   DEMO_KEYS      how many keys to write  (default 5000)
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
etcd_dr=${ETCD_DR:-target/debug/etcd-dr}
starter=${DEMO_CLUSTER:-target/debug/examples/demo_cluster}

for program in "$etcd_dr" "$starter"; do
    if [ ! -x "$program" ]; then
        echo "demo: $program is not built; run: cargo build --bin etcd-dr --example demo_cluster" >&2
        exit 1
    fi
done
etcd_dr=$(realpath "$etcd_dr")
scripts/fetch-etcd.sh --quiet

work=$(mktemp -d "${TMPDIR:-/tmp}/etcd-dr-demo.XXXXXX")
starter_pid=
cleanup() {
    trap - EXIT INT TERM HUP
    # The starter ends, and its servers with it, when nobody holds its input.
    exec 3>&- 2>/dev/null || true
    if [ -n "$starter_pid" ]; then
        for _ in $(seq 50); do
            kill -0 "$starter_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$starter_pid" 2>/dev/null || true
        wait "$starter_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
# The status a signal is known by, after the clean-up that EXIT does.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# The starter puts its files below the demo's own folder, so that they go with
# it even if the starter is killed.
mkfifo "$work/hold"
TMPDIR=$work "$starter" "${DEMO_KEYS:-5000}" < "$work/hold" > "$work/env" &
starter_pid=$!
exec 3> "$work/hold"

for _ in $(seq 1200); do
    grep -q '^DEMO_READY=' "$work/env" && break
    kill -0 "$starter_pid" 2>/dev/null || { echo "demo: the cluster did not start" >&2; exit 1; }
    sleep 0.1
done
grep -q '^DEMO_READY=' "$work/env" || { echo "demo: the cluster did not start in 2 minutes" >&2; exit 1; }
# shellcheck source=/dev/null
. "$work/env"

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
show() {
    printf '\n%s$ etcd-dr %s%s\n' "$bold" "$*" "$plain"
    "$etcd_dr" "$@"
}
node=(--root "$DEMO_ROOT" --node-name "$DEMO_NODE")

printf '\n%sThe cluster: etcd %s%s\n' "$bold" "$DEMO_ETCD_VERSION" "$plain"
ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$DEMO_ETCDCTL_ENDPOINTS ETCDCTL_CACERT=$DEMO_ETCDCTL_CACERT \
    ETCDCTL_CERT=$DEMO_ETCDCTL_CERT ETCDCTL_KEY=$DEMO_ETCDCTL_KEY \
    "$DEMO_ETCDCTL" endpoint status -w table

show "${node[@]}" backup
show "${node[@]}" list
show "${node[@]}" verify latest
show "${node[@]}" verify latest --live
show "${node[@]}" restore latest --data-dir "$work/drill"
show "${node[@]}" verify --data-dir "$work/drill"

store=$DEMO_ROOT/etc/kubernetes/static-pod-backups
if [ -L "$store" ]; then
    # The node's own absolute links begin at the scratch root.
    target=$(readlink "$store")
    case $target in
        "$DEMO_ROOT"/*) store=$target ;;
        /*) store=$DEMO_ROOT$target ;;
    esac
fi
if [ -n "${DEMO_ETCDUTL:-}" ]; then
    printf '\n%s$ etcdutl snapshot status    (etcd'"'"'s own tool, on the same file)%s\n' "$bold" "$plain"
    "$DEMO_ETCDUTL" snapshot status -w table "$store"/latest-backup/snapshot_*.db
fi

printf '\n%sThe tree of backups: /etc/kubernetes/static-pod-backups%s\n' "$bold" "$plain"
(cd "$store/" && find . -mindepth 1 -printf '%M %9s  %P' \( -type l -printf ' -> %l\n' -o -printf '\n' \) | sort -k3)
