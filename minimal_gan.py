"""A GAN learns to generate MNIST digits: the whole algorithm. Writes minimal_gan.png."""

from copy import deepcopy

import torch
from torch.nn.functional import logsigmoid

from mnist import mnist
from models import DiscriminatorMLP, GeneratorMLP
from utils import image_grid

loader = mnist(batch_size=128)
G = GeneratorMLP(z_dim=32, hidden_dims=[128, 256, 512], dp_rate=0)  # latents to images in [-1, 1]
D = DiscriminatorMLP(hidden_dims=[512, 256], dp_rate=0)  # images to logits: positive for real
averaged, z_shown = deepcopy(G), torch.randn(64, 32)
optimizer_gen = torch.optim.Adam(G.parameters(), betas=(0.0, 0.99))  # no momentum
optimizer_disc = torch.optim.Adam(D.parameters(), betas=(0.0, 0.99))
step = 0

for epoch in range(1, 51):
    # Both learning rates are constant for 20 epochs, then they fall.
    optimizer_gen.param_groups[0]["lr"] = 2e-3 * min(1, 20 / epoch)
    optimizer_disc.param_groups[0]["lr"] = 1e-3 * min(1, 20 / epoch)
    for x_real, _ in loader:
        # D learns to tell real images from generated ones: maximize log D(x) + log(1 - D(G(z))).
        x_fake = G(torch.randn(len(x_real), 32)).detach()
        loss_disc = -(logsigmoid(D(x_real)) + logsigmoid(-D(x_fake))).mean() / 2
        if step % 8 == 0:  # R1 keeps D flat at real images, so that nothing pushes G away from them
            x = x_real.requires_grad_()
            (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
            loss_disc = loss_disc + 8 * 0.3 / 2 * gradient.square().sum((1, 2, 3)).mean()
        optimizer_disc.zero_grad()
        loss_disc.backward()
        optimizer_disc.step()
        # G learns to generate images that D takes for real: maximize log D(G(z)).
        loss_gen = -logsigmoid(D(G(torch.randn(len(x_real), 32)))).mean()
        optimizer_gen.zero_grad()
        loss_gen.backward()
        optimizer_gen.step()
        # The average of G's weights generates better images than those of any one step.
        for mean, p in zip(averaged.parameters(), G.parameters(), strict=True):
            mean.data.lerp_(p.data, 1 / (1 + min(step / 5, 1000)))
        step += 1
    print(f"epoch {epoch}: loss of G {loss_gen.item():.3f}, of D {loss_disc.item():.3f}")
    image_grid(averaged(z_shown), columns=8, scale=3).save("minimal_gan.png")
