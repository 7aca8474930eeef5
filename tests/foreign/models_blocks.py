"""A models.py of blocks: spectral normalization, orthogonal weights, dropout as a function."""

from math import prod

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class Block(nn.Module):
    def __init__(self, size_in, size_out, rate, normalized):
        super().__init__()
        self.rate = rate
        self.linear = nn.Linear(size_in, size_out)
        nn.init.orthogonal_(self.linear.weight)
        if normalized:
            self.linear = spectral_norm(self.linear)

    def forward(self, x):
        return functional.dropout(functional.gelu(self.linear(x)), self.rate, self.training)


class Blocks(nn.Module):
    def __init__(self, size_in, hidden_dims, size_out, rate, normalized=False):
        super().__init__()
        self.first_width, self.last_width = hidden_dims[0], hidden_dims[-1]
        sizes = [size_in, *hidden_dims]
        self.blocks = nn.ModuleList(
            Block(a, b, rate, normalized) for a, b in zip(sizes, hidden_dims, strict=False)
        )
        self.output = nn.Linear(self.last_width, size_out)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.output(x)


class GeneratorMLP(nn.Module):
    def __init__(
        self, z_dim=32, hidden_dims=(128, 256, 512, 1024), output_shape=(1, 28, 28), dp_rate=0.1
    ):
        super().__init__()
        self.shape = tuple(output_shape)
        self.blocks = Blocks(z_dim, hidden_dims, prod(self.shape), dp_rate)
        self.register_buffer("where", torch.zeros(()), persistent=False)

    def forward(self, z):
        return 2 * torch.sigmoid(2 * self.blocks(z).unflatten(-1, self.shape)) - 1

    @property
    def device(self):
        return self.where.device


class DiscriminatorMLP(nn.Module):
    def __init__(self, input_dims=784, hidden_dims=(512, 256), dp_rate=0.3):
        super().__init__()
        self.input_dims = input_dims
        self.blocks = Blocks(input_dims, hidden_dims, 1, dp_rate, normalized=True)

    def forward(self, x):
        return self.blocks((x.reshape(-1, self.input_dims) + 1) / 2)
