"""Grades folders or zips with a models.py and a train_torch.py against the contract.

    python -m assignment.grade submissions/*
    python -m assignment.grade submissions/* --csv marks.csv
    python -m assignment.grade /autograder/submission --json /autograder/results/results.json

This executes what was handed in, with your rights. Code that runs in the same process as its test
can always forge the result; hand-ins that name sys.argv, atexit, unittest or os._exit are pointed
out. A process that a hand-in has detached, by setsid, may keep running. Isolate it:
    docker run --rm --network none -v "$PWD":/gan:ro -v "$PWD/submissions":/in:ro -w /gan IMAGE \\
        sh -c 'python -m assignment.grade /in/*'
or run it as a user who owns nothing, in a copy that this user can read, such as one in /tmp:
    sudo -u nobody python -m assignment.grade submissions/*
"""

import argparse
import ast
import csv
import json
import os
import re
import secrets
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import command_line
from assignment.make import HERE, make
from contract.data import MnistTest
from contract.report import LEARNED, PARTS, number

GRADED = [part for part in PARTS if part is not MnistTest]
HANDED_IN = "models.py", "train_torch.py"
LONGEST = 500  # characters of a message
SUSPICIOUS = re.compile(r"\b(sys\.argv|atexit|unittest|os\._exit)\b")
WORKER = (HERE / "worker.py").read_text(encoding="utf-8")
running: set[subprocess.Popen] = set()  # workers, to be ended by Ctrl-C
stopped = threading.Event()


class Mark(NamedTuple):
    """A part of the contract: what is wrong with it, and what could be better."""

    part: type
    messages: list[str]
    hints: list[str]

    @property
    def maximum(self) -> int:
        return int(self.part.title.startswith("task") and not self.part.optional)

    @property
    def points(self) -> int:
        return 0 if self.messages else self.maximum

    def shortened(self) -> "Mark":
        return Mark(self.part, *([text[:LONGEST] for text in of] for of in self[1:]))


def collect(source: Path, copy: Path) -> tuple[dict[str, str], list[str]]:
    """Copies what was handed in; what is missing, by file, and hints."""
    missing, hints = {}, []
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            small = [info for info in archive.infolist() if info.file_size < 2**20]
            source = copy / "zip"
            archive.extractall(source, small)
    if not source.is_dir():
        what = "is no folder" if source.exists() else "does not exist"
        return dict.fromkeys(HANDED_IN, f"{source} {what}"), []
    paths = sorted(p for pattern in ("*", "*/*") for p in source.glob(pattern) if p.is_file())
    for name in HANDED_IN:
        stem = name.removesuffix(".py")
        found = [p for p in paths if re.fullmatch(rf"{stem}([-_ .]?\(?\d+\)?)?\.py", p.name)]
        path = source / name if (source / name).is_file() else None
        if not path and len(found) == 1:
            path = found[0]
            hints.append(f"{name} is {path.relative_to(source)}")
        if path:
            shutil.copyfile(path, copy / name)
            hints += suspicious(path, HERE.parent / name)
        else:
            there = ", ".join(str(p.relative_to(source)) for p in found or paths[:5]) or "nothing"
            missing[name] = f"{name} was not handed in; there is {there}"
    return missing, hints


def suspicious(path: Path, original: Path) -> Iterable[str]:
    """Hints at lines that may meddle with the tests."""
    known = set(original.read_text(encoding="utf-8").splitlines())
    text = path.read_text(encoding="utf-8", errors="replace")
    for at, line in enumerate(text.splitlines(), 1):
        if line not in known and SUSPICIOUS.search(line):
            yield f"look at {path.name}:{at}: {line.strip()}"


def run(copy: Path, parts: list[type], seconds: float, broken: dict, learning: bool) -> tuple:
    """Tests these parts in the copy by a worker.

    Returns:
        What the worker has found in each phase that it has come to the end of; "models.py:35" if
        it was stopped there; and how it has ended.
    """
    token, home = secrets.token_hex(), copy.parent
    keep = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
    env = {**keep, "HOME": str(home), "TMPDIR": str(home), "TEMP": str(home), "TMP": str(home)}
    env |= {"PYTHONUSERBASE": site.getuserbase(), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    names = [part.__name__ for part in parts]
    task = repr((token, names, seconds, broken, learning)).encode()
    with open(home / "results", "wb+") as results, open(home / "errors", "wb+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=copy,
            env=env,
            stdin=subprocess.PIPE,
            stdout=results,
            stderr=errors,
            start_new_session=True,
        )
        running.add(process)
        end = "takes too long"
        with suppress(subprocess.TimeoutExpired):
            process.communicate(task, timeout=(len(names) + 3) * seconds + 60)
            end = f"ends the process, exit status {process.returncode}"
        with suppress(AttributeError, ProcessLookupError):  # not on Windows
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.kill()
        process.wait()
        running.discard(process)
        results.seek(0)
        lines = results.read(2**20).decode(errors="replace").splitlines()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 10_000))
        last = errors.read().decode(errors="replace")
    phases = {}
    for line in lines:
        with suppress(ValueError, SyntaxError):  # not ours, or cut
            written, phase, *found = ast.literal_eval(line)
            if written == token:
                phases[phase] = found
    where = re.search(r'File "[^"]*?((?:models|train_torch)\.py)", line (\d+)', last)
    if "Timeout (" in last:
        end = f"takes more than {seconds:g} s"
    elif last.strip():
        end += f": {last.strip().splitlines()[-1]}"
    return phases, f"{where[1]}:{where[2]}" if where else "", end


def grade(source: Path, template: Path, seconds: float) -> list[Mark]:
    """The marks of a hand-in, tested in a fresh copy of the template.

    If a part ends its process, that part is lost, and a new process goes on with those after it.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        copy = Path(temporary, "copy")
        shutil.copytree(template, copy)
        broken, hints = collect(source, copy)
        found: dict[type, tuple[list[str], list[str]]] = {}
        while not stopped.is_set() and (left := [part for part in GRADED if part not in found]):
            right = not any(part in found and found[part][0] for part in LEARNED)
            phases, where, end = run(copy, left, seconds, broken, learning=right)
            found |= {part: phases[part.__name__] for part in left if part.__name__ in phases}
            lost = [part for part in left if part not in found]
            if phases.get("end") == [False]:
                found = dict.fromkeys(GRADED, (["the tests were tampered with"], []))
            elif "start" not in phases:
                found |= dict.fromkeys(left, ([f"no result: it {end}"], []))
            elif file := next((file for file in HANDED_IN if file not in phases), None):
                broken[file] = f"{where or file}: {end} while it is imported"
            elif lost:
                found[lost[0]] = [f"{where or lost[0].file}: {end}"], []
    marks = [Mark(part, *found[part]) for part in GRADED]
    return [marks[0]._replace(hints=[*hints, *marks[0].hints]), *marks[1:]]


def attempt(source: Path, template: Path, seconds: float) -> list[Mark]:
    """The same; whatever goes wrong is the result of this hand-in alone."""
    try:
        marks = grade(source, template, seconds)
    except Exception as error:
        why = [f"could not be graded: {type(error).__name__}: {error}"]
        marks = [Mark(part, why, []) for part in GRADED]
    return [mark.shortened() for mark in marks]


def lines(marks: list[Mark]) -> list[str]:
    """Messages of what is required, then hints, and the messages of what is optional."""
    messages = [text for mark in marks if not mark.part.optional for text in mark.messages]
    optional = [text for mark in marks if mark.part.optional for text in mark.messages]
    hints = [f"hint: {text}" for mark in marks for text in mark.hints]
    return [*dict.fromkeys([*messages, *hints, *(f"optional: {text}" for text in optional)])]


def row(name: str, width: int, marks: list[Mark]) -> str:
    """A line of the table."""
    cells = (("." if mark.messages else "x").ljust(len(number(mark.part))) for mark in marks)
    points = f"{sum(mark.points for mark in marks)}/{sum(mark.maximum for mark in marks)}"
    return " ".join([name.ljust(width), *cells, points])


def write_csv(path: Path, graded: dict[Path, list[Mark]]) -> None:
    """Writes the table for a spreadsheet; utf-8-sig is what Excel reads."""
    with open(path, "w", newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.writer(file)
        titles = [part.title for part in GRADED]
        rows.writerow(["name", "path", *titles, "points", "of", "messages"])
        for source, marks in graded.items():
            points, most = (sum(getattr(mark, x) for mark in marks) for x in ("points", "maximum"))
            done = [int(not mark.messages) for mark in marks]
            rows.writerow([source.name, source, *done, points, most, "\n".join(lines(marks))])


def write_json(path: Path, marks: list[Mark]) -> None:
    """Writes Gradescope's results.json."""
    tests = [
        {
            "name": mark.part.title,
            "status": "failed" if mark.messages else "passed",
            "score": mark.points,
            "max_score": mark.maximum,
            "output": "\n".join([*mark.messages, *(f"hint: {text}" for text in mark.hints)]),
        }
        for mark in marks
    ]
    path.write_text(json.dumps({"tests": tests}, indent=2), encoding="utf-8")


def cores() -> int:
    """The processor's cores that may be used."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = command_line.Parser(prog="assignment.grade", description=__doc__, formatter_class=raw)
    parser.add_argument("sources", nargs="+", metavar="FOLDER")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    gradescope = "write Gradescope's results.json, of a single folder"
    parser.add_argument("--json", type=Path, metavar="FILE", help=gradescope)
    parser.add_argument("--seconds", type=float, default=60, help="limit for each part (60)")
    jobs = f"folders at a time (the usable cores, {cores()})"
    parser.add_argument("--jobs", type=command_line.positive, default=cores(), help=jobs)
    args = parser.parse_args()
    sources = [*dict.fromkeys(map(Path, command_line.expanded(args.sources)))]
    if args.json and len(sources) > 1:
        parser.error("argument --json: of a single folder only")

    graded: dict[Path, list[Mark]] = {}
    width = max(len(str(source)) for source in sources)
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(args.jobs) as pool:
        make(template := Path(temporary, "template"))
        jobs = {pool.submit(attempt, source, template, args.seconds): source for source in sources}
        try:
            for done in as_completed(jobs):
                graded[jobs[done]] = done.result()
                print(row(str(jobs[done]), width, done.result()))
        except KeyboardInterrupt:  # the results so far are kept
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in [*running]:
                process.kill()
    graded = {source: graded[source] for source in sources if source in graded}
    for source, marks in graded.items():
        print(f"\n{source}", *lines(marks), sep="\n    ")
    print(f"\n{' ' * width}", *map(number, GRADED))
    for source, marks in graded.items():
        print(row(str(source), width, marks))
    if args.csv:
        write_csv(args.csv, graded)
    if args.json and graded:
        write_json(args.json, *graded.values())


if __name__ == "__main__":
    command_line.run(main)
