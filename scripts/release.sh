#!/usr/bin/env bash
# Makes every released file from one commit: tarball, .deb, .rpm, SBOM, SHA256SUMS. They are identical
# to the byte wherever they are made (docs/release.md).
#
# usage: release.sh [DIR]      into DIR (default: <project>/target/dist)
#
#   ETCD_DR            use this portable binary instead of building one
#   SOURCE_DATE_EPOCH  the time of all files   (default: the commit's)
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly project
cd "$project"
mkdir -p "${1:-target/dist}"
dist=$(cd "${1:-target/dist}" && pwd)
readonly dist

say() { printf 'release: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} || die "no commit: set SOURCE_DATE_EPOCH"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
readonly version
case $(uname -m) in
    x86_64) deb_arch=amd64 rpm_arch=x86_64 ;;
    aarch64) deb_arch=arm64 rpm_arch=aarch64 ;;
    *) die "no packages for $(uname -m)" ;;
esac
readonly name=etcd-dr-$version-linux-$deb_arch
summary=$(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml)
readonly summary

work=$(mktemp -d "${TMPDIR:-/tmp}/etcd-dr-release.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Puts the files to install at the usual places of a Linux host, with deploy/, the manifests and units
# that run etcd-dr on a cluster.
stage() {
    local to=$1 page
    install -D -m 0755 "$binary" "$to/usr/bin/etcd-dr"
    for page in man/*.1; do
        mkdir -p "$to/usr/share/man/man1"
        gzip -9nc "$page" > "$to/usr/share/man/man1/${page##*/}.gz"
    done
    install -D -m 0644 completions/etcd-dr.bash "$to/usr/share/bash-completion/completions/etcd-dr"
    install -D -m 0644 completions/_etcd-dr "$to/usr/share/zsh/site-functions/_etcd-dr"
    install -D -m 0644 completions/etcd-dr.fish "$to/usr/share/fish/vendor_completions.d/etcd-dr.fish"
    install -D -m 0644 -t "$to/usr/share/doc/etcd-dr" README.md CHANGELOG.md LICENSE
    [ ! -d deploy ] || cp -R deploy "$to/usr/share/doc/etcd-dr/deploy"
    date_all "$to"
}

# One time for all files, and modes that do not depend on the checkout's umask.
date_all() {
    find "$1" -type d -exec chmod 0755 {} +
    find "$1" -type f -perm /111 -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
    find "$1" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}

tarball() {
    local top=$work/tar/$name
    mkdir -p "$top"
    install -m 0755 "$binary" "$top/etcd-dr"
    cp -R man completions LICENSE README.md CHANGELOG.md "$top/"
    [ ! -d deploy ] || cp -R deploy "$top/"
    (cd "$top" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs -d '\n' sha256sum > SHA256SUMS)
    date_all "$top"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar \
        -C "$work/tar" -cf - "$name" | gzip -9n > "$dist/$name.tar.gz"
}

deb() {
    local root=$work/deb
    stage "$root"
    mkdir -p "$root/DEBIAN"
    cat > "$root/DEBIAN/control" <<CONTROL
Package: etcd-dr
Version: $version
Architecture: $deb_arch
Maintainer: The etcd-dr project <etcd-dr@localhost>
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f1)
Depends: libc6 (>= 2.28)
Section: admin
Priority: optional
Description: $summary
 Takes backups of a member's etcd and of the static pods on its node, checks
 them layer by layer, and makes a member's data directory from one.
CONTROL
    (cd "$root" && find usr -type f | sort | xargs -d '\n' md5sum > DEBIAN/md5sums)
    date_all "$root"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$dist/etcd-dr_${version}_$deb_arch.deb" >&2
}

rpm_package() {
    local top=$work/rpm
    stage "$top/staged"
    cat > "$top/etcd-dr.spec" <<SPEC
Name: etcd-dr
Version: $version
Release: 1
Summary: $summary
License: Apache-2.0
Vendor: The etcd-dr project
%description
Takes backups of a member's etcd and of the static pods on its node, checks
them layer by layer, and makes a member's data directory from one.
%install
cp -a $top/staged/. %{buildroot}/
%files
%attr(0755, root, root) /usr/bin/etcd-dr
%attr(0644, root, root) /usr/share/man/man1/etcd-dr*.1.gz
%attr(0644, root, root) /usr/share/bash-completion/completions/etcd-dr
%attr(0644, root, root) /usr/share/zsh/site-functions/_etcd-dr
%attr(0644, root, root) /usr/share/fish/vendor_completions.d/etcd-dr.fish
%defattr(-, root, root)
%dir /usr/share/zsh
%dir /usr/share/zsh/site-functions
%dir /usr/share/fish
%dir /usr/share/fish/vendor_completions.d
%doc /usr/share/doc/etcd-dr
SPEC
    # gzip: the payload that every rpm reads, RHEL 8's too. Nothing is stripped or compressed
    # again: the binary is that of the tarball.
    SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH rpmbuild -bb --quiet --target "$rpm_arch-linux" \
        --dbpath "$top/db" --buildroot "$top/buildroot" \
        --define "_topdir $top" --define "_rpmdir $top/out" --define '_build_id_links none' \
        --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
        --define 'source_date_epoch_from_changelog 0' \
        --define '_buildhost localhost' --define '_binary_payload w9.gzdio' \
        --define '_source_payload w9.gzdio' --define '__os_install_post %{nil}' \
        --define 'debug_package %{nil}' "$top/etcd-dr.spec" >&2
    cp "$top/out/$rpm_arch/etcd-dr-$version-1.$rpm_arch.rpm" "$dist/"
}

if [ -n "${ETCD_DR:-}" ]; then binary=$(realpath "$ETCD_DR"); else binary=$(scripts/portable-build.sh); fi
rm -f "$dist"/etcd-dr-* "$dist"/etcd-dr_* "$dist/SHA256SUMS"
tarball
deb
rpm_package
scripts/sbom.py > "$dist/etcd-dr-$version.cdx.json"
(cd "$dist" && sha256sum etcd-dr-* etcd-dr_* > SHA256SUMS)
say "in $dist:"
(cd "$dist" && cat SHA256SUMS)
