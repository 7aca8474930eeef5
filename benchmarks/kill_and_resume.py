"""Kills real training runs at random moments, resumes them, and compares with a straight run.

    python -m benchmarks.kill_and_resume            10 each of kill -9, SIGTERM and Ctrl-C
    python -m benchmarks.kill_and_resume --each 1   one of each

A run is killed once or twice, anywhere between its start and its end, and started again by the same
command. In the end weights, Adam's moments, TensorBoard's scalars, sample grids, scores and film
have to be equal to those of the straight run, bit for bit. Exit status 1 if anything is otherwise.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import REPOSITORY, scalars
from checkpoint import CHECKPOINT

SMALL = "--batch_size 1024 --hidden_dims_gen 16 --hidden_dims_disc 16 --epochs 6 --save_every 2"
SIGNALS = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


def start(logs: Path) -> subprocess.Popen:
    """Starts training in `logs`/run, or resumes it."""
    command = [sys.executable, str(REPOSITORY / "train_torch.py"), *SMALL.split()]
    return subprocess.Popen(
        [*command, "--log_dir", str(logs), "--name", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # enough for networks of this size
    )


def kill(logs: Path, sent: signal.Signals, seconds: float) -> str:
    """Starts or resumes a run and kills it after so many seconds; what is wrong with its end."""
    process = start(logs)
    time.sleep(seconds)
    process.send_signal(sent)
    output = process.communicate()[0]
    # Python itself ends by SIGINT while modules are imported, and by 0 if it was at its end.
    right = {-sent, 0} | ({130, 1} if sent == signal.SIGINT else set())
    interrupted = "KeyboardInterrupt" in output.splitlines()[-1:] or "Traceback" not in output
    wrong = process.returncode not in right or not interrupted
    return f"exit status {process.returncode}: {output}" if wrong else ""


def contents(logs: Path) -> dict[str, Any]:
    """All that has to be equal: checkpoint, scalars, sample grids, scores and film."""
    run = logs / "run"
    saved = torch.load(run / CHECKPOINT, weights_only=True) | {"args": None}
    curves = scalars(run)
    curves["seconds_per_epoch"] = [step for step, _ in curves["seconds_per_epoch"]]
    files = [*run.glob("*.png"), run / "progress.gif", run / "scores.json"]
    return {**saved, **curves, **{file.name: np.fromfile(file, np.uint8) for file in files}}


def check(number: int, sent: signal.Signals, moments: list[float], straight: dict) -> bool:
    """Kills a run at each of the moments, lets it come to its end, and prints a line about it."""
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        problems = [problem for moment in moments if (problem := kill(logs, sent, moment))]
        output = start(logs).communicate()[0]
        try:
            torch.testing.assert_close(contents(logs), straight, rtol=0, atol=0)
        except (AssertionError, OSError) as error:
            problems.append(f"{error}\n{output}")
    when = " and ".join(f"{moment:.1f} s" for moment in moments)
    verdict = "WRONG: " + "; ".join(problems) if problems else "identical"
    print(f"{number:>2}. {sent.name:<7} after {when:<20} {verdict}", flush=True)
    return not problems


def main() -> int:
    # Under nohup SIGINT is ignored, and the runs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10, help="runs to kill by each signal (10)")
    parser.add_argument("--seed", type=int, help="of the moments; default: another each time")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as two_at_a_time:
        started = time.time()
        start(Path(folder)).communicate()
        seconds, straight = time.time() - started, contents(Path(folder))
        print(f"a straight run takes {seconds:.1f} s", flush=True)
        cases = []
        for number in range(1, len(SIGNALS) * args.each + 1):
            moments = [rng.uniform(0, seconds) for _ in range(rng.choice([1, 2]))]
            cases.append((number, SIGNALS[number % 3], moments, straight))
        identical = sum(two_at_a_time.map(lambda case: check(*case), cases))
    print(f"{identical} of {len(cases)} identical")
    return int(identical < len(cases))


if __name__ == "__main__":
    sys.exit(main())
