"""Trains the recipe of train_torch.py with layer normalization in the generator.

    python benchmarks/layer_norm.py [flags of train_torch.py]

A recipe of benchmarks/quality.py, and an example of how to train a network of your own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train_torch  # isort: skip

from torch import nn

from models import GeneratorMLP


class Generator(GeneratorMLP):
    """A generator that normalizes the outputs of each hidden linear layer (Ba et al., 2016)."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        *hidden, last = self.layers
        layers = []
        for layer in hidden:
            layers.append(layer)
            if isinstance(layer, nn.Linear):
                layers.append(nn.LayerNorm(layer.out_features))
        self.layers = nn.Sequential(*layers, last)


if __name__ == "__main__":
    train_torch.GeneratorMLP = Generator
    train_torch.main(*train_torch.parse_args())
