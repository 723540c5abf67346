#!/usr/bin/env bash
# Checks that the packages of release.sh are complete, install, run and leave nothing behind. Installs each
# in a scratch root, so that the machine's own package databases are not touched. Needs root.
#
# usage: check-packages.sh DIST
set -euo pipefail

dist=$(cd "${1:?usage: check-packages.sh DIST}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/etcd-dr-packages.XXXXXX")
trap 'rm -rf "$work"' EXIT

say() { printf 'check-packages: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
files() { (cd "$1" && find . -path ./var -prune -o -print | sort); }

# What every host has, whatever the packages.
standard_folders() { mkdir -p "$1"/usr/bin "$1"/usr/share/{doc,man/man1,bash-completion/completions}; }

# Lists the files after the installation, and after the removal.
look() {
    local root=$1 kind=$2
    case $kind in
        installed)
            "$root/usr/bin/etcd-dr" --version >&2
            local page
            for page in "$root"/usr/share/man/man1/etcd-dr*.1.gz; do gzip -t "$page"; done
            [ -s "$root/usr/share/bash-completion/completions/etcd-dr" ] || die "no completions"
            cmp "$root/usr/bin/etcd-dr" "$binary" || die "not the tarball's binary"
            ;;
        removed)
            local left
            left=$(comm -13 "$work/before" <(files "$root"))
            [ -z "$left" ] || die "left behind:" $left
            ;;
    esac
}

(cd "$dist" && sha256sum --quiet -c SHA256SUMS)
python3 - "$dist"/etcd-dr-*.cdx.json <<'PY'
import json, sys
bom = json.load(open(sys.argv[1]))
assert bom["bomFormat"] == "CycloneDX" and len(bom["components"]) > 50, "an odd SBOM"
refs = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
for entry in bom["dependencies"]:
    assert {entry["ref"], *entry["dependsOn"]} <= refs, entry
PY

mkdir "$work/tar"
tar -C "$work/tar" -xzf "$dist"/etcd-dr-*-linux-*.tar.gz
for top in "$work"/tar/*; do (cd "$top" && sha256sum --quiet -c SHA256SUMS); done
binary=$top/etcd-dr
"$binary" --version >&2
say "the tarball is whole"

root=$work/deb
mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers}
standard_folders "$root"
cat > "$root/var/lib/dpkg/status" <<STATUS
Package: libc6
Status: install ok installed
Maintainer: nobody <nobody@localhost>
Architecture: $(dpkg --print-architecture)
Version: 2.28-10
Description: the oldest glibc that will do

STATUS
files "$root" > "$work/before"
dpkg --root="$root" --log=/dev/null --install "$dist"/etcd-dr_*.deb >&2
look "$root" installed
dpkg --root="$root" --log=/dev/null --purge etcd-dr >&2
look "$root" removed
say "the .deb installs and leaves nothing"

root=$work/rpm
standard_folders "$root"
files "$root" > "$work/before"
rpm --root "$root" --dbpath /var/lib/rpm --initdb
# A scratch root has no glibc package; the package's requirement is checked below.
rpm --root "$root" --dbpath /var/lib/rpm --nodeps --install "$dist"/etcd-dr-*.rpm
look "$root" installed
rpm --root "$root" --dbpath /var/lib/rpm --nodeps --verify etcd-dr >&2
rpm --root "$root" --dbpath /var/lib/rpm --erase etcd-dr
look "$root" removed
highest=$(rpm -qp --requires "$dist"/etcd-dr-*.rpm | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
[ "$highest" = GLIBC_2.28 ] || die "the .rpm asks for $highest"
rpm -qp --requires "$dist"/etcd-dr-*.rpm | grep -qv '^lib\|^ld-\|^rpmlib' && die "the .rpm asks for more than glibc"
say "the .rpm installs and leaves nothing; it asks for $highest"
