#!/usr/bin/env bash
# Puts the parts of a real static-pod node into a private, cached folder, for the
# suite `real_node`:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/node/bin   kubelet, kube-apiserver, containerd, runc, busybox …
#   ${ETCD_DR_CACHE:-<project>/.cache}/node/cni   CNI plugins
#   ${ETCD_DR_CACHE:-<project>/.cache}/node/VERSIONS
#
# usage: fetch-node.sh [--refresh] [--quiet]
#
# Everything comes from Debian bookworm, with an apt configuration of its own:
# nothing is installed. Debian has the kubelet and the API server only as a source
# package, so they are built here, once, with Debian's own Go and without network:
# about five minutes on two cores. What is already there is not fetched again.
#
#   ETCD_DR_APT_MIRROR  the Debian archive to use if the machine's own apt
#                       sources name none
set -euo pipefail

readonly SUITE=bookworm
readonly GO=golang-1.19
readonly PACKAGES=(containerd runc containernetworking-plugins busybox-static)
readonly TOOLS=(kubelet kube-apiserver containerd containerd-shim-runc-v2 ctr runc busybox standin)
readonly PLUGINS=(loopback bridge host-local)
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly project
readonly cache="${ETCD_DR_CACHE:-$project/.cache}"
readonly target=$cache/node
readonly standin=$project/tests/real_node/standin/main.go
# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf 'fetch-node: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

have() {
    local tool
    [ -s "$target/VERSIONS" ] || return 1
    for tool in "${TOOLS[@]}"; do [ -x "$target/bin/$tool" ] || return 1; done
    for tool in "${PLUGINS[@]}"; do [ -x "$target/cni/$tool" ] || return 1; done
    cmp -s "$standin" "$target/standin.go"
}

# Go from its packages, without this machine's settings.
go_build() {
    env -i PATH="$PATH" HOME="$home" GOROOT="$home/unpacked/usr/lib/go-${GO#golang-}" \
        GOPATH="$home/go" GOCACHE="$home/gocache" GO111MODULE=off CGO_ENABLED=0 \
        nice "$home/unpacked/usr/lib/go-${GO#golang-}/bin/go" build -trimpath "$@"
}

# The one generated file that Kubernetes' source does not hold: what the API server
# says of its types. As build/root/Makefile.generated_files makes it, KUBE's part.
generate_openapi() {
    local dirs dir list=''
    go_build -o "$home/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    dirs=$(grep -lr --include='*.go' '+k8s:openapi-gen=' pkg staging/src/k8s.io |
        grep -v -e _generated -e code-generator -e sample-apiserver -e /testdata/ |
        sed 's,^staging/src/,vendor/,' | xargs -n1 dirname | sort -u)
    for dir in $dirs; do list+=${list:+,}k8s.io/kubernetes/$dir; done
    env -i PATH="$home/unpacked/usr/lib/go-${GO#golang-}/bin:$PATH" HOME="$home" GOPATH="$home/go" \
        GOROOT="$home/unpacked/usr/lib/go-${GO#golang-}" GOCACHE="$home/gocache" GO111MODULE=off \
        nice "$home/openapi-gen" --logtostderr -i "$list" -p k8s.io/kubernetes/pkg/generated/openapi \
        -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt \
        -r "$home/violations" --output-base "$home/go/src"
}

# Debian's patches change kubectl alone, so that upstream's tree is enough.
build_kubernetes() {
    local tree=$home/go/src/k8s.io/kubernetes version package=k8s.io/kubernetes/vendor/k8s.io/component-base/version
    mkdir -p "$tree" "$home/source"
    (cd "$home/source" && APT_CONFIG="$home/apt.conf" apt-get source -qq --download-only kubernetes) >&2
    tar -xzf "$home"/source/kubernetes_*.orig.tar.gz -C "$tree" --strip-components=1
    # 1.20.5+really1.20.2-1.1 is 1.20.2.
    version=$(cd "$home/source" && ls kubernetes_*.dsc)
    version=${version#kubernetes_} version=${version%%-*} version=${version##*really}
    say "building kubelet and kube-apiserver $version, once"
    (
        cd "$tree"
        generate_openapi
        go_build -tags providerless -ldflags "-s -w -X $package.gitVersion=v$version" \
            -o "$fresh/bin/" ./cmd/kubelet ./cmd/kube-apiserver
    )
}

fetch() {
    local tool
    mkdir -p "$cache"
    home=$(mktemp -d "$cache/.fetch-node.XXXXXX")
    # Only a complete folder ever gets its final name.
    # shellcheck disable=SC2064  # the folder of now is meant
    trap "rm -rf '$home'" EXIT
    fresh=$home/fresh
    mkdir -p "$fresh/bin" "$fresh/cni" "$home/debs" "$home/unpacked"
    private_apt "$SUITE" "$home" deb deb-src
    say "asking the Debian archive what $SUITE has"
    update_lists "$SUITE" "$home"
    (cd "$home/debs" && APT_CONFIG="$home/apt.conf" apt-get download -qq "${PACKAGES[@]}" "$GO-go" "$GO-src") >&2
    for tool in "$home"/debs/*.deb; do dpkg -x "$tool" "$home/unpacked"; done
    for tool in containerd containerd-shim-runc-v2 ctr; do
        cp "$home/unpacked/usr/bin/$tool" "$fresh/bin/"
    done
    cp "$home/unpacked/usr/sbin/runc" "$home/unpacked/bin/busybox" "$fresh/bin/"
    for tool in "${PLUGINS[@]}"; do cp "$home/unpacked/usr/lib/cni/$tool" "$fresh/cni/"; done
    go_build -ldflags '-s -w' -o "$fresh/bin/standin" "$standin"
    cp "$standin" "$fresh/standin.go"
    if [ -z "$refresh" ] && [ -x "$target/bin/kubelet" ] && [ -x "$target/bin/kube-apiserver" ]; then
        cp "$target/bin/kubelet" "$target/bin/kube-apiserver" "$fresh/bin/"
    else
        build_kubernetes
    fi
    for tool in runc containerd; do
        "$fresh/bin/$tool" --version > "$home/answer" || die "Debian's $tool does not run on this machine"
    done
    {
        printf '%-28s %s\n' kubelet "$("$fresh/bin/kubelet" --version | sed 's/.* v//')"
        for tool in "$home"/debs/*.deb; do
            printf '%-28s %s\n' "$(dpkg-deb -f "$tool" Package)" "$(dpkg-deb -f "$tool" Version)"
        done
    } > "$fresh/VERSIONS"
    if [ -e "$target" ]; then mv "$target" "$home/old"; fi
    mv "$fresh" "$target"
    # Go makes parts of its caches read-only.
    chmod -R u+w "$home" && rm -rf "$home"
    trap - EXIT
}

refresh='' quiet=''
while [ $# -gt 0 ]; do
    case $1 in
        --refresh) refresh=1 ;;
        --quiet) quiet=1 ;;
        -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown argument $1" ;;
    esac
    shift
done

mkdir -p "$cache"
# Held by a file descriptor, so that it ends with this process however that ends.
exec 9> "$cache/.node.lock"
flock 9
rm -rf "$cache"/.fetch-node.*
if [ -n "$refresh" ] || ! have; then
    command -v apt-get > /dev/null 2>&1 && command -v dpkg > /dev/null 2>&1 && find_mirror \
        || die "no apt, or no Debian archive among its sources (ETCD_DR_APT_MIRROR can name one)"
    fetch
fi
if [ -z "$quiet" ]; then
    cat "$target/VERSIONS"
    printf '%s\n' "$target"
fi
