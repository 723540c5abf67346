#!/usr/bin/env python3
"""Measures copies to and from a store beside rclone, in turn, on one real S3 server on this machine.

A backup of about a gigabyte (the fixture with a snapshot of noise) goes to s3s-fs and comes back, by
`etcd-dr copy` and by `rclone copy`, in changing order, each after a `sync`; one unmeasured round goes
first. Both send parts of several MiB, four at a time; rclone's options are its own defaults but for one
(below). Printed are
medians of wall time with their range and ratio, CPU time of the tool and of the server meanwhile, and the
largest resident set. Then `list`, of a local store with many sets and of the same number in the bucket: the first
listing of the bucket writes its catalog, the others read it.

    scripts/bench-stores.py [--rounds 5] [--size-mib 1000] [--sets 1000] [--write]      (0 rounds: only `list`)

    --write    writes the tables "stores" and "lists" of docs/performance-tables.md

s3s-fs and rclone: from .cache, where scripts/fetch-servers.sh --more lays them. etcd-dr:
target/release/etcd-dr, or ETCD_DR=/path/to/etcd-dr.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from bench_measure import ROOT, free_port, one
from bench_tables import table, write

CACHE = pathlib.Path(os.environ.get("ETCD_DR_CACHE", ROOT / ".cache"))
ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")
# One stream a file on the way back.
RCLONE = [CACHE / "rclone/usr/bin/rclone", "--multi-thread-streams", "0"]
FIXTURE = ROOT / "fixtures/store/backup-1"
KEY, SECRET, BUCKET = "AKIABENCHBENCHBENCHB", "secretsecretsecretsecretsecret", "backups"


class Server:
    def __init__(self, root):
        program = CACHE / "s3s/bin/s3s-fs"
        if not program.is_file():
            sys.exit("no s3s-fs here: run scripts/fetch-servers.sh --more")
        (root / BUCKET).mkdir(parents=True)
        self.port = free_port()
        self.process = subprocess.Popen(
            [program, "--host", "127.0.0.1", "--port", str(self.port), "--access-key", KEY,
             "--secret-key", SECRET, root],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("s3s-fs does not listen")

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment(port):
    """What leads both tools to the server, and nothing of the caller's."""
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")
                 or name.startswith(("AWS_", "ETCD_DR_", "RCLONE_"))]:
        del os.environ[name]
    endpoint = f"http://127.0.0.1:{port}"
    # rclone takes no bundle of CAs from there, and there is no TLS here.
    os.environ.pop("AWS_CA_BUNDLE", None)
    os.environ.update({
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1", "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S_TYPE": "s3",
        "RCLONE_CONFIG_S_PROVIDER": "Other", "RCLONE_CONFIG_S_ENDPOINT": endpoint,
        "RCLONE_CONFIG_S_REGION": "us-east-1", "RCLONE_CONFIG_S_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": SECRET})


def make_set(store, mib):
    """The fixture's set with a snapshot of so much noise."""
    folder = store / "backup-1"
    shutil.copytree(FIXTURE, folder)
    manifest = json.loads((folder / "backup.json").read_text())
    rng = random.Random(3)
    for file in manifest["files"]:
        if file["kind"] == "snapshot":
            digest = hashlib.sha256()
            with open(folder / file["name"], "wb") as out:
                for _ in range(mib):
                    piece = rng.randbytes(1 << 20)
                    digest.update(piece)
                    out.write(piece)
            file["size"], file["sha256"] = mib << 20, digest.hexdigest()
    (folder / "backup.json").write_text(json.dumps(manifest))
    return folder


def place(listed):
    return json.loads(listed)["sets"][0]["name"]


def transfers(work, server, mib, rounds):
    store = work / "store"
    folder = make_set(store, mib)
    quiet = [ETCD_DR, "--progress", "never"]
    results = {}
    for number in range(rounds + 1):
        tools = ["etcd-dr", "rclone"] if number % 2 else ["rclone", "etcd-dr"]
        for direction in ("up", "down"):
            for name in tools:
                url = f"s3://{BUCKET}/etcd-dr"
                back = work / "back"
                shutil.rmtree(back, ignore_errors=True)
                if direction == "up":
                    shutil.rmtree(work / "root" / BUCKET / name, ignore_errors=True)
                    command = {"etcd-dr": [*quiet, "copy", "backup-1", url, "--store", store],
                               "rclone": [*RCLONE, "copy", folder, f"s:{BUCKET}/rclone"]}[name]
                elif name == "etcd-dr":
                    listed = subprocess.check_output([*quiet, "list", url, "-o", "json"], text=True)
                    command = [*quiet, "copy", f"{url}/{place(listed)}", back]
                else:
                    # Without the last slash it asks for an object of that name first, ten times and waiting.
                    command = [*RCLONE, "copy", f"s:{BUCKET}/rclone/", back]
                os.sync()
                before = server.cpu()
                result = one(command)
                result["server"] = server.cpu() - before
                if direction == "down":
                    found = next(back.rglob("snapshot_*.db"))
                    if found.stat().st_size != mib << 20:
                        sys.exit(f"{name} brought {found.stat().st_size} bytes")
                if number:
                    results.setdefault((direction, name), []).append(result)
    shutil.rmtree(work / "back")
    lines = []
    for (direction, name), runs in sorted(results.items(), reverse=True):
        walls = [run["wall"] for run in runs]
        middle = statistics.median(walls)
        pairs = [ours["wall"] / theirs["wall"]
                 for ours, theirs in zip(runs, results[direction, "rclone"])]
        ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
        median = lambda key: statistics.median(run[key] for run in runs)
        lines.append([direction, name, f"{middle:.2f} ({min(walls):.2f}-{max(walls):.2f})", f"{mib / middle:.0f}",
                      "1" if name == "rclone" else ratio, f"{median('cpu'):.2f}", f"{median('server'):.2f}",
                      f"{max(run['rss'] for run in runs):.0f}"])
    return table(["", "program", "s", "MiB/s", "ratio", "CPU s", "server's CPU s", "peak MiB"], lines)


def listings(work, server, sets):
    """Many sets in a local store, and as many in a bucket; all are hard links to one."""
    store = work / "many"
    for number in range(1, sets + 1):
        shutil.copytree(FIXTURE, store / f"backup-{number}", copy_function=os.link)
    quiet = [ETCD_DR, "--progress", "never"]
    url = f"s3://{BUCKET}/many"
    subprocess.run([*quiet, "copy", "backup-1", url, "--store", store], check=True,
                   stdout=subprocess.DEVNULL)
    first = next((work / "root" / BUCKET / "many").glob("*/*/backup-1"))
    for number in range(2, sets + 1):
        shutil.copytree(first, first.parent / f"backup-{number}", copy_function=os.link)
    lines = []
    for what, command in (("a directory", [*quiet, "list", store, "-o", "json"]),
                          ("a bucket", [*quiet, "list", url, "-o", "json"])):
        before = server.cpu()
        first, *runs = [one(command) for _ in range(6)]
        meanwhile = (server.cpu() - before) / 6
        found = len(json.loads(runs[0]["text"])["sets"])
        if found != sets:
            sys.exit(f"{what} lists {found} sets")
        walls = [run["wall"] for run in runs]
        lines.append([f"`list` of {what}", f"{sets:,}", f"{first['wall']:.2f}",
                      f"{statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})",
                      f"{statistics.median(run['cpu'] for run in runs):.2f}", f"{meanwhile:.2f}",
                      f"{max(run['rss'] for run in runs):.0f}"])
    return table(["operation", "backups", "first s", "then s", "CPU s", "server's CPU s", "peak MiB"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mib", type=int, default=1000)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    bench = CACHE / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    made = {}
    with tempfile.TemporaryDirectory(dir=bench, prefix="stores-") as work:
        work = pathlib.Path(work)
        server = Server(work / "root")
        try:
            environment(server.port)
            load = os.getloadavg()[0]
            if arguments.rounds:
                version = subprocess.check_output([*RCLONE, "version"], text=True).splitlines()[0]
                print(f"{version}, {os.cpu_count()} CPUs, load {load:.1f}, "
                      f"{arguments.size_mib} MiB, median of {arguments.rounds}")
                made["stores"] = transfers(work, server, arguments.size_mib, arguments.rounds)
                made["stores"] += f"\n\n{arguments.size_mib} MiB, medians of {arguments.rounds} rounds, {version}."
            made["lists"] = listings(work, server, arguments.sets)
        finally:
            server.process.kill()
            server.process.wait()
    for name in made:
        made[name] += f"\n\nMeasured {datetime.date.today()}, load {load:.1f} before it."
    if arguments.write:
        write([ROOT / "docs/performance-tables.md"], made)
    print("\n\n".join(made.values()))


main()
