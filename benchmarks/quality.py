"""Trains recipes over several seeds, two runs at a time, and prints a table of their scores.

    python -m benchmarks.quality                        all recipes, three seeds; about 3 hours
    python -m benchmarks.quality default --seeds 3 --epochs 10    one run of 10 epochs
    python -m benchmarks.quality --summary              the table of the runs so far, trains nothing
    python -m benchmarks.quality --speedrun             seconds to two distances; leave it idle

A run is a process with one thread and has the name <recipe>-seed<seed> in --log_dir; runs that
were killed are resumed, what was scored is not repeated.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import common
from benchmarks.common import STEPS
from evaluate import spread
from metrics import SCORES, score
from mnist import mnist
from train_torch import GAN, has_bf16, parse_args, score_samples
from utils import SummaryWriter, git_commit

# Epochs after which each recipe is scored, and its flags. Those after "default" change one thing in
# it, "wide_slow" two: twice as wide networks need half the learning rates.
COURSE = "--gan benchmarks.gans:CourseGAN --lr 2e-4 --lr_disc 2e-4 --decay_from 1000000"
COURSE += " --betas 0.5 0.999 --r1 0 --ema 0 --dp_rate_gen 0.1 --dp_rate_disc 0.3 --categories 0"
WIDE = "--hidden_dims_gen 256 512 1024 --hidden_dims_disc 1024 512"
RECIPES = {
    "course": ([250], COURSE + " --precision fp32"),
    "minimal": ([50], ""),  # minimal_gan.py, by minimal.py
    "default": ([10, 20, 50], ""),
    "fp32": ([20, 50], "--precision fp32"),
    "no_categories": ([20, 50], "--categories 0"),
    "no_averaging": ([20], "--ema 0"),
    "no_penalty": ([20], "--r1 0"),
    "usual_betas": ([20], "--betas 0.5 0.999"),
    "wide_slow": ([50], WIDE + " --lr 1e-3 --lr_disc 5e-4"),
}
SHOWN = *SCORES, "purity"  # which is of categories alone
GOALS = 1.24, 0.5  # about what the usual recipe has after 250 epochs; what it never reaches


def train(recipe: str, seed: int, epochs: Sequence[int], log_dir: Path) -> None:
    """Trains or resumes one run; what it prints goes to a file beside its run directory.

    It is extended to each of these numbers of epochs, and scored there: the learning rate depends
    on the epoch alone, so these are the scores of runs of so many epochs.
    """
    default, flags = RECIPES[recipe]
    name = f"{recipe}-seed{seed}"
    command = [sys.executable, "train_torch.py", *flags.split(), "--name", name, "--log_dir"]
    command += [log_dir, "--seed", str(seed), "--save_every", "5"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    if recipe == "minimal":
        command = [sys.executable, "-m", "benchmarks.minimal", str(seed), log_dir]
    for number in epochs or default:
        path = log_dir / f"{name}-epoch{number:03}.json"
        if path.exists():
            continue
        with open(log_dir / f"{name}.txt", "a") as output:
            options = {"cwd": common.REPOSITORY, "env": one_thread, "stdout": output}
            extended = [] if recipe == "minimal" else ["--epochs", str(number)]
            done = subprocess.run([*command, *extended], stderr=output, **options)
        if done.returncode:
            print(f"{name} failed; see {output.name}", flush=True)
            break
        if recipe != "minimal":  # which writes its scores itself
            shutil.copy(log_dir / name / "scores.json", path)
        print(f"{name}: {number} epochs", flush=True)


def with_dropout(run: Path) -> dict[str, float]:
    """Scores of a run's samples with dropout on, as templates do by forgetting `eval()`."""
    model = GAN.from_checkpoint(run)
    with torch.no_grad():
        images = model.averaged.train()(model.latents(10_000, torch.Generator().manual_seed(0)))
    return score(images)


def summary(log_dir: Path, recipes: Sequence[str]) -> None:
    """Prints a Markdown table, a row for each recipe and number of epochs that was scored."""
    names = [name.replace("_", " ") for name in SHOWN]
    print("| recipe | seeds | epochs |", " | ".join(names), "|")
    print("|" + " --- |" * (3 + len(names)))
    for recipe in recipes:
        paths = log_dir.glob(f"{recipe}-seed*-epoch*.json")
        for epochs in sorted({path.stem.split("-epoch")[1] for path in paths}, key=int):
            paths = log_dir.glob(f"{recipe}-seed*-epoch{epochs}.json")
            scores = [json.loads(path.read_text()) for path in paths]
            row = [f"`{recipe}`", str(len(scores)), str(int(epochs))]
            for name in SHOWN:
                digits = 3 if name in ("frechet_distance", "smallest_share") else 2
                values = [of[name] for of in scores if name in of]
                row.append(spread(values, digits))
            if recipe == "course":
                runs = [path.parent for path in log_dir.glob("course-seed*/args.json")]
                on = [with_dropout(run)["frechet_distance"] for run in runs]
                row[3] += f" (dropout on when sampling: {spread(on, 3)})"
            print("|", " | ".join(row), "|")
    floor = score(mnist().dataset.images[:10_000])
    digits = [f"{floor[name]:.3f}" for name in SCORES]
    print("| 10,000 training images | | |", " | ".join(digits), "| |")


def reach(seed: int, precision: str) -> tuple[list[float], list[int]]:
    """Trains the default recipe; seconds from the start of the process and epochs to the GOALS.

    The averaged weights after each epoch are scored when training is over, by 10,000 samples.
    """
    started = time.time()
    saved = common.train_timed(seed, 20, "--precision", precision)
    model, distances = GAN.from_args(parse_args([])), []
    for _, weights in saved:
        model.averaged.load_state_dict(weights)
        distances.append(score_samples(model, 10_000)["frechet_distance"])
    epochs = [next(i for i, d in enumerate(distances) if d < goal) + 1 for goal in GOALS]
    seconds = [saved[epoch - 1][0] - started for epoch in epochs]
    print(f"seed {seed}: {seconds} s, {epochs} epochs to {GOALS}", flush=True)
    return seconds, epochs


def speedrun(seeds: Sequence[int], precision: str) -> None:
    """Prints the seconds to the GOALS, and where the factor over a plain loop comes from."""
    seconds, epochs = zip(*(reach(seed, precision) for seed in seeds), strict=True)
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        runs = {f"plain {workers}": common.plain_loop(folder, workers) for workers in (0, 4)}
        runs |= {"course": common.project(writer, COURSE), "fp32": common.project(writer)}
        if has_bf16("cpu"):
            runs["bf16"] = common.project(writer, bf16=True)
        steps = {name: median(of) for name, of in common.interleaved(runs).items()}
    plain = min(steps.pop("plain 0"), steps.pop("plain 4"))
    needed = STEPS * np.mean(epochs, 0)[0]
    rows = {
        "the usual recipe in a plain loop": 250 * STEPS * plain,
        "the usual recipe in our loop": 250 * STEPS * steps.pop("course"),
        **{f"our recipe in {name}": needed * step for name, step in steps.items()},
        f"the same with start-up, grids and scores ({precision})": np.mean(seconds, 0)[0],
    }
    first, second = (spread(of, 1) for of in zip(*seconds, strict=True))
    cells = [date.today(), git_commit()[:7], common.processor(), torch.get_num_threads(), precision]
    cells += [first, second, f"{rows['the usual recipe in a plain loop']:.0f}"]
    print("| date | commit | processor | threads | precision |", end="")
    print(f" s to {GOALS[0]} | s to {GOALS[1]} | plain loop |\n|" + " --- |" * 8)
    print("|", " | ".join(map(str, cells)), "|\n")
    print(f"| | seconds to {GOALS[0]} | times as fast as the row above |\n| --- | --- | --- |")
    above = None
    for name, value in rows.items():
        print(f"| {name} | {value:.0f} |", f"{above / value:.1f} |" if above else " |")
        above = value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}; default: all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of each recipe")
    parser.add_argument("--epochs", type=int, nargs="*", help="epochs after which to score a run")
    parser.add_argument("--log_dir", type=Path, default=Path("GAN_logs/quality"))
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--speedrun", action="store_true", help="train the default alone; idle!")
    parser.add_argument("--precision", default="auto", help="of the speedrun")
    args = parser.parse_args()
    recipes = args.recipes or list(RECIPES)
    if unknown := set(recipes) - set(RECIPES):
        parser.error(f"there is no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")

    if args.speedrun:
        speedrun(args.seeds, args.precision)
        return
    args.log_dir = args.log_dir.absolute()  # the runs' current directory is the repository
    args.log_dir.mkdir(parents=True, exist_ok=True)
    if not args.summary:
        with ThreadPoolExecutor(2) as two_at_a_time:
            jobs = [(recipe, seed) for seed in args.seeds for recipe in recipes]
            list(two_at_a_time.map(lambda job: train(*job, args.epochs, args.log_dir), jobs))
    summary(args.log_dir, recipes)


if __name__ == "__main__":
    main()
