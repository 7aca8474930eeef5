"""Grades folders with a models.py and a train_torch.py against the contract, unittests.py.

    python -m assignment.grade submissions/*
    python -m assignment.grade submissions/* --csv marks.csv
    python -m assignment.grade /autograder/submission --json /autograder/results/results.json

This executes what was handed in, with your rights. To shut it in, run it in a container,
    docker run --network none -v "$PWD":/gan -w /gan IMAGE python -m assignment.grade FOLDER ...
or as a user who owns nothing: sudo -u nobody python -m assignment.grade FOLDER ...
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import command_line
from assignment.make import make
from unittests import CONTRACT, OPTIONAL, MnistTest

PARTS = [part for part in CONTRACT + OPTIONAL if part is not MnistTest]
HANDED_IN = "models.py", "train_torch.py"
MEMORY = 4 * 2**30  # bytes that a process may allocate
OUTPUT = 10 * 2**20  # bytes that it may write into one file
CONTRACT_OF_A_FOLDER = f"""
import contextlib, json, sys
with contextlib.suppress(ImportError):
    import resource  # not on Windows
    resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({OUTPUT}, {OUTPUT}))
import unittests
parts = [getattr(unittests, name) for name in {[part.__name__ for part in PARTS]}]
with open(sys.argv[1], "w", encoding="utf-8") as results:
    for row in unittests.contract(parts):
        print(json.dumps(row), file=results, flush=True)
"""


class Mark(NamedTuple):
    """A part of the contract: what is wrong with it, and what could be better."""

    part: type
    messages: list[str]
    hints: list[str]

    @property
    def maximum(self) -> int:
        return int(self.part.title.startswith("task") and self.part not in OPTIONAL)


def grade(folder: Path, template: Path, seconds: float) -> list[Mark]:
    """The marks of a folder, from a process of its own in a fresh copy of the template."""
    with tempfile.TemporaryDirectory() as temporary:
        copy, results = Path(temporary, "copy"), Path(temporary, "results")
        shutil.copytree(template, copy)
        results.touch()
        for name in HANDED_IN:  # what is missing is left as in the template
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
        with open(copy / "stderr", "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", CONTRACT_OF_A_FOLDER, results],
                cwd=copy,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": temporary, "TMPDIR": temporary},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                end = f"exit status {process.wait(seconds)}"
            except subprocess.TimeoutExpired:
                end = f"it takes more than {seconds:g} s"
            with contextlib.suppress(AttributeError, ProcessLookupError):  # not on Windows
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.kill()
            process.wait()
        last = (copy / "stderr").read_text(errors="replace")[-1000:].strip().splitlines()
        rows = [json.loads(line) for line in results.read_text().splitlines()]
    found = {title: (messages, hints) for title, messages, hints in rows}
    nothing = [": ".join(["no result", end, *last[-1:]])], []
    return [Mark(part, *found.get(part.title, nothing)) for part in PARTS]


def total(marks: list[Mark]) -> str:
    """Marks and their maximum."""
    reached = sum(mark.maximum for mark in marks if not mark.messages)
    return f"{reached}/{sum(mark.maximum for mark in marks)}"


def lines(marks: list[Mark]) -> list[str]:
    """Messages of what is required, then hints, and the messages of what is optional."""
    messages = [text for mark in marks if mark.part not in OPTIONAL for text in mark.messages]
    optional = [text for mark in marks if mark.part in OPTIONAL for text in mark.messages]
    hints = [f"hint: {text}" for mark in marks for text in mark.hints]
    return [*dict.fromkeys([*messages, *hints, *(f"optional: {text}" for text in optional)])]


def results_json(marks: list[Mark]) -> dict:
    """The fields of Gradescope's results.json."""
    tests = [
        {
            "name": mark.part.title,
            "score": 0 if mark.messages else mark.maximum,
            "max_score": mark.maximum,
            "output": "\n".join([*mark.messages, *(f"hint: {text}" for text in mark.hints)]),
        }
        for mark in marks
    ]
    return {"tests": tests}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = command_line.Parser(prog="assignment.grade", description=__doc__, formatter_class=raw)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    gradescope = "write Gradescope's results.json; of several folders, an object of them by name"
    parser.add_argument("--json", type=Path, metavar="FILE", help=gradescope)
    parser.add_argument("--seconds", type=float, default=120, help="limit for each (120)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        template = Path(temporary, "template")
        make(template)
        shutil.rmtree(template / "data")  # which no part needs
        graded = pool.map(lambda folder: grade(folder, template, args.seconds), args.folders)
        graded = [*tqdm(graded, "graded", len(args.folders), leave=False)]
    names = [str(folder) for folder in args.folders]
    width = max(map(len, names))
    numbers = [mark.part.title.split(",")[0].removeprefix("task ") for mark in graded[0]]
    print(" " * width, *numbers)
    for name, marks in zip(names, graded, strict=True):
        cells = ("." if mark.messages else "x" for mark in marks)
        cells = (cell.ljust(len(number)) for cell, number in zip(cells, numbers, strict=True))
        print(name.ljust(width), *cells, total(marks))
    for name, marks in zip(names, graded, strict=True):
        print(f"\n{name}", *lines(marks), sep="\n    ")
    if args.csv:
        with open(args.csv, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["folder", *(mark.part.title for mark in graded[0]), "marks", "messages"])
            for name, marks in zip(names, graded, strict=True):
                done = [int(not mark.messages) for mark in marks]
                rows.writerow([name, *done, total(marks), "\n".join(lines(marks))])
    if args.json:
        results = {name: results_json(of) for name, of in zip(names, graded, strict=True)}
        results = results[names[0]] if len(names) == 1 else results
        args.json.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    command_line.run(main)
