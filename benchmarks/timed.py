"""Trains as train_torch.py does, and saves the averaged weights and the time after each epoch.

python -m benchmarks.timed DIRECTORY [FLAG ...]        for benchmarks.quality --speedrun
"""

import sys
import time
from pathlib import Path

import torch

from train_torch import GAN, main, parse_args

STEPS = 469  # in an epoch; importing benchmarks.common would delay the start


class TimedGAN(GAN):
    """A GAN that saves its averaged weights after each epoch, which takes milliseconds."""

    def update_average(self, steps_done: int) -> None:
        super().update_average(steps_done)
        if (steps_done + 1) % STEPS == 0:
            path = Path(sys.argv[1], f"{(steps_done + 1) // STEPS:03}.pt")
            torch.save((time.time(), self.averaged.state_dict()), path)


if __name__ == "__main__":
    main(parse_args([*sys.argv[2:], "--log_dir", sys.argv[1]]), gan=TimedGAN)
