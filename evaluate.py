"""Scores the samples of trained generators, always against MNIST's test images; see metrics.py.

    python evaluate.py GAN_logs/<name>      a run, under a minute on 2 cores
    python evaluate.py GAN_logs/*           a table of runs, the best distance first
    python evaluate.py                      the pretrained generator

Scores depend on the number of samples: compare those of the same number.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from tqdm import tqdm

import checkpoint
import command_line
from metrics import REFERENCE, nearest_images
from mnist import mnist
from train_torch import GAN, PRETRAINED, score_samples
from utils import image_grid, to_gray

SEARCHED = 1000  # samples whose nearest training image is searched
PAIRS = 10  # shown by --pairs
COLUMNS = "frechet_distance", "precision", "recall", "confident", "purity"  # of the table
NOT_COMPARED = checkpoint.MAY_CHANGE - {"data_dir"} | {"seed"}  # may differ within a row


def scores_of(run: str, epoch: int, num_samples: int, seed: int) -> dict[str, float]:
    """The scores that a run has written at its end if they are such ones, else computed ones."""
    wanted = {"epochs": epoch, "num_samples": num_samples, "seed": seed}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        written = json.loads(Path(run, "scores.json").read_text())
        if wanted.items() <= written.items():
            return written
    return score_samples(GAN.from_checkpoint(run), num_samples, seed)


def compare(runs: Sequence[str], num_samples: int, seed: int) -> list[dict[str, Any]]:
    """The rows of a table, the best first. Runs that differ in their seeds are one row.

    Returns:
        For each row its "args", with the epochs that are done, and in "runs" for each seed the
        name of the run and its scores.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in tqdm(runs, "runs", leave=False):
        try:
            saved = checkpoint.load(run)
            scores = scores_of(run, saved["epoch"], num_samples, seed)
        except Exception as error:  # a class of one's own can fail in any way; the others are shown
            tqdm.write(f"skipped: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        args = {k: v for k, v in saved["args"].items() if k not in NOT_COMPARED and v is not None}
        args["epochs"] = saved["epoch"]
        row = rows.setdefault(json.dumps(args, sort_keys=True), {"args": args, "runs": {}})
        row["runs"][saved["args"]["seed"]] = {"run": Path(run).name, **scores}
    return sorted(rows.values(), key=lambda row: mean(values(row, "frechet_distance")))


def values(row: dict[str, Any], name: str) -> list[Any]:
    """One of the scores of those runs of a row that have it."""
    return [run[name] for run in row["runs"].values() if name in run]


def print_table(table: Sequence[dict[str, Any]]) -> None:
    """Prints the rows, with the arguments in which they differ."""
    names = dict.fromkeys(name for row in table for name in row["args"] if name != "epochs")
    differing = [n for n in names if len({str(row["args"].get(n)) for row in table}) > 1]
    shown = ["epochs", *differing]
    lines = [["run", "seeds", *shown, "distance", *COLUMNS[1:]]]
    for row in table:
        first, *more = values(row, "run")
        run = f"{first} (+{len(more)})" if more else first
        arguments = (row["args"].get(name, "") for name in shown)
        scores = (spread(values(row, name)) for name in COLUMNS)
        lines.append([run, 1 + len(more), *arguments, *scores])
    lines = [[*map(str, line)] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(*map(str.ljust, line, widths), sep="  ")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and, of several values, standard deviation; "" of none."""
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the scores of a run directory or a checkpoint file, one per line, or a table of runs.

    The medians of the distances from samples and from test images to their nearest training image,
    L2 over pixels in [-1, 1], tell memorization: samples would have the smaller one.
    """
    parser = command_line.Parser(
        description="Scores the samples of trained generators against MNIST's test images.",
        epilog="Example: python evaluate.py GAN_logs/2026-01-31_12-00-00 --pairs closest.png",
    )
    add = parser.add_argument
    add("runs", nargs="*", default=[str(PRETRAINED)], metavar="run", help=command_line.RUN)
    number = command_line.checked(int, "an integer of at least 20", lambda n: n >= 20)
    add("--num_samples", type=number, default=10_000, help="samples to score (default: 10000)")
    add("--seed", type=command_line.seed, default=0, help="seed of the latents (default: 0)")
    add("--data_dir", type=command_line.path, help="as for train_torch.py")
    add("--json", action="store_true", help="print the scores as JSON, of several runs as a list")
    pairs = "save the samples closest to training images, above these"
    add("--pairs", type=command_line.path, metavar="PNG", help=pairs)
    args = parser.parse_args(argv)

    run, *more = command_line.expanded(args.runs)
    if more:
        if args.pairs:
            raise argparse.ArgumentTypeError("argument --pairs: only of a single run")
        table = compare([run, *more], args.num_samples, args.seed)
        print(json.dumps(table, indent=2)) if args.json else print_table(table)
        return
    model = GAN.from_checkpoint(run)
    scores = score_samples(model, args.num_samples, args.seed)
    samples = model.sample(args.num_samples, torch.Generator().manual_seed(args.seed))[:SEARCHED]
    loader = mnist(root=args.data_dir, download=False) if args.data_dir else mnist()
    training = torch.cat([to_gray(images) for images, _ in loader])
    distances, neighbors = nearest_images(samples, training)
    scores["nearest_training_image"] = distances.median().item()
    of_test = torch.load(REFERENCE, weights_only=True)["nearest_training_image"]
    scores["nearest_training_image_of_test"] = of_test.item()
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, value in scores.items():
            print(f"{name:32}{value:10.4g}")
    if args.pairs:
        closest = distances.argsort()[:PAIRS]
        pairs = torch.cat([to_gray(samples[closest]), training[neighbors[closest]]])
        image_grid(pairs, len(closest), scale=3).save(args.pairs, "PNG")


if __name__ == "__main__":
    command_line.run(main)
