#!/usr/bin/env bash
# Puts the validators of the manifests under deploy/ into a private, cached folder. They contain their
# schemas, so they need neither a cluster nor a network afterwards:
#
#   ${ETCD_DR_CACHE:-<project>/.cache}/schemas/venv/bin/kubernetes-validate   Kubernetes' own kinds
#   ${ETCD_DR_CACHE:-<project>/.cache}/schemas/node_modules                   PrometheusRule
#   ${ETCD_DR_CACHE:-<project>/.cache}/schemas/ignition-validate              the content of a MachineConfig
#
# Nothing is installed into the system. What is already there is not fetched again. If a part is
# not available, the script says so, and the tests that need it print SKIPPED.
set -euo pipefail

readonly KUBERNETES_VALIDATE=1.37.0 PROMETHEUS_OPERATOR=6.0.0
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
into=${ETCD_DR_CACHE:-$project/.cache}/schemas
failed=0

# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf 'fetch-schemas: %s\n' "$*" >&2; }

fetch_kubernetes() {
    # After a cache was moved, its programs look for their interpreter at the old place.
    "$into/venv/bin/kubernetes-validate" --help >/dev/null 2>&1 && return
    rm -rf "$into/venv"
    say "installing kubernetes-validate $KUBERNETES_VALIDATE"
    python3 -m venv "$into/venv" &&
        "$into/venv/bin/pip" -q install --disable-pip-version-check \
            "kubernetes-validate==$KUBERNETES_VALIDATE" importlib-resources >&2 ||
        { rm -rf "$into/venv"; return 1; }
}

fetch_prometheus() {
    [ -d "$into/node_modules/@kubernetes-models/prometheus-operator" ] && return
    # Nothing here installs them, and promtool reads the rules too.
    command -v node >/dev/null && command -v npm >/dev/null ||
        { say "there is no npm here: the schema of PrometheusRule is left out"; return 0; }
    say "installing the schema of PrometheusRule"
    (cd "$into" && npm install --silent --ignore-scripts --no-audit --no-fund --no-save \
        "@kubernetes-models/prometheus-operator@$PROMETHEUS_OPERATOR" >&2)
}

fetch_ignition() {
    local debs
    [ -x "$into/ignition-validate" ] && return
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "unpacking ignition-validate"
    debs=$(mktemp -d)
    download "$debs" ignition && dpkg -x "$debs"/ignition_*.deb "$debs/x" &&
        install -m 0755 "$debs/x/usr/bin/ignition-validate" "$into/ignition-validate" ||
        { rm -rf "$debs"; return 1; }
    rm -rf "$debs"
}

mkdir -p "$into"
fetch_kubernetes || { say "no kubernetes-validate: manifests are rendered, and not validated"; failed=1; }
fetch_prometheus || { say "no schema of PrometheusRule: it is read by promtool alone"; failed=1; }
fetch_ignition || { say "no ignition-validate: MachineConfigs are not validated"; failed=1; }
[ -z "${ETCD_DR_REQUIRE:-}" ] || exit "$failed"
