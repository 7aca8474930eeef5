"""Trains the recipe of train_torch.py with layer normalization in the generator.

    python -m benchmarks.layer_norm [flags of train_torch.py]

A recipe of benchmarks/quality.py, and an example of how to train a network of your own.
"""

import copy
from typing import Any

from torch import nn

import command_line
from train_torch import GAN, main, parse_args


class LayerNormGAN(GAN):
    """A GAN whose generator normalizes the output of each hidden linear layer (Ba et al., 2016)."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        *hidden, last = self.generator.layers
        layers = []
        for layer in hidden:
            layers.append(layer)
            if isinstance(layer, nn.Linear):
                layers.append(nn.LayerNorm(layer.out_features))
        self.generator.layers = nn.Sequential(*layers, last)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)


if __name__ == "__main__":
    command_line.run(lambda: main(parse_args(), gan=LayerNormGAN), OSError, FloatingPointError)
