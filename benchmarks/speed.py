"""How long a training step takes, beside its matmuls alone and beside a plain loop.

    python -m benchmarks.speed        about two minutes; leave the machine idle

Timed are, a few steps of each in turn:
(a) the matmuls of a step, those that are mathematically needed, and nothing else;
(b) `train_gan` with the project's loader and loggers, in fp32 and in bf16;
(c) `plain_loop` of common.py, with 4 data-loading workers and with none.
"""

import argparse
import tempfile
from itertools import pairwise
from statistics import median

import torch

from benchmarks import common
from benchmarks.common import BATCH, ratio
from train_torch import has_bf16
from utils import SummaryWriter

GEN_SIZES = list(pairwise((common.Z_DIM, *common.GEN, 784)))
DISC_SIZES = list(pairwise((784, *common.DISC, 1)))
ONLY, PLAIN = "matmuls alone", "plain loop, 4 workers"


def matmuls() -> common.Run:
    """The matmuls of steps of both networks."""

    def forward(sizes, n):
        return [(torch.randn(n, i), torch.randn(o, i).t()) for i, o in sizes]

    def weight_gradients(sizes, n):
        return [(torch.randn(n, o).t(), torch.randn(n, i)) for i, o in sizes]

    def input_gradients(sizes, n):
        return [(torch.randn(n, o), torch.randn(o, i)) for i, o in sizes]

    pairs = [
        # Discriminator's step: generate, classify real and fake images, weight gradients.
        *forward(GEN_SIZES, BATCH),
        *forward(DISC_SIZES, 2 * BATCH),
        *weight_gradients(DISC_SIZES, 2 * BATCH),
        *input_gradients(DISC_SIZES[1:], 2 * BATCH),
        # Generator's step: generate, classify, back through the discriminator, weight gradients.
        *forward(GEN_SIZES, BATCH),
        *forward(DISC_SIZES, BATCH),
        *input_gradients(DISC_SIZES, BATCH),
        *weight_gradients(GEN_SIZES, BATCH),
        *input_gradients(GEN_SIZES[1:], BATCH),
    ]

    def run(steps: int) -> None:
        for _ in range(steps):
            for a, b in pairs:
                a @ b

    return run


def print_steps(seconds: dict[str, list[float]]) -> None:
    """Prints a Markdown table of the seconds per step of each."""
    print("| | ms per step | x matmuls | speedup | s per epoch |")
    print("|" + " --- |" * 5)
    for name, of in seconds.items():
        step = median(of)
        cells = [
            name,
            f"{1e3 * step:.2f}",
            f"{ratio(of, seconds[ONLY]):.2f}",
            f"{ratio(seconds[PLAIN], of):.2f}",
            f"{common.STEPS * step:.1f}",
        ]
        print("|", " | ".join(cells), "|")
    print("\nThe speedup is over the plain loop with 4 workers.\n")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.manual_seed(0)
    print(f"{common.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    # Closes the event file before the directory is removed.
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        runs = {ONLY: matmuls(), "train_gan": common.project(writer)}
        if has_bf16("cpu"):
            runs["train_gan, bf16"] = common.project(writer, bf16=True)
        runs[PLAIN] = common.plain_loop(folder, workers=4)
        runs["plain loop, no workers"] = common.plain_loop(folder, workers=0)
        print_steps(common.interleaved(runs))


if __name__ == "__main__":
    main()
