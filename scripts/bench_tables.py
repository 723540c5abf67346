"""The tables of docs/performance.md and docs/performance-tables.md, made from what scripts/bench.py measured."""

import datetime
import re
import statistics

from bench_measure import ROOT

BEGIN, END = "<!-- figures: {} -->", "<!-- end of figures -->"


class Figures:
    def __init__(self, rows):
        self.rows = rows

    def of(self, section, size, tool, mode=""):
        wanted = (section, size, tool, mode)
        found = [r for r in self.rows if (r["section"], r["size"], r["tool"], r["mode"]) == wanted]
        return found[0] if found else None

    def sizes(self, section):
        return sorted({row["size"] for row in self.rows if row["section"] == section})

    def median(self, section, size, tool, key="wall", mode=""):
        row = self.of(section, size, tool, mode)
        return statistics.median(row[key]) if row else None

    def rss(self, section, size, tool, mode=""):
        row = self.of(section, size, tool, mode)
        return max(row["rss"]) if row else None


def table(head, lines):
    rule = "| " + " | ".join("---" if cell in ("", "mode", "operation", "program", "compared with")
                             else "---:" for cell in head) + " |"
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


def seconds(value):
    return "" if value is None else f"{value:.2f}"


def whole(value):
    return "" if value is None else f"{value:.0f}"


def range_of(row, key="wall"):
    return f"{statistics.median(row[key]):.2f} ({min(row[key]):.2f}-{max(row[key]):.2f})" if row else ""


def ratio(ours, theirs, goal=None):
    """Ours over theirs; in bold where it is behind the goal."""
    if ours is None or not theirs:
        return ""
    text = f"{ours / theirs:.2f}"
    return f"**{text}**" if goal is not None and ours / theirs > goal else text


def setting(machine):
    return (f"Last run {machine['date']}: etcd-dr {machine['etcd-dr']}, etcd {machine['etcd']}, "
            f"{machine['cpus']} CPUs ({machine['cpu']}),\nLinux {machine['kernel']}, load {machine['load']} "
            f"before the run, medians of {machine['rounds']} rounds (two at 4096 MiB, one at 8192).")


# How a mode of a backup is shown, in this order.
MODES = {"plain": "plain", "tls": "mutual TLS", "objects plain": "objects, plain", "objects tls": "objects, mutual TLS"}


def backup(f):
    lines = []
    for size in f.sizes("backup"):
        for mode, shown in MODES.items():
            if not f.of("backup", size, "etcd-dr", mode):
                continue
            get = lambda tool, key="wall": f.median("backup", size, tool, key, mode)
            lines.append([str(size), shown, range_of(f.of("backup", size, "etcdctl", mode)),
                          range_of(f.of("backup", size, "etcd-dr", mode)),
                          ratio(get("etcd-dr"), get("etcdctl"), 0.95),
                          range_of(f.of("backup", size, "by hand", mode)), ratio(get("etcd-dr"), get("by hand"), 1),
                          seconds(get("etcd-dr", "unchecked")),
                          *(seconds(get(t, "cpu")) for t in ("etcdctl", "etcd-dr")),
                          *(seconds(get(t, "server")) for t in ("etcdctl", "etcd-dr")),
                          *(whole(f.rss("backup", size, t, mode)) for t in ("etcdctl", "etcd-dr"))])
    return table(["MiB", "mode", "etcdctl s", "etcd-dr s", "ratio", "by hand s", "ratio", "of etcd-dr s: before its check",
                  "CPU s: etcdctl", "etcd-dr", "etcd's meanwhile", "with etcd-dr",
                  "peak MiB: etcdctl", "etcd-dr"], lines)


def verify(f):
    lines = []
    for section, shown in (("verify", "{}"), ("objects", "{}, objects")):
        for size in f.sizes(section):
            get = lambda tool, key="wall": f.median(section, size, tool, key)
            both = get("openssl") + get("etcdutl")
            lines.append([shown.format(size), *(range_of(f.of(section, size, t))
                                                for t in ("sha256sum", "openssl", "etcdutl", "etcd-dr")),
                          ratio(get("etcd-dr"), both, 0.45), ratio(get("etcd-dr"), get("sha256sum") + get("etcdutl")),
                          *(seconds(get(t, "cpu")) for t in ("openssl", "etcdutl", "etcd-dr")),
                          *(whole(f.rss(section, size, t)) for t in ("etcdutl", "etcd-dr"))])
    return table(["MiB", "sha256sum s", "openssl s", "etcdutl s", "etcd-dr s", "of openssl + etcdutl",
                  "of sha256sum + etcdutl", "CPU s: openssl", "etcdutl", "etcd-dr",
                  "peak MiB: etcdutl", "etcd-dr"], lines)


def keys(f):
    lines = []
    for size in f.sizes("keys"):
        get = lambda tool: f.median("keys", size, tool)
        count = f.of("keys", size, "etcd-dr")["keys"]
        bound, peak = 64 + 16 * count / (1 << 20), f.rss("keys", size, "etcd-dr")
        lines.append([f"{count:,}", str(size), *(seconds(get(t)) for t in ("openssl", "etcdutl", "etcd-dr")),
                      ratio(get("etcd-dr"), get("openssl") + get("etcdutl"), 0.6),
                      whole(f.rss("keys", size, "etcdutl")), whole(peak), whole(bound)])
    return table(["distinct keys", "MiB", "openssl s", "etcdutl s", "etcd-dr s", "of openssl + etcdutl",
                  "peak MiB: etcdutl", "etcd-dr", "allowed"], lines)


def restore(f):
    lines = []
    for size in f.sizes("restore"):
        for name in ("cp + fsync", "etcdutl", "etcd-dr", "etcd-dr, compact"):
            get = lambda tool, key="wall": f.median("restore", size, tool, key)
            row = f.of("restore", size, name)
            serves = statistics.median(row["serves"]) + get(name) if "serves" in row else None
            goal = {"etcd-dr": 0.45, "etcd-dr, compact": 1}.get(name)
            lines.append([str(size), name, range_of(row), ratio(get(name), get("cp + fsync")),
                          ratio(get(name), get("etcdutl"), goal), seconds(get(name, "cpu")),
                          whole(f.rss("restore", size, name)), seconds(serves)])
    return table(["MiB", "program", "s", "of cp + fsync", "of etcdutl", "CPU s", "peak MiB",
                  "etcd serves after, s"], lines)


def sets(f):
    lines = []
    for section, programs, floor in (("set", ("by hand", "etcd-dr"), "by hand"),
                                     ("copy", ("cp + fsync", "rclone + fsync", "etcd-dr"), "rclone + fsync")):
        for size in f.sizes(section):
            for name in programs:
                row = f.of(section, size, name)
                if row:
                    goal = 1 if (section, name) == ("copy", "etcd-dr") else None
                    lines.append(["verify" if section == "set" else "copy", str(size), name, range_of(row),
                                  ratio(f.median(section, size, name), f.median(section, size, floor), goal),
                                  seconds(f.median(section, size, name, "cpu")), whole(f.rss(section, size, name))])
    return table(["operation", "MiB", "program", "s", "ratio", "CPU s", "peak MiB"], lines)


def latency(f):
    lines = []
    for size in f.sizes("latency"):
        for name in ("no backup", "etcdctl", "etcd-dr"):
            get = lambda key: f.median("latency", size, name, key)
            lines.append([str(size), name, *(f"{get(key):.1f}" for key in ("p50", "p99", "slowest")), seconds(get("wall"))])
    return table(["MiB", "program", "half of the writes ms", "99 of 100 ms", "the slowest ms", "it took s"], lines)


GROWTH = [("backup", "plain", "etcdctl"), ("backup", "plain", "etcd-dr"), ("backup", "tls", "etcdctl"),
          ("backup", "tls", "etcd-dr"), ("verify", "", "openssl"), ("verify", "", "etcdutl"),
          ("verify", "", "etcd-dr"), ("restore", "", "etcdutl"), ("restore", "", "etcd-dr"),
          ("restore", "", "etcd-dr, compact"), ("copy", "", "cp + fsync"), ("copy", "", "etcd-dr")]


def growth(f):
    sizes = sorted({size for section in ("backup", "verify", "restore", "copy")
                    for size in f.sizes(section) if f.of(section, size, "etcd-dr", "plain" if section == "backup" else "")})
    lines = []
    for section, mode, name in GROWTH:
        medians = {size: f.median(section, size, name, mode=mode) for size in sizes}
        cost = {size: median * 1024 / size for size, median in medians.items() if median}
        if not cost:
            continue
        lines.append([f"{section} {mode}".strip(), name, *(seconds(cost.get(size)) for size in sizes),
                      f"{list(cost.values())[-1] / list(cost.values())[0]:.2f}",
                      *(whole(f.rss(section, size, name, mode)) for size in sizes)])
    return table(["operation", "program", *(f"s/GiB at {size}" for size in sizes), "last of first",
                  *(f"peak MiB at {size}" for size in sizes)], lines)


# What is done, section and mode; the program it is compared with, which of ours, and the goal.
SUMMARY = [("take a whole, checked backup, mutual TLS", "backup", "tls", ["etcdctl"], "etcd-dr", 0.95),
           ("the same without TLS", "backup", "plain", ["etcdctl"], "etcd-dr", 0.95),
           ("take and check a backup, mutual TLS", "backup", "tls", ["by hand"], "etcd-dr", 1),
           ("verify a snapshot", "verify", "", ["openssl", "etcdutl"], "etcd-dr", 0.45),
           ("verify a whole backup", "set", "", ["by hand"], "etcd-dr", None),
           ("restore to a data directory", "restore", "", ["etcdutl"], "etcd-dr", 0.5),
           ("the same with `--compact`", "restore", "", ["etcdutl"], "etcd-dr, compact", 1),
           ("copy to a mounted share", "copy", "", ["rclone + fsync"], "etcd-dr", 1)]


def summary(f):
    """One line for each kind of work: a size that is common, and the largest."""
    lines, sizes = [], f.sizes("backup") or f.sizes("verify") or [1024]
    sizes = [size for size in sizes if f.of("backup", size, "etcd-dr", "tls") or f.of("verify", size, "etcd-dr")] or sizes
    shown = sorted({1024 if 1024 in sizes else sizes[0], sizes[-1]})
    for what, section, mode, others, ours, goal in SUMMARY:
        found = [size for size in shown if f.of(section, size, others[0], mode)]
        if not found:
            continue
        times = [ratio(f.median(section, size, ours, mode=mode),
                       sum(f.median(section, size, other, mode=mode) for other in others), goal) if size in found else ""
                 for size in shown]
        peaks = [whole(f.rss(section, found[-1], tool, mode)) for tool in (others[-1], ours)]
        lines.append([what, " + ".join(others), *times, "" if goal is None else f"{goal}", *peaks])
    return table(["operation", "compared with", *(f"time at {size} MiB" for size in shown), "goal",
                  "peak MiB at the largest: theirs", "etcd-dr's"], lines)


# Each table: how it is made, and the sections it is made from.
TABLES = {"summary": (summary, ["backup", "verify", "set", "restore", "copy"]), "backup": (backup, ["backup"]),
          "verify": (verify, ["verify", "objects"]), "keys": (keys, ["keys"]), "restore": (restore, ["restore"]),
          "sets": (sets, ["set", "copy"]), "latency": (latency, ["latency"]),
          "growth": (growth, ["backup", "verify", "restore", "copy"])}


def measured(f, sections, default):
    """When the figures of some sections were measured."""
    dates = {}
    for row in f.rows:
        if row["section"] in sections:
            dates.setdefault(row.get("date", default), set()).add(row["size"])
    if len(dates) == 1:
        return f"Measured {next(iter(dates))}."
    each = (f"{date} ({', '.join(str(size) for size in sorted(sizes))} MiB)" for date, sizes in sorted(dates.items()))
    return f"Measured {' and '.join(each)}."


def make(result):
    """The text between each pair of marks, by its name: of those tables that there are figures for."""
    f, default = Figures(result["rows"]), result["machine"]["date"][:10]
    made = {"setting": setting(result["machine"])}
    for name, (of, sections) in TABLES.items():
        if any(f.sizes(section) for section in sections):
            made[name] = f"{of(f)}\n\n{measured(f, sections, default)}"
    return made


def added(known, result):
    """What is known, with what was measured now in the place of the same before."""
    which = lambda row: (row["section"], row["mode"], row["size"], row["tool"])
    now = {which(row) for row in result["rows"]}
    before = [row | {"date": row.get("date", known["machine"]["date"][:10])} for row in known["rows"]]
    kept = [row for row in before if which(row) not in now]
    machine = result["machine"] if result["rows"] else known["machine"]
    return {"machine": machine, "rows": kept + result["rows"]}


def write(files, tables):
    """Writes each table between its marks, wherever they are in these files."""
    texts = {file: file.read_text() for file in files}
    for name, made in tables.items():
        begin, found = BEGIN.format(name), 0
        marked = re.compile(re.escape(begin) + ".*?" + re.escape(END), re.DOTALL)
        for file, text in texts.items():
            texts[file], count = marked.subn(lambda _: f"{begin}\n\n{made}\n\n{END}", text)
            found += count
        if not found:
            raise SystemExit(f"no page has {begin} … {END}")
    for file, text in texts.items():
        file.write_text(text)


def publish(page, name, head, rows, asked, load):
    """Writes one table with its date into a page if `asked.write`, and prints it otherwise."""
    measured = f"Measured {datetime.date.today()}, medians of {asked.rounds} rounds, load {load:.1f} before it."
    made = f"{table(head, rows)}\n\n{measured}"
    if asked.write:
        write([ROOT / "docs" / page], {name: made})
    else:
        print(made)
