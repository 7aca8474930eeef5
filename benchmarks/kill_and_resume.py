"""Kills real training runs at random moments, starts them again, and compares with straight runs.

    python -m benchmarks.kill_and_resume            10 each of kill -9, SIGTERM and Ctrl-C
    python -m benchmarks.kill_and_resume --each 1   one of each

Each time a run was killed, it is started again as a user would, by the same command. In the end
weights, Adam's moments, TensorBoard's scalars, sample grids, scores and film have to be equal to
those of a straight run, bit for bit. A kill may lose the current epoch and 30 seconds of training,
no more. Exit status 1 if anything is otherwise.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import REPOSITORY, scalars
from checkpoint import CHECKPOINT

TRAIN = [sys.executable, str(REPOSITORY / "train_torch.py")]
SMALL = ["--batch_size", "1024", "--hidden_dims_gen", "16", "--hidden_dims_disc", "16"]
EPOCHS = 6
SHORT = [*SMALL, "--epochs", str(EPOCHS), "--save_every", "2"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
MOMENTS = ["training", "writing", "results", "start-up", "run directory"]
MAY_LOSE = 30  # seconds of training, beside the current epoch
FINISHED = "Film: "  # a run's last line


def start(flags: list[str], logs: Path) -> subprocess.Popen:
    """Starts training in `logs`/run, or goes on with it."""
    return subprocess.Popen(
        [*TRAIN, *flags, "--log_dir", str(logs), "--name", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # enough for networks of this size
    )


def finish(flags: list[str], logs: Path) -> Path:
    """Starts a run, or goes on with it, and waits for its end; its run directory."""
    process = start(flags, logs)
    output = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f"a run that was left alone failed: {output}")
    return logs / "run"


def kill(
    flags: list[str],
    logs: Path,
    sent: signal.Signals,
    moment: str,
    epoch: int,
    seconds: float,
) -> tuple[int, float, str]:
    """Starts a run, or goes on with it, and kills it at the given moment.

    Args:
        moment: "start-up"; "run directory": when it was created and has no checkpoint yet;
            "training"; "writing": when a checkpoint is being written; or "results": after the last
            checkpoint, while scores and film are made.
        epoch: for the last three, the epoch whose sample grids have to exist first.
        seconds: to wait then; for the first two, from the start of the process.

    Returns:
        The exit status, 0 if the run had come to its end; the seconds it had trained since its
        last checkpoint; and what is wrong with the way it ended, if anything.
    """
    grids = "*/interpolation_epoch_{:04d}.png"
    # The last file that is written before training begins.
    last_file = "*/args.json" if (logs / "run" / CHECKPOINT).exists() else grids.format(0)

    def written(pattern: str) -> float:
        """When this process wrote the newest such file, 0 if it wrote none."""
        times = (path.stat().st_mtime for path in logs.glob(pattern))
        return max((t for t in times if t > started), default=0)

    def wait_until(condition: Callable[[], Any]) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.0002)

    started, process = time.time(), start(flags, logs)
    if moment in ("training", "writing", "results"):
        wait_until(lambda: written(last_file) and any(logs.glob(grids.format(epoch))))
    if moment == "results":
        wait_until(lambda: written(f"*/{CHECKPOINT}") > written(grids.format(epoch)))
    time.sleep(seconds)
    if moment == "run directory":
        wait_until(lambda: any(logs.iterdir()))
    if moment == "writing":
        # The file is there for some milliseconds, until it is safely on disk and renamed.
        wait_until(lambda: any(logs.glob("*/checkpoints/*.unfinished")))

    began = written(last_file)
    lost = time.time() - max(began, written(f"*/{CHECKPOINT}")) if began else 0
    process.send_signal(sent)
    output = process.communicate()[0]
    if FINISHED in output:
        return 0, 0, ""
    if sent == signal.SIGINT and process.returncode == 130:
        right = "Traceback" not in output
    else:  # SIGINT, too, while modules are imported
        right = process.returncode == -sent and not (sent == signal.SIGINT and began)
    return process.returncode, lost, "" if right else f"{moment}: {output}"


class Case(NamedTuple):
    """A run to kill: its flags, the signal, and `moment, epoch, seconds` of each kill."""

    flags: list[str]
    sent: signal.Signals
    kills: list[tuple[str, int, float]]
    straight: dict  # the contents of the straight run


def check(number: int, case: Case) -> tuple[bool, float]:
    """Kills a run, lets it finish in the end, and prints a line about it.

    Returns:
        Whether all is well, and the most seconds of training that a kill has lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        results = [kill(case.flags, logs, case.sent, *moment) for moment in case.kills]
        run = finish(case.flags, logs)
        differing = difference(contents(run), case.straight)
        epoch = max(seconds for _, seconds in scalars(run)["seconds_per_epoch"])
    statuses, losses, problems = zip(*results, strict=True)
    if not all(statuses):  # it had come to its end before one of the moments
        earlier = [
            (moment, epoch if moment == "results" else 0, seconds / 2)
            for moment, epoch, seconds in case.kills
        ]
        return check(number, case._replace(kills=earlier))
    problems = [problem for problem in (*problems, differing) if problem]
    lost = max(losses)
    if lost > MAY_LOSE + epoch + 1:  # a second for writing the files
        problems.append("lost too much")
    moments = ", ".join(moment for moment, *_ in case.kills)
    ended = f"exit status {' '.join(map(str, statuses))}, lost {lost:.1f} s"
    verdict = "WRONG: " + "; ".join(problems) if problems else "identical"
    print(f"{number:>2}. {case.sent.name:<7} {moments:<24} {ended:<32} {verdict}", flush=True)
    return not problems, lost


def contents(run: Path) -> dict[str, Any]:
    """All that has to be equal: checkpoint, scalars, sample grids, scores and film."""
    saved = torch.load(run / CHECKPOINT, weights_only=True)
    del saved["args"]  # no tensors
    curves = scalars(run)
    curves["seconds_per_epoch"] = [step for step, _ in curves["seconds_per_epoch"]]
    files = [*run.glob("*.png"), run / "progress.gif", run / "scores.json"]
    return {**saved, **curves, **{file.name: np.fromfile(file, np.uint8) for file in files}}


def difference(actual: dict[str, Any], expected: dict[str, Any]) -> str:
    """What differs between the contents of two runs, empty if nothing does."""
    try:
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    except AssertionError as error:
        return str(error)
    return ""


def main() -> int:
    # Under nohup SIGINT is ignored, and the runs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10, help="runs per signal")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two_at_a_time:
        run = finish(SHORT, Path(folder, "short"))
        straight = contents(run)
        training = sum(seconds for _, seconds in scalars(run)["seconds_per_epoch"])
        print(f"{training:.1f} s of training", flush=True)

        # The latest seconds to wait; from one checkpoint to the next it is two epochs.
        latest = {"training": training / 3, "writing": 0, "results": 2}
        latest |= {"start-up": 4, "run directory": 0}
        cases = []
        for sent in SIGNALS * args.each:
            moments = [MOMENTS[len(cases) % len(MOMENTS)]]
            if moments != ["results"] and rng.random() < 0.5:
                # Kill it twice, without enough left for a third time.
                moments.append(rng.choice(["start-up", "writing"]))
            kills = []
            for moment in moments:
                epoch = EPOCHS if moment == "results" else rng.choice([0, 2, 4])
                kills.append((moment, epoch, rng.uniform(0, latest[moment])))
            cases.append(Case(SHORT, sent, kills, straight))
        if args.each >= 10:  # the last of each signal: a minute without a sample grid
            count = str(round(60 / training * EPOCHS))
            long = [*SMALL, "--epochs", count, "--save_every", count]
            straight = contents(finish(long, Path(folder, "long")))
            for i, sent in enumerate(SIGNALS, -len(SIGNALS)):
                cases[i] = Case(long, sent, [("training", 0, rng.uniform(15, 45))], straight)
        results = list(two_at_a_time.map(check, itertools.count(1), cases))
    identical = sum(ok for ok, _ in results)
    lost = max(lost for _, lost in results)
    print(f"{identical} of {len(cases)} identical; at most {lost:.1f} s of training were lost")
    return int(identical < len(cases))


if __name__ == "__main__":
    sys.exit(main())
