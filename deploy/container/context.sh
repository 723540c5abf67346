#!/usr/bin/env bash
# Puts the content of the image into DIR/rootfs: the binary, the C library it was linked against, and
# the CA certificates for buckets. Nothing else: no shell, no package manager.
#
# usage: context.sh BINARY DIR       then: podman build -f Containerfile -t etcd-dr DIR
set -euo pipefail
[ $# = 2 ] || { echo "usage: context.sh BINARY DIR" >&2; exit 2; }
binary=$1 root=$2/rootfs

mkdir -p "$root/etc/ssl/certs" "$root/host"
mkdir -p -m 1777 "$root/tmp" "$root/var/tmp"
install -m 0755 "$binary" "$root/etcd-dr"
# The loader is alone on its line, the libraries follow an arrow; the kernel's vDSO has no file.
ldd "$binary" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    [ -r "$bundle" ] && install -m 0644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt" && break
done
