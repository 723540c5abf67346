#!/usr/bin/env bash
# Writes man/ and completions/ from the command tree, one page for each command. tests/docs compares
# the committed files with it.
#
# usage: generate-docs.sh [DIR]     into DIR (default: the project)
#
#   ETCD_DR     the binary that prints them (default: built here)
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
to=${1:-$project}
if [ -z "${ETCD_DR:-}" ]; then
    (cd "$project" && cargo build --locked --quiet --bin etcd-dr)
    ETCD_DR=$project/target/debug/etcd-dr
fi

# The commands, as the help lists them; "help" has no page of its own.
commands=$("$ETCD_DR" -h | awk '/^Commands:/ { listing = 1; next } /^[^ ]/ { listing = 0 }
    listing && /^  [a-z]/ && $1 != "help" { print $1 }')
[ -n "$commands" ] || { echo "generate-docs: the help lists no commands" >&2; exit 1; }

rm -rf "$to/man" "$to/completions"
mkdir -p "$to/man" "$to/completions"
"$ETCD_DR" man > "$to/man/etcd-dr.1"
for command in $commands; do
    "$ETCD_DR" man "$command" > "$to/man/etcd-dr-$command.1"
done
"$ETCD_DR" completions bash > "$to/completions/etcd-dr.bash"
"$ETCD_DR" completions zsh > "$to/completions/_etcd-dr"
"$ETCD_DR" completions fish > "$to/completions/etcd-dr.fish"
