#!/usr/bin/env python3
"""Renders docs/images: what etcd-dr shows in a real terminal (.svg), and its pages in a real browser (.png).

Commands are typed into tmux, the screen is read back with its colours, and rich (PyPI, in a folder of
Python's own below .cache) draws it. The store is a real one: three backups of an etcd that runs for
it on a loopback address; the node that a restore is planned for is the demo's. Nothing is drawn by hand.

usage: screenshots.py [page|fleet]   needs root, tmux, chromium, etcd (scripts/fetch-etcd.sh) and what `make demo` builds; with the
                               word "page" only the page of diff is drawn, with "fleet" only that of list --fleet

  ETCD_DR        the binary              (default target/debug/etcd-dr)
  DEMO_CLUSTER   the cluster starter     (default target/debug/examples/demo_cluster)
"""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import browser

PROJECT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("ETCD_DR_CACHE", PROJECT / ".cache"))
ETCD_DR = os.environ.get("ETCD_DR", str(PROJECT / "target/debug/etcd-dr"))
DEMO_CLUSTER = os.environ.get("DEMO_CLUSTER", str(PROJECT / "target/debug/examples/demo_cluster"))
IMAGES = PROJECT / "docs/images"
RICH = "15.0.0"
ADDRESS = "127.94.17.1"
URL = f"http://{ADDRESS}:2379"


def in_own_python():
    """Starts this script again in a folder of Python's own that has rich."""
    home = CACHE / f"release/rich-{RICH}"
    python = home / "bin/python"
    if pathlib.Path(sys.prefix) == home:
        return
    if not (home / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"rich=={RICH}"], check=True)
        (home / "whole").touch()
    os.execv(python, [python, __file__, *sys.argv[1:]])


class Screen:
    """A terminal with a shell, which ends with the block."""

    def __init__(self, columns, rows, folder):
        self.columns = columns
        self.rows = rows
        self.server = f"etcd-dr-shots-{os.getpid()}-{time.monotonic_ns()}"
        shell = ["env", "-i", f"PATH={folder}:{os.environ['PATH']}", "HOME=/nonexistent", "PS1=# "]
        shell += ["TERM=screen-256color", "LC_ALL=C.UTF-8", "timeout", "120", "sh", "-i"]
        self.tmux("-f", "/dev/null", "-u", "new-session", "-d", "-x", str(columns), "-y", str(rows), "--", *shell)

    def __enter__(self):
        self.wait("#")
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-L", self.server, "kill-server"], capture_output=True)

    def tmux(self, *args):
        return subprocess.run(["tmux", "-L", self.server, *args], check=True, capture_output=True, text=True).stdout

    def type(self, line):
        """Types a line and Enter."""
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def wait(self, text, seconds=60):
        """Waits until the screen shows a text."""
        end = time.monotonic() + seconds
        while text not in self.tmux("capture-pane", "-p"):
            if time.monotonic() > end:
                sys.exit(f"screenshots: {text!r} was not shown:\n{self.tmux('capture-pane', '-p')}")
            time.sleep(0.05)

    def wait_clear(self):
        """Waits until the screen shows a prompt and nothing else."""
        end = time.monotonic() + 60
        while self.tmux("capture-pane", "-p").strip() != "#":
            if time.monotonic() > end:
                sys.exit(f"screenshots: the screen was not cleared:\n{self.tmux('capture-pane', '-p')}")
            time.sleep(0.05)

    def save(self, name):
        """Draws what is shown now."""
        from rich.console import Console
        from rich.text import Text

        painted = self.tmux("capture-pane", "-p", "-e").rstrip().removesuffix("#").rstrip()
        console = Console(record=True, width=self.columns, file=open(os.devnull, "w"), force_terminal=True)
        for line in painted.split("\n"):
            console.print(Text.from_ansi(line), soft_wrap=True)
        drawn = console.export_svg(title="etcd-dr", unique_id=name)
        # Whatever font for terminals the reader has; none is fetched.
        drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)
        (IMAGES / f"{name}.svg").write_text(drawn)
        print(IMAGES / f"{name}.svg")


def start_etcd(bins, data):
    """An etcd of one member, which the caller ends."""
    return subprocess.Popen(
        [bins / "etcd", "--data-dir", data, "--listen-client-urls", URL,
         "--advertise-client-urls", URL, "--listen-peer-urls", f"http://{ADDRESS}:2380",
         "--initial-advertise-peer-urls", f"http://{ADDRESS}:2380",
         "--initial-cluster", f"default=http://{ADDRESS}:2380"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# What the picture of the page shows: a key, what is there before, and what is there afterwards.
CHANGES = [
    ("configmaps/shop/settings", {"data": {"currency": "EUR", "theme": "winter"}}, {"data": {"currency": "EUR", "theme": "spring"}}),
    ("deployments/shop/checkout", {"spec": {"replicas": 2}}, {"spec": {"replicas": 6}}),
    ("deployments/shop/web", {"spec": {"replicas": 3}}, {"spec": {"replicas": 3}}),
    ("secrets/shop/payment-provider", {"data": {"token": "b2xk"}}, {"data": {"token": "bmV3"}}),
    ("configmaps/shop/banner", {"data": {"text": "hello"}}, None),
    ("jobs/reports/nightly-1204", {"spec": {"completions": 1}}, None),
    ("pods/shop/checkout-7c9f-x2k8d", None, {"spec": {"nodeName": "worker-1"}, "status": {"phase": "Running"}}),
    ("pods/shop/checkout-7c9f-p9wvt", None, {"spec": {"nodeName": "worker-2"}, "status": {"phase": "Running"}}),
    ("persistentvolumes/pvc-81f2", None, {"spec": {"capacity": {"storage": "20Gi"}}}),
    ("persistentvolumeclaims/shop/orders", None, {"spec": {"volumeName": "pvc-81f2"}}),
    ("services/specs/shop/checkout", None, {"spec": {"type": "LoadBalancer", "ports": [{"port": 443}]}}),
    ("minions/worker-3", None, {"spec": {"podCIDR": "10.42.3.0/24"}}),
]
KINDS = {"configmaps": "ConfigMap", "deployments": "Deployment", "secrets": "Secret", "jobs": "Job", "pods": "Pod",
         "persistentvolumes": "PersistentVolume", "persistentvolumeclaims": "PersistentVolumeClaim", "services": "Service",
         "minions": "Node"}
VERSIONS = {"Deployment": "apps/v1", "Job": "batch/v1"}


def shoot_page(work, bins):
    """The page of `diff`, as an incident's ticket would have it."""
    etcdctl = [bins / "etcdctl", "--endpoints", URL, "--dial-timeout", "30s"]
    call = lambda *args: subprocess.run([*etcdctl, *args], check=True, capture_output=True)
    (work / "page").mkdir()
    for moment, database in ((1, "backup-12.db"), (2, "now.db")):
        for change in CHANGES:
            key, content = change[0], change[moment]
            if content is None and change[1] is not None:
                call("del", f"/registry/{key}")
            if content is None or content == change[moment - 1]:
                continue
            path = key.split("/")
            kind = KINDS[path[0]]
            metadata = {"name": path[-1]} | ({"namespace": path[-2]} if len(path) > 2 else {}) | {"uid": key}
            stored = {"apiVersion": VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **content}
            call("put", f"/registry/{key}", json.dumps(stored))
        call("snapshot", "save", str(work / "page" / database))
    page = work / "page/diff.html"
    with open(page, "w") as out:
        done = subprocess.run([ETCD_DR, "diff", "backup-12.db", "now.db", "--objects", "-o", "html"], stdout=out, cwd=page.parent)
    if done.returncode != 11:
        sys.exit(f"screenshots: diff ended with {done.returncode}")
    seen = browser.look(page, work, only="light-1400", height=1100)
    (work / "light-1400.png").replace(IMAGES / "diff.png")
    print(IMAGES / "diff.png", seen["views"][0]["title"])


# The clusters of the picture, by their number in scripts/fleet-store.py.
FLEET = {0: "prod-eu-1", 1: "prod-eu-2", 2: "prod-us-1", 3: "prod-us-2", 4: "stage-eu", 5: "stage-us", 6: "edge-0441", 7: "edge-0442",
         8: "lab"}


def shoot_fleet(work):
    """The page of `list --fleet`: most are well, one is stale, one has a gap, one has shrunk, one is absent."""
    make = [PROJECT / "scripts/fleet-store.py", work, "--buckets", "1", "--backups", "40"]
    subprocess.run([*make, "--clusters", "8"], check=True)
    subprocess.run([*make, "--clusters", "1", "--first", "8", "--age", "60"], check=True)
    store = work / "bucket-000"
    cluster = "00000000-0000-4000-8000-{:012}".format
    for number in (0, 1):
        # The names of recorded changes are all that is read of them; the cluster is the fixture's.
        changes = store / cluster(number) / "master-0/changes"
        changes.mkdir()
        for first, last in [(11, 20), (31, 40)] if number else [(11, 40)]:
            (changes / f"20261130T120000Z-d9c0f1bf9ca3d83d.{first:019}-{last:019}.changes").write_text("sealed")
    expected = "".join(f"{cluster(number)} {name}\n" for number, name in FLEET.items())
    (work / "expect").write_text(f"{expected}{cluster(9)} edge-0443\n")
    page = work / "fleet.html"
    with open(page, "w") as out:
        done = subprocess.run([ETCD_DR, "list", "--fleet", f"file://{store}", "--expect", work / "expect", "-o", "html"], stdout=out)
    if done.returncode != 11:
        sys.exit(f"screenshots: list ended with {done.returncode}")
    browser.look(page, work, only="light-1400", height=660)
    (work / "light-1400.png").replace(IMAGES / "fleet.png")
    print(IMAGES / "fleet.png")


def main():
    if sys.argv[1:] not in (["page"], ["fleet"]):
        in_own_python()
    IMAGES.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:] != ["page"]:
        with tempfile.TemporaryDirectory() as work:
            shoot_fleet(pathlib.Path(work))
    if sys.argv[1:] == ["fleet"]:
        return
    bins = CACHE / "etcd/sid/bin"
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        etcd = start_etcd(bins, work / "data")
        try:
            shoot_page(work, bins)
        finally:
            etcd.kill()
            etcd.wait()
    if sys.argv[1:] == ["page"]:
        return
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        bin_dir = work / "bin"
        bin_dir.mkdir()
        # The bare profile's options come from the environment of a wrapper, to keep lines short.
        wrapper = bin_dir / "etcd-dr"
        wrapper.write_text(
            "#!/bin/sh\nexport ETCD_DR_PROFILE=bare ETCD_DR_STORE=/tmp/backups "
            f"ETCD_DR_ENDPOINTS={URL}\nexec unshare -m sh -c 'mount --bind {work}/store /tmp/backups && "
            f"exec {ETCD_DR} \"$@\"' sh \"$@\"\n"
        )
        wrapper.chmod(0o755)
        (work / "store").mkdir()
        pathlib.Path("/tmp/backups").mkdir(exist_ok=True)
        etcd = start_etcd(bins, work / "data")
        try:
            shoot(work, bins, bin_dir)
        finally:
            etcd.kill()
            etcd.wait()
            pathlib.Path("/tmp/backups").rmdir()
    with tempfile.TemporaryDirectory() as work:
        shoot_node(pathlib.Path(work))


def shoot_node(work):
    """The plan of a restore, as a shell of `oc debug node` shows it: the node is at /host."""
    host = pathlib.Path("/host")
    demo = subprocess.Popen([DEMO_CLUSTER, "200"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TMPDIR": str(work)})
    made = not host.exists()
    try:
        words = {}
        while "DEMO_READY" not in words:
            line = demo.stdout.readline()
            if not line:
                sys.exit("screenshots: the demo's cluster did not start")
            name, _, value = line.strip().partition("=")
            words[name] = value.strip("'")
        host.mkdir(exist_ok=True)
        wrapper = work / "bin/etcd-dr"
        wrapper.parent.mkdir()
        wrapper.write_text(
            f"#!/bin/sh\nexec unshare -m sh -c 'mount --bind {words['DEMO_ROOT']} /host && "
            f"exec {ETCD_DR} --node-name {words['DEMO_NODE']} \"$@\"' sh \"$@\"\n"
        )
        wrapper.chmod(0o755)
        subprocess.run([wrapper, "--root", "/host", "backup"], check=True, capture_output=True)
        # The other members are gone with their disks, and this one's data.
        print("lose", file=demo.stdin, flush=True)
        while "DEMO_LOST" not in demo.stdout.readline():
            pass
        with Screen(150, 100, wrapper.parent) as screen:
            screen.type("etcd-dr --root /host restore latest --dry-run")
            screen.wait("After the restore")
            screen.save("restore-dry-run")
    finally:
        demo.stdin.close()
        demo.wait()
        if made and host.exists():
            host.rmdir()


def shoot(work, bins, bin_dir):
    """Takes all pictures."""
    etcdctl = [bins / "etcdctl", "--endpoints", URL, "--dial-timeout", "30s"]
    value = base64.b64encode(os.urandom(90_000)).decode()
    for number in range(40):
        subprocess.run([*etcdctl, "put", f"/registry/secrets/s{number}"], input=value, text=True,
                       check=True, capture_output=True)
    with Screen(110, 24, bin_dir) as screen:
        screen.type("etcd-dr backup --force --max-rate 1MiB")
        screen.wait("[====")
        screen.save("progress")
        screen.wait("SHA256SUMS")
    for _ in range(2):
        subprocess.run([*etcdctl, "put", "more", "x"], check=True, capture_output=True)
        subprocess.run([bin_dir / "etcd-dr", "backup", "--force"], check=True, capture_output=True)
    broken = next((work / "store/backup-2").glob("snapshot_*.db"))
    with open(broken, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"a page that was overwritten" * 8)
    with Screen(110, 32, bin_dir) as screen:
        screen.type("etcd-dr verify backup-2")
        screen.wait("largest prefixes")
        screen.save("verify-broken")
    with Screen(110, 32, bin_dir) as screen:
        screen.type("etcd-dr verify latest")
        screen.wait("largest prefixes")
        screen.save("verify")
    with Screen(110, 16, bin_dir) as screen:
        screen.type(f"cd {work}; clear")
        screen.wait_clear()
        screen.type("etcd-dr restore latest --data-dir drill")
        screen.wait("revision")
        screen.save("restore")
    with Screen(110, 12, bin_dir) as screen:
        screen.type("etcd-dr list")
        screen.wait("backup-3")
        screen.save("list")


main()
