#!/usr/bin/env bash
# Shows etcd-dr at work: a real three-member etcd with mutual TLS behind the file
# system of an OpenShift control-plane node, some thousand keys, a backup, its
# listing and its verification; then the disaster, the restore and the rollback.
# The node's kubelet and container runtime are stand-ins, its etcd is real.
# Leaves nothing behind, however it ends.
#
# usage: demo.sh            (make demo builds what it needs)
#
#   ETCD_DR        the binary              (default target/debug/etcd-dr)
#   DEMO_CLUSTER   the cluster starter     (default next to it: examples/demo_cluster)
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
    # The starter ends, and its servers with it, when no process holds its input.
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
# Exits with the signal's status, after the clean-up of EXIT.
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

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
etcdctl() {
    ETCDCTL_API=3 ETCDCTL_ENDPOINTS=${endpoints:-${DEMO_ETCDCTL_ENDPOINTS%%,*}} \
        ETCDCTL_CACERT=$DEMO_ETCDCTL_CACERT ETCDCTL_CERT=$DEMO_ETCDCTL_CERT \
        ETCDCTL_KEY=$DEMO_ETCDCTL_KEY "$DEMO_ETCDCTL" "$@"
}
# The node's etcd, once it serves.
serves() {
    for _ in $(seq 300); do
        etcdctl endpoint health > /dev/null 2>&1 && return
        sleep 0.2
    done
    echo "demo: the node's etcd did not come back in a minute" >&2
    exit 1
}
# All keys with their values, as one sum.
state() { etcdctl get "" --prefix | sha256sum | cut -c1-16; }
# A newer revision of a component, as a rollout leaves it.
roll_out() {
    local revisions=$DEMO_ROOT/etc/kubernetes/static-pod-resources
    local live=$DEMO_ROOT/etc/kubernetes/manifests/$1-pod.yaml
    cp -a "$revisions/$1-pod-$2" "$revisions/$1-pod-$3"
    sed "s/$1-pod-$2/$1-pod-$3/g; s/\"revision\":\"$2\"/\"revision\":\"$3\"/g" \
        "$live" > "$revisions/$1-pod-$3/$1-pod.yaml"
    rm "$live"
    sleep 1
    cp "$revisions/$1-pod-$3/$1-pod.yaml" "$revisions/.new"
    mv "$revisions/.new" "$live"
}
revisions() { (cd "$DEMO_ROOT/etc/kubernetes/static-pod-resources" && echo [ek]*-pod-[0-9]*); }

say "The cluster: etcd $DEMO_ETCD_VERSION"
endpoints=$DEMO_ETCDCTL_ENDPOINTS etcdctl endpoint status -w table

show "${node[@]}" backup
then=$(state)
show "${node[@]}" list
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
say "The tree of backups: /etc/kubernetes/static-pod-backups"
(cd "$store/" && find . -mindepth 1 -printf '%M %9s  %P' \( -type l -printf ' -> %l\n' -o -printf '\n' \) | sort -k3)

say "Time passes: a key that the backup lacks, newer revisions of etcd and the scheduler"
etcdctl put written-later 1
roll_out etcd 7 9
roll_out kube-scheduler 6 8
serves
echo "revisions: $(revisions)"

say "The disaster: two members and their disks are gone, and the data of this one"
echo lose >&3
for _ in $(seq 300); do
    grep -q '^DEMO_LOST=' "$work/env" && break
    sleep 0.1
done
ls -A "$DEMO_ROOT/var/lib/etcd"
etcdctl --command-timeout=2s endpoint health 2>&1 | tail -1 || true

show "${node[@]}" restore latest --dry-run
show "${node[@]}" --progress never restore latest --yes --detach never
serves
endpoints='' etcdctl endpoint status -w table
now=$(state)
say "All keys and values"
echo "when the backup was taken: $then"
echo "restored:                  $now"
echo "revisions: $(revisions)"
if [ "$then" != "$now" ]; then
    echo "demo: the restored state is not the backup's" >&2
    exit 1
fi
show "${node[@]}" restore --commit --yes

say "Once more, and back: what was written since comes back too"
etcdctl put written-later 2
"$etcd_dr" "${node[@]}" --progress never restore latest --yes --detach never > /dev/null 2>&1
serves
echo "restored:    written-later is '$(etcdctl get written-later --print-value-only)'"
show "${node[@]}" --progress never restore --rollback --yes
serves
later=$(etcdctl get written-later --print-value-only)
echo "rolled back: written-later is '$later'"
if [ "$later" != 2 ]; then
    echo "demo: the way back lost a key" >&2
    exit 1
fi
show "${node[@]}" restore --commit --yes
