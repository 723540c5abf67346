#!/bin/sh
# Takes the backup that the first container left, checks it, stores it, and keeps the newest $KEEP.
# `etcd-dr restore` and OpenShift's scripts can restore what it stores.
set -eu
shared=${SHARED:-/shared} archive=${ARCHIVE:-/archive} keep=${KEEP:-20}

backup=$shared/$(readlink "$shared/latest-backup")
[ -f "$backup/backup.json" ]
(cd "$backup" && sha256sum -c SHA256SUMS >/dev/null)

# Its name is the time of the backup; a directory with that name is complete.
stamp=$(basename "$backup"/snapshot_*.db .db)
stamp=${stamp#snapshot_}
rm -rf "$archive/.partial"
cp -R "$backup" "$archive/.partial"
(cd "$archive/.partial" && sha256sum -c SHA256SUMS >/dev/null)
sync
[ -d "$archive/$stamp" ] || mv "$archive/.partial" "$archive/$stamp"
rm -rf "$archive/.partial"
sync

ls -1 "$archive" | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    rm -rf "${archive:?}/$old"
done
