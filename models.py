"""The two networks: an MLP that generates images and an MLP that tells real from fake ones."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class GeneratorMLP(nn.Module):
    """Generates images from latents: `[B, z_dim]` to `[B, *output_shape]` in [-1, 1].

    The default `hidden_dims` are those of the course this interface comes from; `train_torch.py`
    trains a generator without the layer of 1024.

    Args:
        z_dim: length of a latent vector.
        hidden_dims: widths of the hidden layers, from input to output; may be empty.
        output_shape: shape of one image, [C, H, W].
        dp_rate: dropout rate of each hidden layer, in [0, 1).
    """

    def __init__(
        self,
        z_dim: int = 32,
        hidden_dims: Sequence[int] = (128, 256, 512, 1024),
        output_shape: Sequence[int] = (1, 28, 28),
        dp_rate: float = 0.1,
    ):
        super().__init__()
        self.output_shape = torch.Size(output_shape)
        self.layers = mlp([z_dim, *hidden_dims, self.output_shape.numel()], dp_rate)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.layers(z)).unflatten(1, self.output_shape)

    @property
    def device(self) -> torch.device:
        """The device of the parameters, where `z` has to be."""
        return next(self.parameters()).device


class DiscriminatorMLP(nn.Module):
    """Classifies images as real or fake: `[B, C, H, W]` or `[B, input_dims]` to logits `[B, 1]`.

    Images are in [-1, 1]. There is no sigmoid at the end: a positive logit says real, a negative
    one says fake.

    Args:
        input_dims: number of values in one image, C * H * W.
        hidden_dims: widths of the hidden layers, from input to output; may be empty.
        dp_rate: dropout rate of each hidden layer, in [0, 1).
        batch_statistic: whether there is a `BatchStatistic` before the last layer.
    """

    def __init__(
        self,
        input_dims: int = 784,
        hidden_dims: Sequence[int] = (512, 256),
        dp_rate: float = 0.3,
        batch_statistic: bool = False,
    ):
        super().__init__()
        self.layers = mlp([input_dims, *hidden_dims, 1], dp_rate, batch_statistic)

    def forward(self, x: Tensor) -> Tensor:
        # From [-1, 1] to [0, 1], where the black background is 0 and contributes nothing.
        return self.layers((x.flatten(1) + 1) / 2)


class BatchStatistic(nn.Module):
    """Adds to features `[B, F]` how much they vary from image to image, `[B, 1]`.

    It tells images that are all alike, which none of them does by itself. It is the standard
    deviation over groups of 4 images, averaged over the features (Karras et al., 2018,
    arXiv:1710.10196). The last group is filled up with the first images.
    """

    def forward(self, features: Tensor) -> Tensor:
        missing = -len(features) % 4
        full = torch.cat([features, features.repeat(3, 1)[:missing]]) if missing else features
        groups = full.unflatten(0, (-1, 4))
        variance = (groups - groups.mean(1, keepdim=True)).square().mean(1)
        deviation = (variance + 1e-8).sqrt().mean(1, keepdim=True)  # of 0 there is no gradient
        of_each = deviation.repeat_interleave(4, 0)[: len(features)]
        return torch.cat([features, of_each], 1)


def mlp(widths: Sequence[int], dp_rate: float, batch_statistic: bool = False) -> nn.Sequential:
    """Linear, Dropout and LeakyReLU to each hidden width, then one Linear to the last width.

    He initialization: activations have the same scale in every layer (He et al., 2015). PyTorch's
    default weights are 2.4 times smaller, and training starts more slowly.
    """
    layers: list[nn.Module] = []
    for d_in, d_out in pairwise(widths[:-1]):
        layers += [nn.Linear(d_in, d_out), nn.Dropout(dp_rate), nn.LeakyReLU(0.2)]
    if batch_statistic:
        layers.append(BatchStatistic())
    layers.append(nn.Linear(widths[-2] + batch_statistic, widths[-1]))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
