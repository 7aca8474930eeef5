"""A models.py with batch normalization in the generator, and other names of attributes."""
# ruff: noqa: B006

import torch
import torch.nn as nn
import torch.nn.functional as F


class GeneratorMLP(nn.Module):
    def __init__(
        self,
        z_dim=32,
        hidden_dims=[128, 256, 512, 1024],
        output_shape=[1, 28, 28],
        dp_rate=0.1,
    ):
        super().__init__()
        self.net = nn.Sequential()
        width = z_dim
        for number, hidden in enumerate(hidden_dims, 1):
            self.net.add_module(f"linear{number}", nn.Linear(width, hidden))
            self.net.add_module(f"norm{number}", nn.BatchNorm1d(hidden))
            self.net.add_module(f"activation{number}", nn.ReLU(inplace=True))
            self.net.add_module(f"dropout{number}", nn.Dropout(dp_rate))
            width = hidden
        self.head = nn.Linear(width, 784)

    @property
    def device(self):
        return self.head.weight.device

    def forward(self, z):
        return torch.tanh(self.head(self.net(z))).reshape(-1, 1, 28, 28)


class DiscriminatorMLP(nn.Module):
    def __init__(self, input_dims=784, hidden_dims=[512, 256], dp_rate=0.3):
        super().__init__()
        self.body = nn.ModuleList()
        for hidden in hidden_dims:
            self.body.append(nn.Linear(input_dims, hidden))
            input_dims = hidden
        self.dropout = nn.Dropout(dp_rate)
        self.logit = nn.Linear(input_dims, 1)

    def forward(self, x):
        x = torch.flatten(x, start_dim=1)
        for linear in self.body:
            x = self.dropout(F.leaky_relu(linear(x), 0.2))
        return self.logit(x)
