"""The tables of docs/performance.md and docs/performance-tables.md, made from what scripts/bench.py measured."""

import re
import statistics

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
    return (f"Measured {machine['date']}: etcd-dr {machine['etcd-dr']}, etcd {machine['etcd']}, "
            f"{machine['cpus']} CPUs ({machine['cpu']}),\nLinux {machine['kernel']}, load {machine['load']} "
            f"before the run, medians of {machine['rounds']} rounds (two at 4096 MiB, one at 8192).")


def backup(f):
    lines = []
    for size in f.sizes("backup"):
        for mode in ("plain", "tls"):
            get = lambda tool, key="wall": f.median("backup", size, tool, key, mode)
            unchecked = get("etcd-dr", "unchecked")
            lines.append([str(size), mode, range_of(f.of("backup", size, "etcdctl", mode)),
                          range_of(f.of("backup", size, "etcd-dr", mode), "unchecked"),
                          ratio(unchecked, get("etcdctl"), 0.95),
                          range_of(f.of("backup", size, "by hand", mode)),
                          range_of(f.of("backup", size, "etcd-dr", mode)),
                          ratio(get("etcd-dr"), get("by hand"), 1),
                          *(seconds(get(t, "cpu")) for t in ("etcdctl", "etcd-dr")),
                          *(seconds(get(t, "server")) for t in ("etcdctl", "etcd-dr")),
                          *(whole(f.rss("backup", size, t, mode)) for t in ("etcdctl", "etcd-dr"))])
    return table(["MiB", "mode", "etcdctl s", "etcd-dr before its check s", "ratio", "by hand s",
                  "etcd-dr whole s", "ratio", "CPU s: etcdctl", "etcd-dr", "etcd's meanwhile", "with etcd-dr",
                  "peak MiB: etcdctl", "etcd-dr"], lines)


def verify(f):
    lines = []
    for size in f.sizes("verify"):
        get = lambda tool, key="wall": f.median("verify", size, tool, key)
        both = get("openssl") + get("etcdutl")
        lines.append([str(size), *(range_of(f.of("verify", size, t))
                                   for t in ("sha256sum", "openssl", "etcdutl", "etcd-dr")),
                      ratio(get("etcd-dr"), both, 1), ratio(get("etcd-dr"), get("sha256sum") + get("etcdutl")),
                      *(seconds(get(t, "cpu")) for t in ("openssl", "etcdutl", "etcd-dr")),
                      *(whole(f.rss("verify", size, t)) for t in ("etcdutl", "etcd-dr"))])
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
                      ratio(get("etcd-dr"), get("openssl") + get("etcdutl"), 1),
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
            goal = 0.5 if name == "etcd-dr" else None
            lines.append([str(size), name, range_of(row), ratio(get(name), get("cp + fsync")),
                          ratio(get(name), get("etcdutl"), goal), seconds(get(name, "cpu")),
                          whole(f.rss("restore", size, name)), seconds(serves)])
    return table(["MiB", "program", "s", "of cp + fsync", "of etcdutl", "CPU s", "peak MiB",
                  "etcd serves after, s"], lines)


def sets(f):
    lines = []
    for section, programs, floor in (("set", ("by hand", "etcd-dr"), "by hand"),
                                     ("copy", ("cp + fsync", "rclone + fsync", "etcd-dr"), "cp + fsync")):
        for size in f.sizes(section):
            for name in programs:
                row = f.of(section, size, name)
                if row:
                    lines.append(["verify" if section == "set" else "copy", str(size), name, range_of(row),
                                  ratio(f.median(section, size, name), f.median(section, size, floor)),
                                  seconds(f.median(section, size, name, "cpu")), whole(f.rss(section, size, name))])
    return table(["operation", "MiB", "program", "s", "ratio", "CPU s", "peak MiB"], lines)


GROWTH = [("backup", "plain", "etcdctl"), ("backup", "plain", "etcd-dr"), ("backup", "tls", "etcdctl"),
          ("backup", "tls", "etcd-dr"), ("verify", "", "openssl"), ("verify", "", "etcdutl"),
          ("verify", "", "etcd-dr"), ("restore", "", "etcdutl"), ("restore", "", "etcd-dr"),
          ("restore", "", "etcd-dr, compact"), ("copy", "", "cp + fsync"), ("copy", "", "etcd-dr")]


def growth(f):
    sizes = f.sizes("verify")
    lines = []
    for section, mode, name in GROWTH:
        if not f.of(section, sizes[0], name, mode):
            continue
        cost = [f.median(section, size, name, mode=mode) * 1024 / size for size in sizes]
        lines.append([f"{section} {mode}".strip(), name, *(f"{each:.2f}" for each in cost),
                      f"{cost[-1] / cost[0]:.2f}", *(whole(f.rss(section, size, name, mode)) for size in sizes)])
    return table(["operation", "program", *(f"s/GiB at {size}" for size in sizes), "last of first",
                  *(f"peak MiB at {size}" for size in sizes)], lines)


# What is done, section and mode; the program it is compared with, and what of etcd-dr counts; the goal.
SUMMARY = [("take a backup over TLS, before its check", "backup", "tls", ["etcdctl"], "unchecked", 0.95),
           ("take a backup over TLS, check included", "backup", "tls", ["by hand"], "wall", 1),
           ("verify a snapshot", "verify", "", ["openssl", "etcdutl"], "wall", 1),
           ("verify a whole backup", "set", "", ["by hand"], "wall", None),
           ("restore to a data directory", "restore", "", ["etcdutl"], "wall", 0.5),
           ("copy to a mounted share", "copy", "", ["rclone + fsync"], "wall", None)]


def summary(f):
    """One line for each kind of work: a size that is common, and the largest."""
    lines, sizes = [], f.sizes("verify")
    shown = sorted({1024 if 1024 in sizes else sizes[0], sizes[-1]})
    for what, section, mode, others, key, goal in SUMMARY:
        if f.of(section, shown[-1], others[0], mode) is None:
            continue
        times = [ratio(f.median(section, size, "etcd-dr", key, mode),
                       sum(f.median(section, size, other, mode=mode) for other in others), goal) for size in shown]
        peaks = [whole(f.rss(section, shown[-1], tool, mode)) for tool in (others[-1], "etcd-dr")]
        lines.append([what, " + ".join(others), *times, "" if goal is None else f"{goal}", *peaks])
    return table(["operation", "compared with", *(f"time at {size} MiB" for size in shown), "goal",
                  f"peak MiB at {shown[-1]} MiB: theirs", "etcd-dr's"], lines)


def make(result):
    """The text between each pair of marks, by its name."""
    f = Figures(result["rows"])
    made = {"setting": setting(result["machine"]), "summary": summary(f), "backup": backup(f), "verify": verify(f),
            "restore": restore(f), "sets": sets(f), "growth": growth(f)}
    if f.sizes("keys"):
        made["keys"] = keys(f)
    return made


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
