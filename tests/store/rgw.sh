#!/bin/sh
# A Ceph Object Gateway on loopback, with one monitor and one OSD in memory.
#
#   rgw.sh ROOT ADDRESS PORT ACCESS_KEY SECRET_KEY
#
# ROOT is Debian's Ceph, unpacked (scripts/fetch-servers.sh --more). Everything runs in mount and
# process namespaces of its own: what is written goes to memory, and the end of this process is the
# end of it all. Root is needed.
set -eu
root=$1 address=$2 port=$3 access=$4 secret=$5

if [ "${6-}" != inside ]; then
    exec unshare --mount --pid --ipc --fork --kill-child --propagation private -- sh "$0" "$@" inside
fi

for dir in mnt tmp run; do mount -t tmpfs tmpfs "$root/$dir"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/run/ceph" "$root/mnt/mon" "$root/mnt/osd"

in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/mnt LC_ALL=C.UTF-8 "$@"; }

fsid=00000000-0000-4000-8000-000000000001 osd=00000000-0000-4000-8000-000000000002
# The monitor's own port is beside the gateway's address, which nobody else has.
mon="v2:$address:3300/0"
cat > "$root/mnt/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [$mon]
public addr = $address
cluster addr = $address
public network = $address/32
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
# The gateway would ask for encryption, which there is none of without keys.
ms mon client mode = crc
ms client mode = crc
run dir = /run/ceph
admin socket =
log file = /mnt/\$name.log
mon cluster log file = /mnt/cluster.log
mon allow pool size one = true
mon data = /mnt/mon
osd data = /mnt/osd
osd journal = /mnt/osd/journal
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
osd max object name len = 256
osd max object namespace len = 64
[client]
rgw data = /mnt
rgw dynamic resharding = false
rgw thread pool size = 32
rgw run sync thread = false
rgw enable usage log = false
rgw gc obj min wait = 60
debug rgw = 0
CONF

in_root monmaptool -c /mnt/ceph.conf --create --fsid "$fsid" --addv a "[$mon]" /mnt/monmap >/dev/null
in_root ceph-mon -c /mnt/ceph.conf --mkfs -i a --monmap /mnt/monmap
in_root ceph-mon -c /mnt/ceph.conf -i a -f >/dev/null 2>"$root/mnt/mon.err" &
in_root ceph -c /mnt/ceph.conf --connect-timeout 30 osd new "$osd" >/dev/null
in_root ceph-osd -c /mnt/ceph.conf -i 0 --mkfs --osd-uuid "$osd" >/dev/null 2>&1
in_root ceph-osd -c /mnt/ceph.conf -i 0 -f >/dev/null 2>"$root/mnt/osd.err" &
in_root ceph -c /mnt/ceph.conf osd crush add osd.0 1.0 root=default host=here >/dev/null 2>&1
in_root radosgw-admin -c /mnt/ceph.conf user create --uid=test --display-name=test \
    --access-key="$access" --secret-key="$secret" >/dev/null
exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/mnt \
    radosgw -c /mnt/ceph.conf -n client.admin -f --rgw-frontends "beast endpoint=$address:$port"
