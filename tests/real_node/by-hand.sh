#!/usr/bin/env bash
# A restore by hand on a node with one member, as Kubernetes' and OpenShift's documentation has it
# (stop the static pods, restore the snapshot, start the static pods), typed without a pause.
#
# usage: by-hand.sh SNAPSHOT NAME PEER-URL
set -euo pipefail
snapshot=$1 name=$2 url=$3
manifests=/etc/kubernetes/manifests stopped=/root/manifests-stopped new=/var/lib/etcd-new

mkdir -p "$stopped"
mv "$manifests"/*.yaml "$stopped"/
while [[ $(ctr -n k8s.io tasks list) == *RUNNING* ]]; do sleep 0.2; done
mv /var/lib/etcd/member /var/lib/etcd-before
/opt/test/etcd/bin/etcdutl snapshot restore "$snapshot" --data-dir "$new" --name "$name" \
    --initial-cluster "$name=$url" --initial-advertise-peer-urls "$url" \
    --bump-revision 10000000000 --mark-compacted
mv "$new/member" /var/lib/etcd/
mv "$stopped"/*.yaml "$manifests"/
