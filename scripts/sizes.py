#!/usr/bin/env python3
"""What weighs what in the shipped binary, as tables: the code of each crate, from the symbols of the same
build without stripping, and the file by its sections.

    scripts/sizes.py      links what portable-build.sh built once more, into target/sizes
"""

import collections
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
STANDARD = {"core", "alloc", "std", "gimli", "addr2line", "rustc_demangle", "std_detect", "panic_unwind"}
SMALL = 64 << 10


def crate(name):
    """The first crate that a symbol's name tells: of a generic one, that of the type it is made for."""
    bare = re.sub(r"^(?:[<&*(\[]|mut |dyn |const )+", "", name)
    found = re.match(r"([A-Za-z_]\w*)(?:\[[0-9a-f]+\])?::", bare)
    if not found:
        return "C and assembler (ring, zstd)"
    return "the standard library" if found[1] in STANDARD else found[1]


def table(head, sizes):
    rows = [f"| {name} | {size / 1024:,.0f} |" for name, size in sizes]
    print("\n".join([f"| {head} | KiB |", "| --- | ---: |", *rows]) + "\n")


def main():
    built = subprocess.check_output([ROOT / "scripts/portable-build.sh", "unstripped"], text=True).strip()
    tell = lambda *command: subprocess.check_output([*command, built], text=True).splitlines()
    crates = collections.Counter()
    for line in tell("nm", "--print-size", "--demangle"):
        symbol = re.match(r"[0-9a-f]+ ([0-9a-f]+) [tTwW] (.*)", line)
        if symbol:
            crates[crate(symbol[2])] += int(symbol[1], 16)
    large = [(name, size) for name, size in crates.most_common() if size >= SMALL]
    rest = [size for size in crates.values() if size < SMALL]
    table("code of the crate", [*large, (f"{len(rest)} smaller ones together", sum(rest)),
                                ("all code", sum(crates.values()))])
    sections = [(line.split()[0], int(line.split()[1])) for line in tell("size", "-A")
                if re.match(r"\.[a-z_.]+ +\d+ +\d+$", line) and not line.startswith((".debug", ".comment"))]
    table("section", sorted((s for s in sections if s[1] >= SMALL), key=lambda s: -s[1]))


main()
