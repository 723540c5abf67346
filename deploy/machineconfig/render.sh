#!/usr/bin/env bash
# Prints a MachineConfig that puts the units of deploy/systemd on every control-plane node, encoded.
# The binary is not in it, since it is too large: install it with the node's image or in another way.
#
# usage: render.sh timer|schedule > 99-master-etcd-dr.yaml
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
units=$here/../systemd

case ${1:-} in
timer) names=(etcd-dr-backup.service etcd-dr-backup.timer) enabled=etcd-dr-backup.timer ;;
schedule) names=(etcd-dr-schedule.service) enabled=etcd-dr-schedule.service ;;
*) echo "usage: render.sh timer|schedule" >&2; exit 2 ;;
esac

cat <<HEAD
# Rendered by deploy/machineconfig/render.sh $1
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata:
  name: 99-master-etcd-dr
  labels:
    machineconfiguration.openshift.io/role: master
spec:
  config:
    ignition:
      version: 3.2.0
    storage:
      files:
HEAD
# 420 is 0644: not every YAML reader knows octal numbers.
for name in "${names[@]}"; do
    cat <<FILE
        - path: /etc/systemd/system/$name
          mode: 420
          overwrite: true
          contents:
            source: data:text/plain;charset=utf-8;base64,$(base64 -w0 < "$units/$name")
FILE
done
cat <<UNITS
    systemd:
      units:
        - name: $enabled
          enabled: true
UNITS
