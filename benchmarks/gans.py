"""Subclasses of GAN, each for the flag --gan of train_torch.py; the recipes are in quality.py.

python train_torch.py --gan benchmarks.gans:CourseGAN
"""

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train_torch import GAN


class CourseGAN(GAN):
    """The usual GAN of tutorials: PyTorch's initialization, and images in [-1, 1] for *D*."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        # The discriminator in models.py scales images to [0, 1]; this undoes it.
        self.discriminator.register_forward_pre_hook(lambda _, images: 2 * images[0] - 1)


class TimedGAN(GAN):
    """A GAN that saves its averaged weights and the time after each epoch, in milliseconds.

    For `train_timed` of common.py; the files go to the directory of the environment's TIMED_DIR.
    """

    def update_average(self) -> None:
        super().update_average()
        epoch, step = divmod(self.steps_done + 1, 469)
        if step == 0:
            path = Path(os.environ["TIMED_DIR"], f"{epoch:03}.pt")
            torch.save((time.time(), self.averaged.state_dict()), path)
