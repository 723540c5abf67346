#!/usr/bin/env python3
"""Every figure of docs/performance-tables.md: etcd-dr beside etcdctl, etcdutl, sha256sum, openssl, tar, cp and
rclone (where it is installed), in turn, on one machine.

    scripts/bench.py [--parts backup,verify,...] [--sizes 256,1024,4096] [--rounds 3] [--keys 1,5] [--write [--add]]
    scripts/bench.py --estimate [the same options]

    --parts    backup    a whole backup, plain and with mutual TLS, beside `etcdctl snapshot save` and beside the same by hand
               verify    a snapshot, beside openssl and etcdutl
               restore   to a data directory, with --compact and without, beside etcdutl
               copy      a backup verified, and copied to a directory, beside rclone
               keys      verify, with millions of tiny objects
               objects   backup and verify of 350,000 objects as long as Kubernetes' are
               latency   how long etcd's own writes take during a backup
               stores    copies to a bucket and back, and `list` of 1,000 backups (scripts/bench-stores.py)
               look      diff and get on 2 GiB (scripts/bench-look.py)
               moments   a WAL's tail applied, beside etcd's own replay of it; what a recorder costs (scripts/bench-moments.py)
               all of them, if none is named
    --sizes    MiB of the databases of the first four and of latency: revisions of 1,900 bytes, each of another key, on
               pages in a scattered order; 8192 too where there are 25 GiB of disk. From 4096 on two rounds
               are made, from 8192 on one, with none before them
    --keys     millions of tiny objects, of 150 bytes
    --objects  how many, instead of 350,000
    --rounds   measured rounds; one more goes first
    --write    writes the tables of docs/performance.md and docs/performance-tables.md, and docs/performance.json
    --add      what was written before and is not measured now stays in these tables; each table has its own dates
    --estimate prints how long each part takes on two quiet cores, and ends
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
import time

import bench_server
import bench_tables
from bench_measure import ROOT, one, several, tool, warm

ETCD_DR = os.environ.get("ETCD_DR", ROOT / "target/release/etcd-dr")
MAKE_STORE = os.environ.get("MAKE_STORE", ROOT / "target/release/examples/make_store")
CACHE = pathlib.Path(os.environ.get("ETCD_DR_CACHE", ROOT / ".cache"))
# Of a revision: the value, and the part of a page that it takes, from the two of them that fit.
VALUE, SHARE = 1900, 2048
SMALL = 150
OBJECTS_MIB = 1250
MIB = 1 << 20
# Where the tables are.
PAGES = ["performance.md", "performance-tables.md"]
# Seconds on two quiet cores: of one round for each GiB, and besides (databases, etcd's starts).
SIZED = {"backup": (42, 12), "verify": (10, 0), "restore": (17, 8), "copy": (17, 2), "latency": (15, 6)}
FIXED = {"objects": 150, "stores": 150, "look": 80, "moments": 270}
PARTS = ["backup", "verify", "restore", "copy", "keys", "objects", "latency", "stores", "look",
         "moments"]


def rounds_of(size, rounds):
    """The number of the first round, where 0 is not measured, and of the last."""
    return (0 if size < 4096 else 1), (1 if size >= 8192 else 2 if size >= 4096 else rounds)


def estimate(part, size, asked):
    """Seconds that a part takes at a size."""
    if part in FIXED:
        return FIXED[part]
    if part == "keys":
        return sum(10 + 12 * millions * (asked.rounds + 1) / 5 + 3 * millions for millions in asked.keys)
    first, last = rounds_of(size, asked.rounds)
    each, besides = SIZED[part]
    return (each * (last - first + 1) + besides) * max(size / 1024, 0.3)


def tell(part, size, asked):
    where = f" at {size} MiB" if part in SIZED else ""
    print(f"# {part}{where}: about {estimate(part, size, asked) / 60:.1f} min, "
          f"from {datetime.datetime.now():%H:%M:%S}", flush=True)


class Bench:
    def __init__(self, scratch, asked):
        self.scratch, self.asked, self.rows = scratch, asked, []
        self.date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        self.tls, self.node = scratch / "tls", scratch / "node"

    def measure(self, section, size, programs, before=None, after=None, mode=""):
        """Runs each program in each round, and keeps a row of figures for each of them."""
        rows = {name: [] for name in programs}
        first, last = rounds_of(size, self.asked.rounds)
        for number in range(first, last + 1):
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
            row = {"section": section, "mode": mode, "size": size, "tool": name, "date": self.date}
            self.rows.append(row | {key: [round(r[key], 4) for r in results] for key in keys})
            print(f"{size:6} MiB  {section:8} {mode:13} {name:24} "
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

    def restoring(self, db):
        """The command that restores a database, without its data directory's place, and that place."""
        target = self.scratch / "restored"
        data = target / "data"
        plain = ["--data-dir", data, "--initial-cluster-token", "bench"]
        ours = [ETCD_DR, "--progress", "never", "restore", db, *plain, "--bump-revision", "0",
                "--store", target / "none"]
        return ours, plain, target, data

    def restored(self, db):
        """A data directory for etcd."""
        ours, _, target, data = self.restoring(db)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        one(ours)
        return data

    def restore(self, size, db):
        ours, plain, target, data = self.restoring(db)

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

    def ours(self, access, store):
        return [ETCD_DR, "--progress", "never", "-o", "json", "--root", self.node, "--node-name",
                "master-0", *access, "backup", "--force", store]

    def save(self, access, out):
        return [tool("etcdctl"), "--command-timeout=900s", *access, "snapshot", "save", out / "snapshot.db"]

    def cleared(self):
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        os.sync()
        return out

    def backup(self, size, data, kind=""):
        """`kind` says what the database holds, if it is not the usual."""
        out, resources = self.cleared(), self.node / "etc/kubernetes"
        with bench_server.Server(data, self.tls) as server:
            for mode in ("plain", "tls"):
                access = server.access(mode)
                save, ours = self.save(access, out), self.ours(access, out / "store")
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
                }, before=self.cleared, after=unchecked, mode=f"{kind} {mode}".strip())

    def latency(self, size, data):
        """How long writes of another client take: during nothing, during etcdctl's backup, and during ours."""
        out = self.cleared()
        with bench_server.Server(data, self.tls) as server:
            access = server.access("tls")
            commands = {"no backup": ["sleep", str(max(3, 5 * size // 1024))], "etcdctl": self.save(access, out),
                        "etcd-dr": self.ours(access, out / "store")}

            def during(command):
                def measured():
                    with bench_server.Writes(server) as writes:
                        done = one(command)
                    return done | writes.figures()
                return measured

            self.measure("latency", size, {name: during(command) for name, command in commands.items()},
                         before=lambda: (self.cleared(), time.sleep(1)))

    def taken(self, data):
        """A store with one backup."""
        out = self.cleared()
        with bench_server.Server(data, self.tls) as server:
            one(self.ours(server.access("plain"), out / "store"))
        return out / "store"

    def copy(self, size, data):
        """A set checked, and copied to another folder."""
        store = self.taken(data)
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
        here = CACHE / "rclone/usr/bin/rclone"
        if rclone := here if here.is_file() else shutil.which("rclone"):
            programs["rclone + fsync"] = lambda: several(
                [rclone, "copy", "--config", "", taken, copied], ["sync", "-f", copied])
        else:
            print("SKIPPED rclone: run scripts/fetch-servers.sh --more", file=sys.stderr)
        self.measure("copy", size, programs, before=clear)
        shutil.rmtree(to)

    def sized(self, size):
        """The parts that need a database of a size, each with the same one."""
        parts = [part for part in PARTS if part in SIZED and part in self.asked.parts]
        if not parts:
            return
        db = self.store("sized", size * MIB // SHARE, VALUE)
        for part in ("verify", "restore"):
            if part in parts:
                tell(part, size, self.asked)
                getattr(self, part)(size, db)
        served = [part for part in ("backup", "latency", "copy") if part in parts]
        data = self.restored(db) if served else None
        db.unlink()
        for part in served:
            tell(part, size, self.asked)
            getattr(self, part)(size, data)
        for folder in ("out", "restored"):
            shutil.rmtree(self.scratch / folder, ignore_errors=True)

    def keys(self):
        tell("keys", 0, self.asked)
        for millions in self.asked.keys:
            db = self.store("keys", int(millions * 1_000_000), SMALL)
            self.verify(db.stat().st_size // MIB, db, "keys")
            db.unlink()

    def objects(self):
        tell("objects", 0, self.asked)
        db = self.store("objects", self.asked.objects, "kubernetes")
        size = db.stat().st_size // MIB
        self.verify(size, db, "objects")
        data = self.restored(db)
        db.unlink()
        self.backup(size, data, "objects")
        shutil.rmtree(data.parent)


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
    need = 3.1 * max([*asked.sizes, OBJECTS_MIB]) * MIB
    if shutil.disk_usage(scratch).free < need:
        sys.exit(f"{need / (1 << 30):.0f} GiB are needed in {scratch}")
    result = {"machine": machine(asked.rounds)}
    bench = Bench(scratch, asked)
    try:
        bench_server.certificates(bench.tls)
        one([sys.executable, ROOT / "fixtures/make-node.py", "--nodes", "master-0=127.0.0.1", bench.node])
        for size in asked.sizes:
            bench.sized(size)
        for part in ("keys", "objects"):
            if part in asked.parts:
                getattr(bench, part)()
    finally:
        shutil.rmtree(scratch)
    return result | {"rows": bench.rows}


def others(asked):
    """The parts with a script of their own."""
    for part in ("look", "moments", "stores"):
        if part not in asked.parts:
            continue
        more = ["--write"] if asked.write else []
        if part == "stores":
            if not (CACHE / "s3s/bin/s3s-fs").is_file():
                print("SKIPPED stores: run scripts/fetch-servers.sh --more", file=sys.stderr)
                continue
            beside = (CACHE / "rclone/usr/bin/rclone").is_file()
            if not beside:
                print("SKIPPED copies beside rclone: run scripts/fetch-servers.sh --more", file=sys.stderr)
            more += ["--rounds", "2" if beside else "0"]
        tell(part, 0, asked)
        subprocess.run([ROOT / f"scripts/bench-{part}.py", *more], check=True)


def options():
    numbers = lambda kind: lambda text: [kind(word) for word in text.split(",") if word]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=numbers(str), default=PARTS)
    parser.add_argument("--sizes", type=numbers(int), default=[256, 1024, 4096])
    parser.add_argument("--keys", type=numbers(float), default=[1, 5])
    parser.add_argument("--objects", type=int, default=350_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--from", dest="source", type=pathlib.Path)
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target/bench/scratch")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return asked


def report_estimate(asked):
    total = 0
    for part in asked.parts:
        for size in asked.sizes if part in SIZED else [0]:
            seconds = estimate(part, size, asked)
            total += seconds
            print(f"{part:8} {f'{size} MiB' if size else '':9} {seconds / 60:5.1f} min")
    print(f"{'all':18} {total / 60:5.1f} min")


def main():
    asked = options()
    if asked.estimate:
        report_estimate(asked)
        return
    known = ROOT / "docs/performance.json"
    if asked.source:
        result = json.loads(asked.source.read_text())
    else:
        result = perform(asked)
        kept = ROOT / "target/bench/result.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(result, indent=1) + "\n")
    if asked.add:
        result = bench_tables.added(json.loads(known.read_text()), result)
    if result["rows"]:
        tables = bench_tables.make(result)
        if asked.write:
            bench_tables.write([ROOT / "docs" / page for page in PAGES], tables)
            known.write_text(json.dumps(result, indent=1) + "\n")
        else:
            print("\n\n".join(tables.values()))
    if not asked.source:
        others(asked)


main()
