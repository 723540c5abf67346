#!/usr/bin/env python3
"""Roll-forward beside etcd's own replay of the same WAL tail, and what a recorder costs beside etcd under load: the
table "moments" of docs/performance-tables.md.

    scripts/bench-moments.py [--entries 80000] [--rate 500] [--seconds 20] [--rounds 3] [--write]
    scripts/bench-moments.py --million fill|change|measure [--mib 2048] [--changes 1000000] [--rounds 3] [--write]

    --entries  writes in the tail, 1,900 bytes each; fewer than the 100,000 after which etcd snapshots its raft state
               and needs the database to be as new
    --rate     writes a second, 5,000 bytes each, beside the recorder
    --seconds  how long one run with or without the recorder lasts
    --million  the table "million" instead: many small changes onto a large database, in three steps that may be run at
               different times: `fill` makes the database, `change` the WAL's tail, both kept in --scratch; `measure`
    --write    writes the table

Replay: a member's database is put back to where it was before the tail, and etcd is started: until it is healthy. Roll-forward: the
same data directory and a snapshot from then. Both have their input in the page cache. Pairs of runs with and without a
recorder take turns at being first. etcd and etcdctl come from ETCD_DR_ETCD_BINS (a folder) or PATH; etcd-dr is
target/release/etcd-dr or ETCD_DR.
"""

import argparse
import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import threading
import time

import bench_million
from bench_measure import ROOT, one, tool, warm
from bench_server import Server
from bench_tables import publish

ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")
TAIL_VALUE, LOAD_VALUE = 1900, 5000
WRITERS = 8


def encoded(data):
    return base64.b64encode(data).decode()


def put(connection, key, value):
    """One put through etcd's gateway: the seconds that it took."""
    body = json.dumps({"key": encoded(key), "value": value})
    start = time.monotonic()
    connection.request("POST", "/v3/kv/put", body)
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"a put failed: {response.status}")
    return time.monotonic() - start


def load(port, count, size, rate=None):
    """So many puts by several writers, at a rate or as fast as they go: what each took."""
    took, lock = [], threading.Lock()
    start = time.monotonic()

    def writer(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        own = []
        for i in range(number, count, WRITERS):
            if rate:
                time.sleep(max(0.0, start + i / rate - time.monotonic()))
            value = encoded(os.urandom(size))
            own.append(put(connection, f"/registry/bench/{i % 20000}".encode(), value))
        with lock:
            took.extend(own)

    writers = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    if len(took) != count:
        raise SystemExit("a writer failed")
    return took


def cpu_of(pid):
    """Seconds of CPU that a process has taken so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def replay(scratch, asked):
    """Rows: etcd's start with the tail to replay, and etcd-dr's roll-forward of it."""
    data, snapshot = scratch / "data", scratch / "snapshot.db"
    with Server(data) as server:
        load(server.ports["plain"], 1000, TAIL_VALUE)
        one([tool("etcdctl"), *server.access("plain"), "snapshot", "save", snapshot],
            env={**os.environ, "ETCDCTL_API": "3"})
    early = scratch / "early.db"
    shutil.copy(data / "member/snap/db", early)
    with Server(data) as server:
        load(server.ports["plain"], asked.entries, TAIL_VALUE)
    starts, rolls = [], []
    for number in range(asked.rounds + 1):
        again, made = scratch / "again", scratch / "made"
        shutil.copytree(data, again)
        shutil.copy(early, again / "member/snap/db")
        warm(again)
        with Server(again) as server:
            start = server.seconds
        shutil.rmtree(again)
        warm(data)
        roll = one([ETCD_DR, "--progress", "never", "restore", snapshot, "--data-dir", made, "--roll-forward", data,
                    "--bump-revision", "0", "-o", "json"])
        applied = json.loads(roll["text"])["rollForward"]["entries"]
        if applied < asked.entries:
            raise SystemExit(f"{applied} entries of {asked.entries} were applied")
        shutil.rmtree(made)
        if number:
            starts.append(start)
            rolls.append(roll)
    ours = statistics.median(roll["wall"] for roll in rolls)
    theirs = statistics.median(starts)
    memory = max(roll["rss"] for roll in rolls)
    what = f"{asked.entries:,} writes of {TAIL_VALUE:,} bytes"
    return [[f"etcd's start, which replays {what}, s", f"{theirs:.2f}", "", ""],
            ["`restore --roll-forward` of the same WAL, s", f"{ours:.2f}", f"{ours / theirs:.2f}", f"{memory:.0f}"]]


def recording(scratch, asked):
    """Rows: the p99 of writes and etcd's CPU with and without a recorder, and the recorder's own."""
    root = scratch / "root"
    root.mkdir()
    runs = {False: [], True: []}
    cores, memory = [], []
    data = scratch / "load"
    with Server(data) as server:
        port = server.ports["plain"]
        load(port, 2000, LOAD_VALUE)
        for number in range(asked.rounds + 1):
            order = [False, True] if number % 2 else [True, False]
            for with_recorder in order:
                store = scratch / f"store-{number}"
                recorder = None
                if with_recorder:
                    recorder = subprocess.Popen(
                        [ETCD_DR, "record", store, "--root", root, "--profile", "bare", *server.access("plain")],
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    time.sleep(3)
                cpu = server.cpu()
                own = cpu_of(recorder.pid) if recorder else 0.0
                start = time.monotonic()
                took = load(port, asked.rate * asked.seconds, LOAD_VALUE, asked.rate)
                elapsed = time.monotonic() - start
                used = (server.cpu() - cpu) / elapsed
                if recorder:
                    status = pathlib.Path(f"/proc/{recorder.pid}/status").read_text().splitlines()
                    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
                    core = (cpu_of(recorder.pid) - own) / elapsed
                    recorder.send_signal(signal.SIGTERM)
                    if recorder.wait(timeout=60):
                        raise SystemExit("the recorder failed")
                    if not list((store / "changes").rglob("*.changes")):
                        raise SystemExit("the recorder sealed nothing")
                    shutil.rmtree(store)
                if number:
                    runs[with_recorder].append((statistics.quantiles(took, n=100)[98], used))
                    if recorder:
                        cores.append(core)
                        memory.append(peak)
    median = {key: [statistics.median(run[at] for run in some) for at in (0, 1)] for key, some in runs.items()}
    ratios = [with_it[0] / without[0] for with_it, without in zip(runs[True], runs[False])]
    load_of = f"{asked.rate} writes/s of {LOAD_VALUE:,} bytes"
    core = f"{100 * statistics.median(cores):.1f} % of a core"
    return [[f"{load_of}: p99 of etcd alone, ms", f"{1000 * median[False][0]:.2f}", "", ""],
            ["beside a recorder, ms (ratio of pairs)", f"{1000 * median[True][0]:.2f}",
             f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", ""],
            ["etcd's cores, alone and beside a recorder", f"{median[False][1]:.2f}, {median[True][1]:.2f}",
             f"{median[True][1] / median[False][1]:.2f}", ""],
            [f"the recorder: {core}", f"{statistics.median(cores):.3f}", "", f"{max(memory):.0f}"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=80_000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", choices=["fill", "change", "measure"])
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target/bench/moments")
    asked = parser.parse_args()
    scratch = asked.scratch.resolve()
    if asked.million:
        bench_million.run(scratch, asked, ETCD_DR)
        return
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    busy = os.getloadavg()[0]
    try:
        rows = replay(scratch, asked) + recording(scratch, asked)
    finally:
        shutil.rmtree(scratch)
    publish("performance-tables.md", "moments", ["operation", "figure", "ratio", "peak MiB"], rows, asked, busy)


main()
