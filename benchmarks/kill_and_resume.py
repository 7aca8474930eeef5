"""Kills real training runs at random moments, resumes them, and compares with one left alone.

    python benchmarks/kill_and_resume.py            10 each of kill -9, SIGTERM and Ctrl-C
    python benchmarks/kill_and_resume.py --each 1   one of each

Weights, Adam's moments, random states and TensorBoard's scalars have to be equal, bit for bit.
Exit status 1 if any run differs.
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = [sys.executable, str(Path(__file__).resolve().parent.parent / "train_torch.py")]
FLAGS = "--epochs 4 --save_every 2 --batch_size 256 --hidden_dims_gen 64 --hidden_dims_disc 64"
STOPS = {  # what is sent, and the exit status that it has to give
    signal.SIGKILL: -signal.SIGKILL,
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
}

FINISHED = "Checkpoint: "  # what a run says at its end


def train(*flags: str) -> subprocess.Popen:
    """Starts training in a process of its own."""
    return subprocess.Popen(
        [*TRAIN, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"OMP_NUM_THREADS": "1", **os.environ},  # enough for networks of this size
    )


def start(logs: Path) -> subprocess.Popen:
    """Starts a new run and waits until it has made its folder and is about to train."""
    process = train(*FLAGS.split(), "--log_dir", str(logs))
    while process.poll() is None and not any(logs.glob("*/args.json")):
        time.sleep(0.01)
    return process


def run_in(logs: Path) -> Path:
    """The one run in a log folder."""
    (run,) = logs.iterdir()
    return run


def leaves(value, path: str = "") -> dict:
    """All values in nested dicts and lists, by their path."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, item in items for k, v in leaves(item, f"{path}/{name}").items()}
    return {path: value}


def outcome(run: Path) -> dict:
    """All that has to be equal: the checkpoint, but for paths and times, and the scalars."""
    contents = torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)
    del contents["args"], contents["batches"]["seconds"]
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        scalars = [(e.step, e.value) for e in events.Scalars(tag)]
        contents[tag] = [step for step, _ in scalars] if tag == "seconds_per_epoch" else scalars
    return leaves(contents)


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10, help="runs per way of stopping")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    args = parser.parse_args()
    moments = random.Random(args.seed)

    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder, "straight")
        process, started = start(logs), time.perf_counter()
        if process.wait() != 0:
            sys.exit(f"the run that is left alone failed: {process.stdout.read().decode()}")
        duration = time.perf_counter() - started
        straight = outcome(run_in(logs))
        print(f"left alone: {duration:.1f} s of training, {len(straight)} values to compare")

        equal = 0
        for number, (sent, status) in enumerate(list(STOPS.items()) * args.each, 1):
            said = FINISHED
            while FINISHED in said:  # else the moment was too late: again with another
                logs = Path(tempfile.mkdtemp(dir=folder))
                process, moment = start(logs), moments.uniform(0, duration)
                time.sleep(moment)
                process.send_signal(sent)
                code, said = process.wait(), process.stdout.read().decode()
            resumed = train("--resume", str(run_in(logs)))
            output = resumed.communicate()[0].decode()
            problems = differences(straight, outcome(run_in(logs)))
            if resumed.returncode != 0 or code != status:
                problems += [f"exit statuses {code}, {resumed.returncode}: {said} {output}"]
            saved = next((line for line in said.splitlines() if line.startswith("Saved")), "")
            print(
                f"{number:>2}. {sent.name} after {moment:4.1f} s: exit status {code:>3}, then "
                f"{'identical' if not problems else 'DIFFERENT: ' + '; '.join(problems[:9])}   "
                f"{saved.removesuffix(' Go on:')}",
                flush=True,
            )
            equal += not problems
    print(f"{equal} of {3 * args.each} identical")
    return int(equal < 3 * args.each)


if __name__ == "__main__":
    sys.exit(main())
