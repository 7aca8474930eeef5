"""Trains the usual recipe of GAN tutorials, the baseline of benchmarks/quality.py.

    python -m benchmarks.course --epochs 250 [flags of train_torch.py]

The same networks, data and loop as train_torch.py, but PyTorch's initialization, the
discriminator's input in [-1, 1], both learning rates 2e-4 and constant, Adam's betas (0.5, 0.999),
dropout, no gradient penalty and no averaged weights. Samples are generated with dropout on, as most
templates do by forgetting `eval()`; `python evaluate.py RUN` scores them without it.
"""

import copy
import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import command_line
from models import DiscriminatorMLP, GeneratorMLP
from train_torch import GAN, main, parse_args

FLAGS = "--lr 2e-4 --lr_disc 2e-4 --decay_from 1000000 --betas 0.5 0.999 --r1 0 --ema 0"
FLAGS += " --dp_rate_gen 0.1 --dp_rate_disc 0.3 --precision fp32"


class Discriminator(DiscriminatorMLP):
    """A discriminator whose input is the image as it is, in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class CourseGAN(GAN):
    """A GAN with PyTorch's initialization, which generates samples with dropout on."""

    def __init__(
        self,
        hidden_dims_gen: Sequence[int],
        hidden_dims_disc: Sequence[int],
        dp_rate_gen: float,
        dp_rate_disc: float,
        z_dim: int,
        **options: float,
    ):
        networks = hidden_dims_gen, hidden_dims_disc, dp_rate_gen, dp_rate_disc
        with torch.random.fork_rng(devices=[]):  # its networks are replaced, and use up no numbers
            super().__init__(*networks, z_dim, **options)
        self.generator = default_initialization(
            GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        )
        self.discriminator = default_initialization(
            Discriminator(hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc)
        )
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images `[B, C, H, W]` of the latents `[B, z_dim]`, in training mode."""
        return self.averaged.train()(z)


def default_initialization(network: nn.Module) -> nn.Module:
    """Initializes all linear layers as PyTorch does."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return network


if __name__ == "__main__":
    flags = [*FLAGS.split(), *sys.argv[1:]]
    command_line.run(lambda: main(parse_args(flags), gan=CourseGAN), OSError, FloatingPointError)
