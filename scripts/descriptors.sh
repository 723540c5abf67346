#!/usr/bin/env bash
# Makes src/objects/descriptors.binpb.zst: the messages of Kubernetes' and OpenShift's built-in kinds, as one
# compressed FileDescriptorSet, from Debian's packages of their Go sources.
#
#   scripts/descriptors.sh            write src/objects/descriptors.binpb.zst
#   scripts/descriptors.sh --check    make it again and compare
#
# The messages are those of the generated.proto files. What these do not say is taken from the tags of the Go
# types next to them and added as options: the name in JSON, inlined fields, pointers, omitempty
# (scripts/descriptors.py). Nothing is installed. Needs apt-get, dpkg-deb, python3, protoc and zstd.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
result=$project/src/objects/descriptors.binpb.zst
say() { echo "$*" >&2; }
# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

for tool in apt-get dpkg-deb python3 protoc zstd; do
    command -v "$tool" >/dev/null || { say "descriptors.sh: $tool is missing"; exit 1; }
done
find_mirror || { say "descriptors.sh: no Debian archive; set ETCD_DR_APT_MIRROR"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The newest release first: a package's messages are taken from the first that has it.
roots=()
for suite in sid trixie; do
    home=$work/$suite
    private_apt "$suite" "$home" deb
    update_lists "$suite" "$home"
    mkdir -p "$home/debs" "$home/root"
    packages=(golang-k8s-api-dev golang-k8s-apimachinery-dev)
    [ "$suite" = sid ] && packages+=(golang-github-openshift-api-dev)
    (cd "$home/debs" && APT_CONFIG="$home/apt.conf" apt-get download -qq "${packages[@]}" >&2)
    for package in "$home"/debs/*.deb; do
        say "  $(basename "$package")"
        dpkg-deb -x "$package" "$home/root"
    done
    roots+=("$home/root/usr/share/gocode/src")
done
python3 "$project/scripts/descriptors.py" "$work/proto" "${roots[@]}"
(
    cd "$work/proto"
    find . -name '*.proto' | LC_ALL=C sort | sed 's|^\./||' > ../files
    xargs protoc -I . --include_imports --descriptor_set_out=../set.binpb < ../files 2> >(grep -v "is unused.\$" >&2 || true)
)
zstd -q -19 --ultra -f "$work/set.binpb" -o "$work/set.binpb.zst"
if [ "${1:-}" = --check ]; then
    cmp "$work/set.binpb.zst" "$result"
    say "descriptors.sh: $result is up to date"
else
    cp "$work/set.binpb.zst" "$result"
    chmod 644 "$result"
    say "descriptors.sh: $(wc -l < "$work/files") files, $(stat -c %s "$work/set.binpb") bytes, compressed $(stat -c %s "$result")"
fi
