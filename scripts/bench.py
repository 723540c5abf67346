#!/usr/bin/env python3
"""Every figure of docs/performance-tables.md: etcd-dr beside etcdctl, etcdutl, sha256sum, openssl, tar, cp and
rclone (where it is installed), in turn, on one machine, in one run, at several sizes.

    scripts/bench.py [--sizes 256,1024,4096] [--rounds 3] [--keys 1,5] [--write]

    --sizes    MiB of the databases: revisions of 1,900 bytes, each of another key, on pages in a
               scattered order; 8192 too where there are 25 GiB of disk. From 4096 on two rounds
               are made, from 8192 on one, with none before them
    --keys     millions of small keys, for the memory that they take
    --rounds   measured rounds; one more goes first
    --write    writes the tables of docs/performance.md and docs/performance-tables.md, and docs/performance.json
    --from F   measures nothing and makes the tables of such a file

What is measured goes to target/bench/result.json. Each round runs all programs in another order,
after a `sync`, with their input in the page cache. etcd, etcdctl and etcdutl come from
ETCD_DR_ETCD_BINS (a folder) or PATH; etcd-dr is target/release/etcd-dr or ETCD_DR; MAKE_STORE is
the example that writes the databases.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import bench_server
import bench_tables
from bench_measure import ROOT, one, several, tool, warm

ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")
MAKE_STORE = os.environ.get("MAKE_STORE", ROOT / "target/release/examples/make_store")
# Of a revision: the value, and the part of a page that it takes, from the two of them that fit.
VALUE, SHARE = 1900, 2048
SMALL = 150
MIB = 1 << 20
# Where the tables are.
PAGES = ["performance.md", "performance-tables.md"]


class Bench:
    def __init__(self, scratch, rounds):
        self.scratch, self.rounds, self.rows = scratch, rounds, []

    def measure(self, section, size, programs, before=None, after=None, mode=""):
        """Runs each program in each round, and keeps a row of figures for each of them."""
        rows = {name: [] for name in programs}
        first = 0 if size < 4096 else 1
        rounds = 1 if size >= 8192 else 2 if size >= 4096 else self.rounds
        for number in range(first, rounds + 1):
            names = list(programs)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                if before:
                    before()
                result = programs[name]()
                if after:
                    result |= after(name, result) or {}
                result.pop("text", None)
                if number:
                    rows[name].append(result)
        for name, results in rows.items():
            keys = {key for result in results for key in result}
            row = {"section": section, "mode": mode, "size": size, "tool": name}
            self.rows.append(row | {key: [round(r[key], 4) for r in results] for key in keys})
            print(f"{size:6} MiB  {section:8} {mode:5} {name:24} "
                  f"{sorted(r['wall'] for r in results)[len(results) // 2]:8.2f} s  "
                  f"{max(r['rss'] for r in results):6.0f} MiB", flush=True)

    def store(self, name, revisions, value):
        path = self.scratch / f"{name}.db"
        one([MAKE_STORE, path, revisions, revisions, value])
        return path

    def verify(self, size, db, section="verify"):
        status = [tool("etcdutl"), "snapshot", "status", db, "-w", "json"]
        facts = {}

        def ours():
            done = one([ETCD_DR, "--progress", "never", "verify", db, "-o", "json"])
            facts.update(json.loads(done["text"])["sets"][0]["database"]["facts"])
            return done

        self.measure(section, size, {
            "sha256sum": lambda: one(["sha256sum", db]),
            "openssl": lambda: one(["openssl", "dgst", "-sha256", db]),
            "etcdutl": lambda: one(status),
            "etcd-dr": ours,
        }, before=lambda: warm(db))
        self.rows[-1]["keys"] = int(facts["distinctKeys"])

    def restore(self, size, db):
        target = self.scratch / "restored"
        data = target / "data"
        plain = ["--data-dir", data, "--initial-cluster-token", "bench"]
        ours = [ETCD_DR, "--progress", "never", "restore", db, *plain, "--bump-revision", "0",
                "--store", target / "none"]

        def clear():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            warm(db)

        def serve(name, _):
            if name in ("cp + fsync", "etcd-dr, compact"):
                return None
            with bench_server.Server(data) as server:
                return {"serves": server.seconds}

        self.measure("restore", size, {
            "cp + fsync": lambda: several(["mkdir", data], ["cp", db, data / "db"],
                                          ["sync", data / "db", data]),
            "etcdutl": lambda: one([tool("etcdutl"), "snapshot", "restore", db, *plain]),
            "etcd-dr": lambda: one(ours),
            "etcd-dr, compact": lambda: one([*ours, "--compact"]),
        }, before=clear, after=serve)
        # What the server of the next measurement has.
        clear()
        one(ours)
        return data

    def backup(self, size, data, node, tls):
        """Leaves a set in `store`, taken without TLS."""
        out, resources = self.scratch / "out", node / "etc/kubernetes"

        def clear():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()

        with bench_server.Server(data, tls) as server:
            for mode in ("plain", "tls"):
                access = server.access(mode)
                save = [tool("etcdctl"), "--command-timeout=900s", *access, "snapshot", "save", out / "snapshot.db"]
                store = out / "store"
                ours = [ETCD_DR, "--progress", "never", "-o", "json", "--root", node, "--node-name",
                        "master-0", *access, "backup", "--force", store]
                by_hand = [
                    save,
                    ["tar", "-C", resources, "-czf", out / "resources.tar.gz", "static-pod-resources"],
                    [tool("etcdutl"), "snapshot", "status", out / "snapshot.db"],
                    ["sha256sum", out / "snapshot.db", out / "resources.tar.gz"],
                    ["sync", out / "snapshot.db", out / "resources.tar.gz", out],
                ]

                def with_server(run):
                    def measured():
                        before = server.cpu()
                        done = run()
                        return done | {"server": server.cpu() - before}
                    return measured

                def unchecked(name, done):
                    if name != "etcd-dr":
                        return {"unchecked": done["wall"]}
                    seconds = json.loads(done["text"][done["text"].index("{"):])["seconds"]
                    return {"unchecked": done["wall"] - seconds["check"], "archives": seconds["archives"]}

                self.measure("backup", size, {
                    "etcdctl": with_server(lambda: one(save)),
                    "by hand": with_server(lambda: several(*by_hand)),
                    "etcd-dr": with_server(lambda: one(ours)),
                }, before=clear, after=unchecked, mode=mode)
            clear()
            one([str(word) for word in ours])
        return store

    def sets(self, size, store):
        """A set checked, and copied to another folder."""
        taken = store / "backup-1"
        snapshot, archive = next(taken.glob("*.db")), next(taken.glob("static_kube*.tar.gz"))
        self.measure("set", size, {
            "by hand": lambda: several(
                ["sha256sum", "-c", "--quiet", "SHA256SUMS"],
                [tool("etcdutl"), "snapshot", "status", snapshot],
                ["tar", "-tzf", archive], cwd=taken),
            "etcd-dr": lambda: one([ETCD_DR, "--progress", "never", "verify", "--store", store, "backup-1"]),
        }, before=lambda: warm(taken))
        to = self.scratch / "copied"

        def clear():
            shutil.rmtree(to, ignore_errors=True)
            to.mkdir()
            warm(taken)

        copied = to / "backup-1"
        programs = {
            "cp + fsync": lambda: several(["cp", "-r", taken, copied], ["sync", "-f", copied]),
            "etcd-dr": lambda: one([ETCD_DR, "--progress", "never", "copy", "--store", store, "backup-1",
                                    f"file://{to}"]),
        }
        here = ROOT / ".cache/rclone/usr/bin/rclone"
        if rclone := here if here.is_file() else shutil.which("rclone"):
            programs["rclone + fsync"] = lambda: several(
                [rclone, "copy", "--config", "", taken, copied], ["sync", "-f", copied])
        self.measure("copy", size, programs, before=clear)


def machine(rounds):
    first = lambda command: subprocess.check_output(command, text=True).splitlines()[0]
    cpu = [line for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "etcd-dr": first([str(ETCD_DR), "--version"]).removeprefix("etcd-dr "),
        "etcd": first([tool("etcd"), "--version"]).removeprefix("etcd Version: "),
        "cpu": (cpu[0].split(":")[1].strip() if cpu else platform.machine()),
        "cpus": os.cpu_count(),
        "kernel": platform.release().split("-")[0],
        "load": round(os.getloadavg()[0], 1),
        "rounds": rounds,
    }


def perform(asked):
    scratch = asked.scratch.resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    need = 3.1 * max(asked.sizes, default=0) * MIB
    if shutil.disk_usage(scratch).free < need:
        sys.exit(f"{need / (1 << 30):.0f} GiB are needed in {scratch}")
    result = {"machine": machine(asked.rounds)}
    bench = Bench(scratch, asked.rounds)
    tls, node = scratch / "tls", scratch / "node"
    try:
        bench_server.certificates(tls)
        one([sys.executable, ROOT / "fixtures/make-node.py", "--nodes", "master-0=127.0.0.1", node])
        for size in asked.sizes:
            db = bench.store("sized", size * MIB // SHARE, VALUE)
            bench.verify(size, db)
            data = bench.restore(size, db)
            db.unlink()
            store = bench.backup(size, data, node, tls)
            shutil.rmtree(data.parent)
            bench.sets(size, store)
            for folder in ("out", "copied"):
                shutil.rmtree(scratch / folder)
        for millions in asked.keys:
            db = bench.store("keys", int(millions * 1_000_000), SMALL)
            bench.verify(db.stat().st_size // MIB, db, "keys")
            db.unlink()
    finally:
        shutil.rmtree(scratch)
    return result | {"rows": bench.rows}


def main():
    numbers = lambda kind: lambda text: [kind(word) for word in text.split(",") if word]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers(int), default=[256, 1024, 4096])
    parser.add_argument("--keys", type=numbers(float), default=[1, 5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--from", dest="source", type=pathlib.Path)
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target/bench/scratch")
    asked = parser.parse_args()
    if asked.source:
        result = json.loads(asked.source.read_text())
    else:
        result = perform(asked)
        kept = ROOT / "target/bench/result.json"
        kept.write_text(json.dumps(result, indent=1) + "\n")
    tables = bench_tables.make(result)
    if asked.write:
        bench_tables.write([ROOT / "docs" / page for page in PAGES], tables)
        (ROOT / "docs/performance.json").write_text(json.dumps(result, indent=1) + "\n")
    else:
        print("\n\n".join(tables.values()))


main()
