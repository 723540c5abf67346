#!/usr/bin/env python3
"""Measures the making of a data directory beside the tools that it replaces, in turn, on one machine.

The database, of about 1.3 GB, comes from a real etcd as `bench-verify.py` fills it, and is kept under
.cache/bench for the next time. Each round runs, in changing order, after a `sync` and with the
snapshot in the page cache:

    cp + fsync      the same file copied and made durable: the floor
    etcdutl         snapshot restore, which makes nothing durable but its log
    etcd-dr         restore --data-dir
    etcd-dr compact restore --data-dir --compact

One unmeasured round goes first. Printed are medians of wall time with their range and ratios, CPU
time, and the largest resident set; then how long a real etcd takes from there until it serves.

    scripts/bench-restore.py [--rounds 5] [--file small]

etcd, etcdctl and etcdutl: from ETCD_DR_ETCD_BINS (a folder) or PATH. What is measured:
target/release/etcd-dr, or ETCD_DR=/path/to/etcd-dr.
"""

import argparse
import importlib.util
import http.client
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache/bench"
ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")

spec = importlib.util.spec_from_file_location("verify", ROOT / "scripts/bench-verify.py")
verify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)


def commands(snapshot, target):
    plain = ["--data-dir", target / "data", "--initial-cluster-token", "bench"]
    ours = [ETCD_DR, "--progress", "never", "restore", snapshot, *plain,
            "--bump-revision", "0", "--store", target / "none"]
    return {
        "cp + fsync": ["sh", "-c", 'mkdir "$2" && cp "$1" "$2/db" && sync "$2/db"', "sh",
                       snapshot, target / "data"],
        "etcdutl": [verify.tool("etcdutl"), "snapshot", "restore", snapshot, *plain],
        "etcd-dr": ours,
        "etcd-dr compact": [*ours, "--compact"],
    }


def measure(command, snapshot):
    with open(snapshot, "rb") as file:
        while file.read(1 << 24):
            pass
    os.sync()
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        if status:
            out.seek(0)
            raise SystemExit(out.read().decode())
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def until_serving(data):
    """Seconds from etcd's start until it is healthy."""
    port, peer = verify.free_port(), verify.free_port()
    start = time.monotonic()
    process = subprocess.Popen(
        [verify.tool("etcd"), "--data-dir", data, "--quota-backend-bytes", str(8 << 30),
         "--listen-client-urls", f"http://127.0.0.1:{port}",
         "--advertise-client-urls", f"http://127.0.0.1:{port}",
         "--listen-peer-urls", f"http://127.0.0.1:{peer}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.monotonic() < start + 120:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return time.monotonic() - start
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("etcd did not become healthy within two minutes")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--file", default="small")
    arguments = parser.parse_args()
    (CACHE / "verify").mkdir(parents=True, exist_ok=True)
    snapshot = verify.database(arguments.file, CACHE / "verify")
    target = CACHE / "restore"
    results = {}
    serving = {}
    for number in range(arguments.rounds + 1):
        names = list(commands(snapshot, target))
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            result = measure(commands(snapshot, target)[name], snapshot)
            if number:
                results.setdefault(name, []).append(result)
                if name != "cp + fsync":
                    serving.setdefault(name, []).append(until_serving(target / "data"))
    shutil.rmtree(target)
    size = snapshot.stat().st_size / (1 << 20)
    print(f"{snapshot.name}, {size:.0f} MiB, {arguments.rounds} rounds")
    print("| | wall s (range) | of cp + fsync | of etcdutl | CPU s | peak MiB | etcd serves after, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    middle = {name: statistics.median(r[0] for r in rounds) for name, rounds in results.items()}
    for name, rounds in results.items():
        walls = [r[0] for r in rounds]
        serves = serving.get(name)
        total = f"{middle[name] + statistics.median(serves):.2f}" if serves else ""
        print(f"| {name} | {middle[name]:.2f} ({min(walls):.2f}-{max(walls):.2f}) "
              f"| {middle[name] / middle['cp + fsync']:.2f} | {middle[name] / middle['etcdutl']:.2f} "
              f"| {statistics.median(r[1] for r in rounds):.2f} | {max(r[2] for r in rounds):.0f} "
              f"| {total} |")


main()
