"""Kills real training runs at random moments, resumes them, and compares with straight runs.

    python benchmarks/kill_and_resume.py            10 each of kill -9, SIGTERM and Ctrl-C
    python benchmarks/kill_and_resume.py --each 1   one of each

Each time a run was killed, it is started again as a user would: with --resume if it has a
checkpoint, else with the same command. In the end weights, Adam's moments, TensorBoard's scalars
and the sample grids have to be equal to those of a straight run, bit for bit. A kill may lose the
current epoch and 30 seconds of training, no more. Exit status 1 if anything is otherwise.
"""

import argparse
import itertools
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = [sys.executable, str(Path(__file__).resolve().parent.parent / "train_torch.py")]
SMALL = ["--batch_size", "1024", "--hidden_dims_gen", "16", "--hidden_dims_disc", "16"]
SHORT = [*SMALL, "--epochs", "6", "--save_every", "2"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
MOMENTS = ["training", "writing", "start-up", "run directory"]
MAY_LOSE = 30  # seconds of training, beside the current epoch
CHECKPOINT = "checkpoints/model_checkpoint.pt"
FINISHED = "Checkpoint: "  # a run's last line


def run_in(logs: Path) -> Path | None:
    """The run in a log directory that has a checkpoint, None if there is none."""
    return next((path.parent.parent for path in logs.glob(f"*/{CHECKPOINT}")), None)


def start(flags: list[str], logs: Path) -> subprocess.Popen:
    """Starts training as a user would: resumes the run in `logs` if it has a checkpoint."""
    run = run_in(logs)
    return subprocess.Popen(
        [*TRAIN, *(["--resume", str(run)] if run else [*flags, "--log_dir", str(logs)])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # enough for networks of this size
    )


def finish(flags: list[str], logs: Path) -> dict:
    """Starts or resumes a run and waits for its end; what it ends with."""
    process = start(flags, logs)
    output = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f"a run that was left alone failed: {output}")
    return contents(run_in(logs))


def kill(
    flags: list[str], logs: Path, sent: signal.Signals, moment: str, epoch: int, seconds: float
) -> tuple[int, float, str]:
    """Starts or resumes a run and kills it at the given moment.

    Args:
        moment: "start-up"; "run directory": when it was created and has no checkpoint yet;
            "training"; or "writing": when a checkpoint is being written.
        epoch: for the last two, the epoch whose sample grid has to exist first.
        seconds: to wait then; for the first two, from the start of the process.

    Returns:
        The exit status, 0 if the run had come to its end; the seconds it had trained since its
        last checkpoint; and what is wrong with the way it ended, if anything.
    """

    def written(pattern: str) -> float:
        """When this process wrote the newest such file, 0 if it wrote none."""
        times = (path.stat().st_mtime for path in logs.glob(pattern))
        return max((t for t in times if t > started), default=0)

    def wait_until(condition) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.0002)

    def training() -> float:
        return written("*/args.json")  # the last file that is written before training

    started, process = time.time(), start(flags, logs)
    if moment in ("training", "writing"):
        wait_until(lambda: training() and any(logs.glob(f"*/samples_epoch_{epoch:04d}.png")))
    time.sleep(seconds)
    if moment == "run directory":
        wait_until(lambda: any(logs.iterdir()))
    if moment == "writing":
        # The file is there for some milliseconds, until it is safely on disk and renamed.
        wait_until(lambda: any(logs.glob("*/checkpoints/*.unfinished")))

    began = training()
    lost = time.time() - max(began, written(f"*/{CHECKPOINT}")) if began else 0
    process.send_signal(sent)
    output = process.communicate()[0]
    if FINISHED in output:
        return 0, 0, ""
    if sent == signal.SIGINT and process.returncode == 130:
        right = "Interrupted" in output and "Traceback" not in output
        right &= not began or sum("--resume" in line for line in output.splitlines()) == 1
    else:  # SIGINT, too, while modules are imported
        right = process.returncode == -sent and not (sent == signal.SIGINT and began)
    return process.returncode, lost, "" if right else f"{moment}: {output}"


class Case(NamedTuple):
    """A run to kill: its flags, the signal, and `moment, epoch, seconds` of each kill."""

    flags: list[str]
    sent: signal.Signals
    kills: list[tuple[str, int, float]]
    straight: dict  # what the straight run ended with


def check(number: int, case: Case) -> tuple[bool, float]:
    """Kills a run, lets it finish in the end, and prints a line about it.

    Returns:
        Whether all is well, and the most seconds of training that a kill has lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        results = [kill(case.flags, logs, case.sent, *moment) for moment in case.kills]
        differing = differences(finish(case.flags, logs), case.straight)
        epoch = max(seconds for _, seconds in scalars(run_in(logs))["seconds_per_epoch"])
    statuses, losses, problems = zip(*results, strict=True)
    if not all(statuses):  # it had come to its end before one of the moments
        earlier = [(moment, 0, seconds / 2) for moment, _, seconds in case.kills]
        return check(number, case._replace(kills=earlier))
    problems = [*filter(None, problems), *differing]
    lost = max(losses)
    if lost > MAY_LOSE + epoch + 1:  # a second for writing the files
        problems.append("lost too much")
    print(
        f"{number:>2}. {case.sent.name:<7} {', '.join(moment for moment, *_ in case.kills):<26} "
        f"exit status {' '.join(map(str, statuses)):<11} lost {lost:4.1f} s  "
        f"{'identical' if not problems else 'WRONG: ' + '; '.join(problems[:9])}",
        flush=True,
    )
    return not problems, lost


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of all scalars of a run."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def contents(run: Path) -> dict:
    """All that has to be equal: checkpoint, scalars and sample grids."""
    saved = torch.load(run / CHECKPOINT, weights_only=True)
    del saved["args"]  # its log_dir differs
    curves = scalars(run)
    for name in "seconds_per_epoch", "images_per_second":
        curves[name] = [step for step, _ in curves[name]]
    return leaves(saved) | curves | {grid.name: grid.read_bytes() for grid in run.glob("*.png")}


def leaves(value, path: str = "") -> dict:
    """All values in nested dicts and lists, by their path."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, item in items for k, v in leaves(item, f"{path}/{name}").items()}
    return {path: value}


def differences(a: dict, b: dict) -> list[str]:
    """The paths at which the two differ."""
    return [
        path
        for path in sorted(a.keys() | b.keys())
        if path not in a
        or path not in b
        or not (torch.equal(a[path], b[path]) if torch.is_tensor(a[path]) else a[path] == b[path])
    ]


def main() -> int:
    # Under nohup SIGINT is ignored, and the runs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10, help="runs per signal")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two_at_a_time:
        straight = finish(SHORT, Path(folder, "short"))
        epochs = scalars(run_in(Path(folder, "short")))["seconds_per_epoch"]
        training = sum(seconds for _, seconds in epochs)
        print(f"{training:.1f} s of training, {len(straight)} values to compare", flush=True)

        two_epochs = training / 3  # from one checkpoint to the next
        latest = {"start-up": 4, "run directory": 0, "training": two_epochs, "writing": 0}
        cases = []
        for sent in SIGNALS * args.each:
            moments = [MOMENTS[len(cases) % len(MOMENTS)]]
            if rng.random() < 0.5:  # kill it twice, without enough left for a third time
                moments.append(rng.choice(["start-up", "writing"]))
            kills = [
                (moment, rng.choice([0, 2, 4]), rng.uniform(0, latest[moment]))
                for moment in moments
            ]
            cases.append(Case(SHORT, sent, kills, straight))
        if args.each >= 10:  # the last of each signal: a minute without a sample grid
            count = str(round(60 / training * len(epochs)))
            long = [*SMALL, "--epochs", count, "--save_every", count]
            straight = finish(long, Path(folder, "long"))
            for i, sent in enumerate(SIGNALS, -len(SIGNALS)):
                cases[i] = Case(long, sent, [("training", 0, rng.uniform(15, 45))], straight)
        results = list(two_at_a_time.map(check, itertools.count(1), cases))
    identical = sum(ok for ok, _ in results)
    lost = max(lost for _, lost in results)
    print(f"{identical} of {len(cases)} identical; at most {lost:.1f} s of training were lost")
    return int(identical < len(cases))


if __name__ == "__main__":
    sys.exit(main())
