#!/usr/bin/env python3
"""The long runs: what `make test` takes samples of, whole. Prints a table, a line a run.

    scripts/soak.py [RUN…]      all of them, or: fuzz campaign power matrix survivors

    fuzz        every fuzz target for FUZZ_SECONDS each (600)
    campaign    a kill, EIO and a full disk at every changing call of a node's restore
    power       every state that a loss of power can leave of it, every fsync taken away
    matrix      restores, members, data directories and survivors on every release of etcd
    survivors   SOAK_ROUNDS rounds (100) of load, kill and survivor's disk

    --jobs N    processes that share a campaign     (default: the machine's processors)
    --tmp DIR   where scratch nodes lie             (default: /dev/shm, where no fsync waits)

The suites' binaries and etcd-dr's are copied first, so that a rebuild disturbs nothing; what each
run printed is kept in target/soak. Exits with 1 where anything failed. Hours: `nice` it.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "target/soak"
# What a test says before numbers that are its part's alone.
HEAD = re.compile(r"(.*(?:counted|on), )(.*)")


@dataclasses.dataclass
class Run:
    """One line of the table: a suite's tests, in an environment, by one process or several."""

    name: str
    suite: str
    tests: list
    environment: dict = dataclasses.field(default_factory=dict)
    shared: bool = False


def runs():
    rounds = os.environ.get("SOAK_ROUNDS", "100")
    releases = {"ETCD_DR_RELEASES": "all"}
    campaign = [
        ("killed and rolled back", "a_restore_killed_at_any_call_rolls_back"),
        ("killed and resumed", "a_restore_killed_at_any_call_resumes"),
        ("rollback killed", "a_rollback_killed_at_any_call"),
        ("EIO, full disk", "an_error_or_a_full_disk"),
    ]
    power = [
        ("power lost, rolled back", "every_legal_loss_of_power_a_restore_rolls_back"),
        ("power lost, resumed", "every_legal_loss_of_power_a_restore_resumes"),
        ("power lost in a rollback", "every_legal_loss_of_power_a_rollback_continues"),
        ("fsyncs taken away", "what_a_record_confirms"),
        ("steps twice, records cut", "a_step_may_be_done"),
    ]
    quick = ["--skip", "disk_faults::", "--skip", "power_loss::"]
    return {
        "fuzz": [Run("fuzz", "fuzz", [], {"FUZZ_SECONDS": os.environ.get("FUZZ_SECONDS", "600")})],
        "campaign": [Run(name, "restore", [f"disk_faults::{test}"], shared=True) for name, test in campaign],
        "power": [Run(name, "restore", [f"power_loss::{test}"], shared=True) for name, test in power],
        "matrix": [Run(f"{suite}, all releases", suite, quick if suite == "restore" else [], releases)
                   for suite in ("restore", "member", "datadir", "survivor")],
        "survivors": [Run("survivors", "survivor", ["load_and_kill::"], {"ETCD_DR_ROUNDS": rounds})],
    }


def build(folder, suites):
    """Builds the suites, copies them and etcd-dr; the path of each."""
    cargo = [os.environ.get("CARGO", "cargo"), "test", "--locked", "--no-run", "--message-format=json"]
    commands = []
    wanted = sorted(set(suites) - {"fuzz"})
    if wanted:
        tests = [word for suite in wanted for word in ("--test", suite)]
        commands.append([*cargo, "--features", "faults", *tests])
    if "fuzz" in suites:
        commands.append([*cargo, "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"])
    found = {}
    for command in commands:
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in told.splitlines():
            message = json.loads(line)
            if not message.get("executable"):
                continue
            name = message["target"]["name"]
            name = "fuzz" if name == "smoke" else name
            shutil.copy2(message["executable"], folder / name)
            found[name] = folder / name
    return found


def start(run, binary, part, folder, tmp, serial):
    environment = {**os.environ, **run.environment, "TMPDIR": str(tmp)}
    environment["ETCD_DR_TEST_BINARY"] = str(folder / "etcd-dr")
    if run.shared:
        environment["ETCD_DR_EVERY"] = part
    file = KEPT / f"{run.name.replace(' ', '-').replace(',', '')}-{part.replace('/', '-of-')}.log"
    out = open(file, "wb")
    command = [binary, *run.tests, "--nocapture"]
    if serial:
        command.append("--test-threads=1")
    return file, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)


def told(text):
    """What the tests said of themselves: lines with a number that are not the harness's."""
    lines = [re.sub(r"^test \S+ \.\.\. ", "", line).strip() for line in text.splitlines()]
    harness = re.compile(r"running |test |SKIPPED|spare: |rc ")
    return [line for line in lines if re.search(r"\d", line) and not harness.match(line)]


def together(parts):
    """The lines of several processes as one: what each counted by itself is added up."""
    first, *others = parts
    joined = []
    for at, line in enumerate(first):
        head = HEAD.match(line)
        if not others or not head:
            joined.append(line)
            continue
        tails = [HEAD.match(part[at]).group(2) for part in parts if at < len(part) and HEAD.match(part[at])]
        numbers = [list(map(int, re.findall(r"\d+", tail))) for tail in tails]
        sums = iter(map(sum, zip(*numbers)))
        joined.append(head.group(1) + re.sub(r"\d+", lambda _: str(next(sums)), tails[0]))
    return joined


def perform(run, binary, folder, tmp, jobs):
    parts = [f"{part}/{jobs}" for part in range(jobs)] if run.shared else ["whole"]
    began = time.monotonic()
    serial = run.suite == "restore" or "ETCD_DR_ROUNDS" in run.environment
    started = [start(run, binary, part, folder, tmp, serial) for part in parts]
    codes = [process.wait() for _, process in started]
    texts = [file.read_text(errors="replace") for file, _ in started]
    count = lambda word: sum(int(n) for text in texts for n in re.findall(rf"(\d+) {word};", text))
    passed, failed = count("passed"), count("failed")
    # A process that died said nothing of it, and a filter that fits no test passes.
    failed = max(failed, sum(code != 0 for code in codes), int(not passed))
    skipped = sum(text.count("SKIPPED") for text in texts)
    said = [] if "releases" in run.name else together([told(text) for text in texts])
    seen = "; ".join(said).replace("|", "/") or f"{passed} tests"
    if skipped:
        seen += f"; {skipped} SKIPPED"
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    seconds = time.monotonic() - began
    print(f"| {date} | {run.name} | {seen} | {passed} | {failed} | {seconds / 60:.0f} |", flush=True)
    return failed


def main():
    known = runs()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", choices=[[], *known], default=list(known), metavar="RUN")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--tmp", type=pathlib.Path, default=pathlib.Path("/dev/shm"))
    asked = parser.parse_args()
    chosen = [run for name in asked.runs for run in known[name]]
    KEPT.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="soak-", dir=asked.tmp) as tmp, \
            tempfile.TemporaryDirectory(prefix="soak-") as folder:
        binaries = build(pathlib.Path(folder), [run.suite for run in chosen])
        print("| date | run | seen | passed | failed | minutes |\n| --- | --- | --- | ---: | ---: | ---: |",
              flush=True)
        for run in chosen:
            failed += perform(run, binaries[run.suite], pathlib.Path(folder), tmp, asked.jobs)
    sys.exit(1 if failed else 0)


main()
