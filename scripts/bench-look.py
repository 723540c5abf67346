#!/usr/bin/env python3
"""How long `diff` and `get` take on large databases, and how much memory: the table "look" of docs/performance.md.

    scripts/bench-look.py [--size 2048] [--rounds 3] [--write]

    --size     MiB of each database: objects of 1,900 bytes, a revision each; of the second one, every hundredth object has
               another one. Twice that is needed on the disk, and a little for sorted keys
    --write    writes the table

Databases are in the page cache. etcd-dr is target/release/etcd-dr or ETCD_DR; MAKE_STORE is the example that writes databases.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics

from bench_measure import ROOT, one, warm
from bench_tables import publish

ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")
MAKE_STORE = os.environ.get("MAKE_STORE", ROOT / "target/release/examples/make_store")
# Of a revision: the value, and the part of a page that it takes, from the two of them that fit.
VALUE, SHARE = 1900, 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target/bench/look")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    scratch = asked.scratch.resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    keys = (asked.size << 20) // SHARE
    before, after = scratch / "before.db", scratch / "after.db"
    ours = [ETCD_DR, "--progress", "never"]
    more = ["--scratch", scratch, "-o", "json"]
    # The first revision of all is the last that a search from the end meets.
    oldest = ["configmaps/object-name-000000003", "-n", "namespace-003"]
    runs = [
        (f"`diff` of two, {keys // 100:,} of {keys:,} objects differ", 11, [*ours, "diff", before, after, *more]),
        ("`get`, numbers of all kinds", 0, [*ours, "get", before, *more]),
        ("`get` of the object that changed last", 0,
         [*ours, "get", after, "configmaps/object-name-000000003", "-n", "namespace-003", "-o", "yaml"]),
        ("`get` of the object that did not change for longest", 0, [*ours, "get", before, *oldest, "-o", "yaml"]),
    ]
    try:
        one([MAKE_STORE, before, keys, keys, VALUE])
        one([MAKE_STORE, after, keys + keys // 100, keys, VALUE])
        rows = []
        for what, status, command in runs:
            warm(before)
            warm(after)
            done = [one(command, status) for _ in range(asked.rounds)]
            if status == 11:
                shown = json.loads(done[0]["text"])
                assert shown["counts"]["changed"] == keys // 100 * 4 // 5, shown["counts"]
            wall = statistics.median(each["wall"] for each in done)
            cpu = statistics.median(each["cpu"] for each in done)
            peak = max(each["rss"] for each in done)
            rows.append([what, str(asked.size), f"{wall:.2f}", f"{cpu:.2f}", f"{peak:.0f}"])
    finally:
        shutil.rmtree(scratch)
    publish("performance.md", "look", ["operation", "MiB", "s", "CPU s", "peak MiB"], rows, asked, load)


main()
