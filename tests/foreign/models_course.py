"""A models.py in the style of a finished course solution: everything in one nn.Sequential."""
# ruff: noqa: B006, RUF005

import numpy as np
import torch.nn as nn


class GeneratorMLP(nn.Module):
    def __init__(
        self,
        z_dim=32,
        hidden_dims=[128, 256, 512, 1024],
        output_shape=[1, 28, 28],
        dp_rate=0.1,
    ):
        super().__init__()
        self.output_shape = output_shape
        sizes = [z_dim] + hidden_dims
        self.layers = []
        for i in range(len(hidden_dims)):
            self.layers.append(nn.Linear(sizes[i], sizes[i + 1]))
            self.layers.append(nn.Dropout(dp_rate))
            self.layers.append(nn.LeakyReLU(0.2))
        self.layers.append(nn.Linear(sizes[-1], int(np.prod(output_shape))))
        self.layers.append(nn.Tanh())
        self.model = nn.Sequential(*self.layers)

    def forward(self, z):
        x = self.model(z)
        return x.view(z.shape[0], *self.output_shape)

    @property
    def device(self):
        return next(self.parameters()).device


class DiscriminatorMLP(nn.Module):
    def __init__(self, input_dims=784, hidden_dims=[512, 256], dp_rate=0.3):
        super().__init__()
        sizes = [input_dims] + hidden_dims
        self.layers = []
        for i in range(len(hidden_dims)):
            self.layers.append(nn.Linear(sizes[i], sizes[i + 1]))
            self.layers.append(nn.Dropout(dp_rate))
            self.layers.append(nn.LeakyReLU(0.2))
        self.layers.append(nn.Linear(sizes[-1], 1))
        self.model = nn.Sequential(*self.layers)

    def forward(self, x):
        x = x.view(x.shape[0], -1)
        preds = self.model(x)
        return preds
