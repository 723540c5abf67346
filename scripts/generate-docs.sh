#!/usr/bin/env bash
# Writes man/ and completions/ from the command tree; `--check DIR` style use is in tests/docs.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet --bin etcd-dr
bin=target/debug/etcd-dr
mkdir -p man completions
"$bin" man > man/etcd-dr.1
for command in backup list verify; do
    "$bin" man "$command" > "man/etcd-dr-$command.1"
done
"$bin" completions bash > completions/etcd-dr.bash
"$bin" completions zsh > completions/_etcd-dr
"$bin" completions fish > completions/etcd-dr.fish
