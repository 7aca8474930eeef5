"""The parts of a train_torch.py that the contract asks for, in the style of a course solution."""

import random

import numpy as np
import torch
import torch.nn as nn
from torchvision.utils import make_grid

from models import DiscriminatorMLP, GeneratorMLP

criterion = nn.BCEWithLogitsLoss()


class GAN(nn.Module):
    def __init__(self, hidden_dims_gen, hidden_dims_disc, dp_rate_gen, dp_rate_disc, z_dim):
        super().__init__()
        self.z_dim = z_dim
        self.generator = GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        self.discriminator = DiscriminatorMLP(hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc)

    @property
    def device(self):
        return self.generator.device

    @torch.no_grad()
    def images(self, z):
        training = self.generator.training
        self.generator.eval()
        x = self.generator(z)
        self.generator.train(training)
        return x

    def sample(self, batch_size):
        z = torch.randn((batch_size, self.z_dim)).to(self.device)
        return self.images(z)

    def interpolate(self, batch_size, interpolation_steps):
        z1 = torch.randn((batch_size, self.z_dim)).to(self.device)
        z2 = torch.randn((batch_size, self.z_dim)).to(self.device)
        rows = []
        for i in range(interpolation_steps + 2):
            ratio = i / (interpolation_steps + 1)
            rows.append(self.images((1 - ratio) * z1 + ratio * z2))
        return torch.stack(rows, dim=1)

    def generator_step(self, x_real):
        z = torch.randn((len(x_real), self.z_dim)).to(self.device)
        x_fake = self.generator(z)
        preds = self.discriminator(x_fake)
        loss = criterion(preds, torch.ones_like(preds))
        return loss, {"loss": loss}

    def discriminator_step(self, x_real):
        ones, zeros = torch.ones_like, torch.zeros_like
        z = torch.randn((len(x_real), self.z_dim)).to(self.device)
        x_fake = self.generator(z).detach()
        preds_real = self.discriminator(x_real)
        preds_fake = self.discriminator(x_fake)
        loss_real = criterion(preds_real, ones(preds_real))
        loss_fake = criterion(preds_fake, zeros(preds_fake))
        loss = loss_real + loss_fake
        return loss, {"loss": loss, "accuracy": (preds_real > 0).float().mean()}


def generate_and_save(model, epoch, summary_writer, batch_size=64):
    samples = model.sample(batch_size)
    grid = make_grid(samples, nrow=8, normalize=True, value_range=(-1, 1), pad_value=0.5)
    summary_writer.add_image("samples", grid, global_step=epoch)


def interpolate_and_save(model, epoch, summary_writer, batch_size=64, interpolation_steps=5):
    images = model.interpolate(batch_size, interpolation_steps).flatten(0, 1)
    grid = make_grid(images, nrow=interpolation_steps + 2, normalize=True, value_range=(-1, 1))
    summary_writer.add_image("interpolation", grid, global_step=epoch)


def train_gan(model, train_loader, logger_gen, logger_disc, optimizer_gen, optimizer_disc):
    model.train()
    for imgs, _ in train_loader:
        imgs = imgs.to(model.device)

        # Generator update
        optimizer_gen.zero_grad()
        loss, logging_dict = model.generator_step(imgs)
        loss.backward()
        optimizer_gen.step()
        logger_gen.add_values(logging_dict)

        # Discriminator update
        optimizer_disc.zero_grad()
        loss, logging_dict = model.discriminator_step(imgs)
        loss.backward()
        optimizer_disc.step()
        logger_disc.add_values(logging_dict)


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
