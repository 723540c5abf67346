#!/bin/sh
# Installs what the build needs and a fresh Debian machine with Rust, gcc and
# python3 lacks: protoc with Google's own .proto files, which the etcd client's
# build script runs.
# With --tests it also installs what the suites use: man, tmux, zsh and fish, ssh-keygen and
# ssh-agent, which make and hold the keys of its SSH hosts, and python3-venv for the validator
# of manifests. With --release it also installs what makes and checks packages: rpm, and
# python3-venv for the linker.
# If everything is installed, it does nothing, and needs neither network nor root.
set -eu

say() { printf 'deps: %s\n' "$*" >&2; }

purpose=${1:-}

# Whether protoc finds descriptor.proto, which etcd's own files import.
knows_well_known_types() {
    command -v protoc >/dev/null 2>&1 || return 1
    probe=$(mktemp -d)
    printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$probe/p.proto"
    known=0
    protoc -I "$probe" --descriptor_set_out=/dev/null "$probe/p.proto" >/dev/null 2>&1 || known=1
    rm -rf "$probe"
    return "$known"
}

missing_packages() {
    if [ "$purpose" = --tests ]; then
        command -v man >/dev/null 2>&1 || printf 'man-db\n'
        for program in tmux zsh fish; do
            command -v "$program" >/dev/null 2>&1 || printf '%s\n' "$program"
        done
        python3 -c 'import ensurepip' >/dev/null 2>&1 || printf 'python3-venv\n'
    fi
    if [ "$purpose" = --release ]; then
        command -v rpmbuild >/dev/null 2>&1 || printf 'rpm\n'
        command -v objdump >/dev/null 2>&1 || printf 'binutils\n'
        python3 -c 'import ensurepip' >/dev/null 2>&1 || printf 'python3-venv\n'
    fi
    if [ "$purpose" = --tests ] && ! command -v ssh-keygen >/dev/null 2>&1; then
        printf 'openssh-client\n'
    fi
    # Set PROTOC to let prost's build script find a protoc outside PATH.
    if [ -n "${PROTOC:-}" ] && [ -x "$PROTOC" ]; then
        return
    fi
    command -v protoc >/dev/null 2>&1 || printf 'protobuf-compiler\n'
    # Google's own .proto files are a package that the compiler only recommends.
    knows_well_known_types || printf 'libprotobuf-dev\n'
}

packages=$(missing_packages)
if [ -z "$packages" ]; then
    say "nothing is missing"
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    say "missing, and there is no apt-get here to install it with:" $packages
    say "install it by hand; of the Protocol Buffers compiler PROTOC may be the path"
    exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        say "installing $packages needs root, and there is no sudo"
        exit 1
    fi
    as_root=sudo
fi

# The lists are refreshed only when the first try fails: a fresh image has
# none, and stale ones name package files that are gone from the mirror.
install() {
    # shellcheck disable=SC2086  # one word a package, and an empty as_root must vanish
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 $packages
}
if ! install >/dev/null 2>&1; then
    say "refreshing the package lists"
    $as_root apt-get update -q >&2
    install >&2
fi

packages=$(missing_packages)
if [ -n "$packages" ]; then
    say "still missing after the installation: $packages"
    exit 1
fi
say "installed what was missing"
