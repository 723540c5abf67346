#!/usr/bin/env bash
# Boots a node from a root directory: containerd and a kubelet without an API
# server, in mount, process, network, host name, IPC and cgroup namespaces of
# their own. The node's files are the root directory's; of the machine it sees
# /usr, read-only, and nothing else. This process is the node: its end is the end
# of everything in it.
#
# usage: node.sh ROOT TOOLS PROGRAMS ADDRESS NAME CGROUP
#
#   TOOLS     what scripts/fetch-node.sh laid down
#   PROGRAMS  a directory that the node shall see as /opt/test
#   ADDRESS   the node's, with the length of its network's prefix
#   CGROUP    the name of a cgroup to make, below which all of it runs; whoever
#             called removes the directories that ROOT/run/cgroups names
set -euo pipefail

# Values that the kubelet sets and that are the whole machine's: it may believe
# it did.
readonly SYSCTLS=(
    vm/overcommit_memory vm/panic_on_oom
    kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes
)

# "CONTROLLERS" of every cgroup v1 hierarchy, as mount(8) takes them.
hierarchies() {
    awk -F: '$2 != "" { print ($2 ~ /^name=/ ? "none," : "") $2 }' /proc/self/cgroup
}

where_mounted() {
    awk -v wanted="$1" '
        { for (i = 1; i <= NF; i++) if ($i == "-" && $(i + 1) == "cgroup") {
            n = split(wanted, all, ","); options = "," $(i + 3) ","; missing = 0
            for (j = 1; j <= n; j++) if (all[j] != "none" && index(options, "," all[j] ",") == 0) missing = 1
            if (!missing) { print $5; exit }
        } }' /proc/self/mountinfo
}

enter_cgroup() {
    local name=$1 options mounted dir file
    for options in $(hierarchies); do
        mounted=$(where_mounted "$options")
        [ -n "$mounted" ] || continue
        dir=$mounted$(awk -F: -v c="${options#none,}" '$2 == c { print $3 }' /proc/self/cgroup)
        dir=${dir%/}/$name
        mkdir "$dir"
        printf '%s\n' "$dir" >> "$root/run/cgroups"
        # A new cpuset is empty, and takes nobody in.
        for file in cpuset.cpus cpuset.mems; do
            if [ -e "$dir/$file" ]; then cat "${dir%/*}/$file" > "$dir/$file"; fi
        done
        echo $$ > "$dir/cgroup.procs"
    done
}

device_nodes() {
    local dev=$1 node
    mount -t tmpfs -o mode=0755 dev "$dev"
    for node in null zero full random urandom tty kmsg; do
        : > "$dev/$node"
        mount --bind "/dev/$node" "$dev/$node"
    done
    mkdir "$dev/pts" "$dev/shm" "$dev/mqueue"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$dev/pts"
    mount -t tmpfs shm "$dev/shm"
    mount -t mqueue mqueue "$dev/mqueue"
    ln -s pts/ptmx "$dev/ptmx"
    ln -s /proc/self/fd "$dev/fd"
    ln -s fd/0 "$dev/stdin"
    ln -s fd/1 "$dev/stdout"
    ln -s fd/2 "$dev/stderr"
}

# The machine's programs and libraries, but for /usr/local, which is the node's.
programs() {
    local root=$1 dir
    mkdir -p "$root/usr/local/bin" "$root/opt/node" "$root/opt/test"
    for dir in /usr/*; do
        [ "$dir" != /usr/local ] && [ -d "$dir" ] && [ ! -L "$dir" ] || continue
        mkdir -p "$root$dir"
        mount --bind "$dir" "$root$dir"
        mount -o remount,ro,bind "$root$dir"
    done
    for dir in /bin /sbin /lib /lib32 /lib64 /libx32; do
        if [ -L "$dir" ]; then
            ln -sfn "$(readlink "$dir")" "$root$dir"
        elif [ -d "$dir" ]; then
            mkdir -p "$root$dir"
            mount --bind "$dir" "$root$dir"
        fi
    done
    for dir in passwd group nsswitch.conf ld.so.cache ld.so.conf alternatives; do
        if [ -e "/etc/$dir" ] && [ ! -e "$root/etc/$dir" ]; then cp -a "/etc/$dir" "$root/etc/"; fi
    done
    mount --bind "$tools" "$root/opt/node"
    mount --bind "$shown" "$root/opt/test"
}

kernel_files() {
    local root=$1 options file copy
    mount -t proc proc "$root/proc"
    mkdir -p "$root/run/sysctl"
    for file in "${SYSCTLS[@]}"; do
        [ -e "$root/proc/sys/$file" ] || continue
        copy=$root/run/sysctl/${file//\//.}
        cat "$root/proc/sys/$file" > "$copy"
        mount --bind "$copy" "$root/proc/sys/$file"
    done
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs -o mode=0755 cgroup "$root/sys/fs/cgroup"
    for options in $(hierarchies); do
        file=${options#none,} file=$root/sys/fs/cgroup/${file#name=}
        mkdir "$file"
        mount -t cgroup -o "$options" cgroup "$file"
    done
}

network() {
    hostname "$name"
    ip link set lo up
    ip link add node0 type veth peer name node1
    ip link set node0 up
    ip link set node1 up
    ip address add "$address" dev node0
    # The kubelet looks for the interface of the default route; nothing answers there.
    ip route add default dev node0
}

settings() {
    mkdir -p /etc/containerd /etc/cni/net.d /etc/systemd/system /var/lib/kubelet /var/log /var/tmp /tmp
    printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" > /etc/hosts
    : > /etc/resolv.conf
    # What cannot be had here: raising another's chance to be spared when memory is
    # short needs CAP_SYS_RESOURCE.
    cat > /etc/containerd/config.toml <<'CONF'
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "node.test/standin:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/node/cni"
    conf_dir = "/etc/cni/net.d"
CONF
    cat > /etc/cni/net.d/10-none.conflist <<'CONF'
{"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}
CONF
    cat > /etc/kubernetes/kubelet.conf <<'CONF'
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
staticPodPath: /etc/kubernetes/manifests
fileCheckFrequency: 5s
syncFrequency: 10s
authentication:
  anonymous:
    enabled: true
  webhook:
    enabled: false
authorization:
  mode: AlwaysAllow
cgroupDriver: cgroupfs
evictionHard:
  memory.available: 1Mi
failSwapOn: false
hairpinMode: none
makeIPTablesUtilChains: false
oomScoreAdj: 0
CONF
    cat > /etc/systemd/system/kubelet.service <<CONF
[Service]
ExecStart=/opt/node/bin/kubelet \\
  --config=/etc/kubernetes/kubelet.conf \\
  --container-runtime=remote \\
  --container-runtime-endpoint=/run/containerd/containerd.sock \\
  --hostname-override=$name
CONF
}

boot() {
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mkdir -p "$root"/{etc,proc,sys,dev,run,tmp,var/log,var/tmp,.machine}
    programs "$root"
    kernel_files "$root"
    device_nodes "$root/dev"
    cd "$root"
    pivot_root . .machine
    umount -l /.machine
    rmdir /.machine
    # Containers' mounts come and go as on a machine that has systemd.
    mount --make-rshared /
    export PATH=/opt/node/bin:/usr/sbin:/usr/bin:/sbin:/bin
    unset TMPDIR
    network
    settings

    containerd > /var/log/containerd.log 2>&1 &
    echo $! > /run/containerd.pid
    local i
    for ((i = 0; i < 300; i++)); do
        if ctr --timeout 2s version > /dev/null 2>&1; then break; fi
        sleep 0.2
    done
    for i in /opt/test/*.tar; do ctr -n k8s.io images import "$i"; done
    while read -r i; do
        ctr -n k8s.io images tag node.test/standin:1 "$i"
    done < /opt/test/images
    kubelet --config=/etc/kubernetes/kubelet.conf --container-runtime=remote \
        --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
        --hostname-override="$name" --v=2 > /var/log/kubelet.log 2>&1 &
    echo $! > /run/kubelet.pid
    : > /run/booted
    # Either one's end is the node's.
    wait -n
    exit 1
}

root=$1 tools=$2 shown=$3 address=$4 name=$5 cgroup=$6
if [ -z "${7:-}" ]; then
    mkdir -p "$root/run"
    enter_cgroup "$cgroup"
    exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
        bash "$0" "$@" inside
fi
boot
