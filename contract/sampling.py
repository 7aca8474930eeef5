"""What is given of GAN, and the tasks 3 and 4: samples and interpolations."""

import inspect
import random
import tempfile
from unittest import mock

import numpy as np
import torch

from contract.stand_ins import WithGAN, modes
from utils import SummaryWriter


def latents_of(images: torch.Tensor) -> torch.Tensor:
    """The latents whose images the stand-in has generated, `[..., 8]`."""
    return images.flatten(-3)[..., :8].double().clamp(-0.999999, 0.999999).atanh()


class GANTest(WithGAN):
    title = "GAN and seed_everything"

    def test_arguments(self):
        gen, disc = self.networks.values()
        found = (gen.z_dim, gen.hidden_dims, gen.dp_rate), (disc.hidden_dims, disc.dp_rate)
        right = found == ((8, [16], 0.1), ([12], 0.3)) and self.model.z_dim == 8
        self.check(right, f"the networks of GAN([16], [12], 0.1, 0.3, 8) get {found}")
        self.check(str(self.model.device) == "cpu", f"GAN.device is {self.model.device}, not cpu")

    def test_seeds(self):
        numbers = []
        for _ in range(2):
            self.attempt("seed_everything", self.tested.seed_everything, 3)
            numbers.append((random.random(), np.random.rand(), torch.rand(()).item()))
        self.check(numbers[0] == numbers[1], f"seed_everything: random, numpy, torch: {numbers}")


class SamplingTest(WithGAN):
    """What holds for sample and interpolate."""

    sizes: tuple[int, ...]
    saves = ""  # the function that saves such images

    def images(self, *sizes: int, **options) -> torch.Tensor:
        return self.attempt(self.name, getattr(self.model, self.name), *sizes, **options)

    def test_images(self):
        for training in (True, False):
            self.model.train(training)
            images = self.images(*self.sizes)
            shape = [*images.shape]
            right = [self.sizes[0], *(n + 2 for n in self.sizes[1:]), 1, 28, 28]
            flat = ": rows are flattened" if len(shape) < len(right) else ""
            what = f"{self.name}(*{[*self.sizes]}): shape {shape}, not {right}{flat}"
            self.check(shape == right, what)
            now = {net.training for net in self.networks.values()}
            restore = "restore it: train(training), with self.training or the network's of before"
            what = f"{self.name} leaves the model in another mode than before; {restore}"
            self.check(now == {training}, what)
            self.check(not images.requires_grad, f"{self.name} keeps a graph: no_grad() is missing")
            what = f"{self.name}: images must be the generator's, in [-1, 1]"
            self.check(images.min() < 0, what)
            what = f"{self.name}: all images are of one latent"
            self.check(len(images.unique(dim=0)) == self.sizes[0], what)

    def test_latents_are_normal(self):
        z = latents_of(self.images(1000, *self.sizes[1:])).reshape(1000, -1, 8)[:, 0]
        mean, std = z.mean().item(), z.std().item()
        what = f"{self.name}: latents have mean {mean:.2f} and standard deviation {std:.2f}"
        self.check(abs(mean) < 0.1 and abs(std - 1) < 0.1, f"{what}, not 0 and 1: torch.randn")

    def test_generator_of_latents(self):
        if "generator" in inspect.signature(getattr(self.model, self.name)).parameters:
            one, again, other = (
                self.images(*self.sizes, generator=torch.Generator().manual_seed(seed))
                for seed in (1, 1, 2)
            )
            what = f"{self.name} ignores its generator: each grid would be of other latents"
            self.check(torch.equal(one, again) and not torch.equal(one, other), what)

    def test_saved_images(self):
        for notes in modes.values():
            notes.clear()
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            save = getattr(self.tested, self.saves)
            self.attempt(self.saves, save, self.model.train(), 1, writer)
        what = f"{self.saves}: dropout is on in what it saves: eval() is missing"
        self.check(not any(modes["generator"]), what)

    def test_device(self):
        self.check_device(self.name, self.images, *self.sizes)

    def test_generator_of_another_device(self):
        randn = torch.randn

        def checked(*size, generator=None, device="cpu", **options):
            if generator and torch.device(device).type != generator.device.type:
                raise RuntimeError(f"Expected a {device!r} device type for generator, found cpu")
            return randn(*size, generator=generator, device=device, **options)

        if "generator" in inspect.signature(getattr(self.model, self.name)).parameters:
            self.model.to("meta")
            with mock.patch("torch.randn", checked):
                self.images(*self.sizes, generator=torch.Generator())


class SampleTest(SamplingTest):
    title, name, sizes, saves = "task 3, sample", "sample", (6,), "generate_and_save"

    def test_categories(self):
        if "categories" in inspect.signature(self.tested.GAN).parameters:
            self.model = self.tested.GAN([16], [12], 0.1, 0.3, 8, categories=3)
            category, normal = latents_of(self.images(300)).round().split([3, 5], dim=1)
            one_hot = len(category.unique(dim=0)) == 3 and category.count_nonzero() == len(category)
            what = "sample: with categories=3, latents must begin with a random one-hot of 3"
            self.check(one_hot, f"{what}: in_category")
            self.check(normal.std() > 0.5, "sample: latents beside the category are not normal")


class InterpolateTest(SamplingTest):
    title, name, sizes = "task 4, interpolate", "interpolate", (6, 3)
    saves = "interpolate_and_save"

    def test_steps(self):
        images = self.images(500, 3)
        z = latents_of(images)
        start, end, steps = z[:, 0], z[:, -1], z.diff(dim=1).norm(dim=2).mean(0)
        self.check(steps.max() > 0, "interpolate: all images of a row are of one latent")
        alike = (start * end).sum() / (start.norm() * end.norm())  # 0 of independent latents
        ends = "without an end: weights must go from 0 to 1, i / (interpolation_steps + 1)"
        self.check(alike.abs() < 0.1, f"interpolate: {ends}")
        blended = torch.allclose(images[:, 2], (images[:, 0] + images[:, -1]) / 2, atol=1e-3)
        self.check(not blended, "interpolate: images are blended; interpolate their latents")
        ends, between = z[:, [0, -1]].mT, z[:, 1:-1].mT  # columns of two and of three latents
        rest = between - ends @ torch.linalg.lstsq(ends, between).solution
        where = "latents are not between those of the row's ends: scrambled, or of other latents"
        self.check(rest.norm() < 0.01 * between.norm(), f"interpolate: {where}")
        self.check(steps.min() > steps.max() / 2, f"interpolate: uneven steps {steps.tolist()}")
