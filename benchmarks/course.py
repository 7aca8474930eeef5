"""Trains the usual recipe of GAN tutorials, the baseline of benchmarks/quality.py.

    python benchmarks/course.py [flags of train_torch.py]       250 epochs

The same networks, data and loop as train_torch.py, but PyTorch's initialization, the
discriminator's input in [-1, 1], both learning rates 2e-4 and constant, Adam's betas (0.5, 0.999),
dropout, no gradient penalty and no averaged weights. Samples are generated with dropout on, as most
templates do by forgetting `eval()`; their final Fréchet distance is given without it, too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train_torch  # isort: skip

from torch import Tensor, nn

from metrics import Reference
from models import DiscriminatorMLP, GeneratorMLP

FLAGS = "--lr 2e-4 --lr_disc 2e-4 --decay_from 1000000 --betas 0.5 0.999 --r1 0 --ema 0"
FLAGS += " --dp_rate_gen 0.1 --dp_rate_disc 0.3 --epochs 250"
score_samples = train_torch.score_samples


class Generator(GeneratorMLP):
    """A generator with PyTorch's initialization, and dropout in evaluation mode, too."""

    dropout = True

    def __init__(self, **arguments):
        super().__init__(**arguments)
        default_initialization(self)

    def forward(self, z: Tensor) -> Tensor:
        self.layers.train(self.training or self.dropout)
        return super().forward(z)


class Discriminator(DiscriminatorMLP):
    """A discriminator with PyTorch's initialization, whose input is the image as it is."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        default_initialization(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


def default_initialization(network: nn.Module) -> None:
    """Initializes all linear layers as PyTorch does."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()


def score_with_and_without_dropout(
    model: train_torch.GAN, reference: Reference, num_samples: int
) -> dict[str, float]:
    """The scores with dropout on, and the Fréchet distance with dropout off."""
    scores = score_samples(model, reference, num_samples)
    Generator.dropout = False
    without = score_samples(model, reference, num_samples)
    Generator.dropout = True
    return scores | {"frechet_distance_no_dropout": without["frechet_distance"]}


if __name__ == "__main__":
    train_torch.GeneratorMLP, train_torch.DiscriminatorMLP = Generator, Discriminator
    train_torch.score_samples = score_with_and_without_dropout
    train_torch.main(*train_torch.parse_args([*FLAGS.split(), *sys.argv[1:]]))
