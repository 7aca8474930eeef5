"""The contract: what any correct models.py, mnist.py and train_torch.py do, however they do it.

    python unittests.py                  all of it, task by task
    python unittests.py GeneratorTest    one class of it, or one test: GeneratorTest.test_device

Put your own file in place of one of the three: each message begins with the file to look at. The
tests of train_torch.py have networks of their own, so that a wrong models.py does not fail them.
"""

import argparse
import random
import sys
import tempfile
import traceback
import unittest
import weakref
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.data import DataLoader

import command_line
import mnist
import models
import train_torch
from utils import SummaryWriter, TensorBoardLogger

HERE = Path(__file__).resolve().parent


hints: list[str] = []  # of the part that is tested: what works, and could be better


def place(error: BaseException) -> str:
    """Where in one of the files here an error was raised, "models.py:31"."""
    frames = traceback.extract_tb(error.__traceback__)
    here = [frame for frame in frames if Path(frame.filename).parent == HERE]
    return f"{Path(here[-1].filename).name}:{here[-1].lineno}"


class Contract(unittest.TestCase):
    file = title = ""

    def setUp(self):
        torch.manual_seed(0)

    def check(self, holds, mistake: str) -> None:
        if not holds:
            self.fail(f"{self.file}: {mistake}")

    def attempt(self, what: str, function, *arguments):
        """What the function returns, or a message that says in which error it ends."""
        try:
            return function(*arguments)
        except NotImplementedError:  # a piece is missing
            raise
        except Exception as error:
            self.fail(f"{place(error)}: {what} ends in {type(error).__name__}: {error}")


class Network:
    """The tests of both networks."""

    def make(self, dp_rate: float = 0.0) -> torch.nn.Module:
        """A network with two hidden layers; `self.x` is a batch for it."""
        self.x = torch.rand(50, 1, 28, 28) * 2 - 1
        if self.name == "DiscriminatorMLP":
            return models.DiscriminatorMLP(784, [64, 32], dp_rate)
        self.x = torch.randn(50, 4)
        return models.GeneratorMLP(4, [64, 32], [1, 28, 28], dp_rate)

    def output(self, network, x: torch.Tensor) -> torch.Tensor:
        of = "[B, 1, 28, 28] (is flatten(1) missing?)" if x.ndim > 2 else f"[B, {x.shape[1]}]"
        return self.attempt(f"{self.name} of {of}", network, x)

    def test_arguments(self):
        dims, why = [8, 128, 16], "an argument is ignored, or layers are in a plain list"
        for arguments, widths in self.widths(dims):
            network = getattr(models, self.name)(**arguments)
            least = np.dot(widths[1:], widths[:-1])
            count = sum(p.numel() for p in network.parameters() if p.ndim > 1)
            call = f"{self.name}(**{arguments}) has {count} weights, but {widths} need {least}"
            self.check(least <= count < 3 * least, f"{call}: {why}")
            self.check(dims == [8, 128, 16], f"{self.name} changes the list hidden_dims")

    def test_activations(self):
        network = self.make().eval()
        for name, p in network.named_parameters():
            if name.endswith("bias"):  # else small weights would never reach the bend
                p.data.zero_()
        start, end = self.x.split(25)
        y = self.output(network, torch.cat([start, (start + end) / 2, end])).double()
        if self.name == "GeneratorMLP":  # without Tanh
            y = y.clamp(-0.9999, 0.9999).atanh()
        start, middle, end = y.split(25)
        bend = (middle - (start + end) / 2).std() / middle.std()
        self.check(bend > 1e-3, f"{self.name} is linear: no activation between its layers")

    def test_dropout(self):
        name, noisy, quiet = self.name, self.make(0.5), self.make(0.0).train()
        zeros = (self.output(noisy.train(), self.x) == 0).float().mean()
        self.check(zeros < 0.1, f"{name}: dropout at the end")
        same = torch.allclose(self.output(noisy.eval(), self.x), self.output(noisy, self.x))
        self.check(same, f"{name}: dropout in eval mode: F.dropout needs self.training")
        noisy.train()
        none, much = ((n(self.x) - n(self.x)).abs().mean() for n in (quiet, noisy))
        self.check(much > 10 * none, f"{name}: dp_rate is ignored, or there is no dropout")


class GeneratorTest(Network, Contract):
    file, title, name = "models.py", "task 1, the generator", "GeneratorMLP"

    def widths(self, dims: list[int]) -> list[tuple[dict, list[int]]]:
        yield {}, [32, 128, 256, 512, 1024, 784]
        yield {"z_dim": 500, "hidden_dims": dims}, [500, *dims, 784]

    def test_images(self):
        generator = self.make().eval()
        for _ in range(15):  # initial weights may be small: enlarge them until images saturate
            images = self.output(generator, 1000 * self.x)
            low, high = images.min().item(), images.max().item()
            if low < -0.5 and high > 0.5:
                break
            for p in generator.parameters():
                p.data *= 2
        shape = [*images.shape]
        right = "GeneratorMLP must return images [B, 1, 28, 28] from -1 to 1"
        self.check(shape == [50, 1, 28, 28], f"{right}, but the shape of 50 is {shape}")
        self.check(high <= 1, f"{right}, but they reach {high:.3g}: no Tanh at the end")
        right += f", not from {low:.3g} to {high:.3g}: a sigmoid instead of Tanh, or rescaled?"
        self.check(-1 <= low < -0.5 and high > 0.5, right)

    def test_device(self):
        generator = self.make()
        for device in ("cpu", "meta"):
            found = str(getattr(generator.to(device), "device", "missing"))
            self.check(found == device, f"GeneratorMLP.device must be a property: {found}")


class DiscriminatorTest(Network, Contract):
    file, title, name = "models.py", "task 2, the discriminator", "DiscriminatorMLP"

    def widths(self, dims: list[int]) -> list[tuple[dict, list[int]]]:
        yield {}, [784, 512, 256, 1]
        yield {"hidden_dims": dims}, [784, *dims, 1]

    def test_logits(self):
        discriminator, right = self.make().eval(), "DiscriminatorMLP must return [B, 1]"
        for x in (1000 * self.x, 1000 * self.x.flatten(1)):
            logits = self.output(discriminator, x)
            shape, sigmoid = [*logits.shape], logits.min() >= 0 and logits.max() <= 1
            self.check(shape == [50, 1], f"{right}, but the shape of 50 is {shape}")
            why = "binary_cross_entropy_with_logits applies it once more"
            self.check(not sigmoid, f"a sigmoid at the end of DiscriminatorMLP: {why}")


def read_epoch(loader: DataLoader) -> tuple:
    """Images, sizes of batches, range; of each image the label, a code that identifies it, mean."""
    rows, extremes = [], []
    for images, labels in loader:
        x = 1.0 * images.flatten(1)
        codes = (127.5 * x + 127.5).round().double() @ torch.arange(x.shape[1]).double() ** 3
        rows.append((labels.clone(), codes, x.mean(1)))
        extremes += x.aminmax()
    sizes = [len(codes) for _, codes, _ in rows]
    return images, sizes, (min(extremes), max(extremes)), *map(torch.cat, zip(*rows, strict=True))


class MnistTest(Contract):
    file = title = "mnist.py"

    @classmethod
    def setUpClass(cls):
        loader, right = mnist.mnist(), "mnist.py: mnist() must return a DataLoader"
        assert isinstance(loader, DataLoader), f"{right}, not {type(loader).__name__}"
        cls.images, cls.sizes, cls.range, cls.labels, cls.codes, cls.means = read_epoch(loader)
        *_, cls.next_labels, cls.next_codes, _ = read_epoch(loader)

    def test_images(self):
        shape, dtype = [*self.images.shape[1:]], self.images.dtype
        self.check(shape == [1, 28, 28], f"images must be [B, 1, 28, 28], not {['B', *shape]}")
        self.check(dtype == torch.float32, f"images must be float32, not {dtype}")
        low, high, gray = *self.range, (self.means.mean() + 1) / 2
        why = f"gray levels are {low:.3g} to {high:.3g}: Normalize((0.5,), (0.5,)) is missing?"
        self.check((low, high) == (-1, 1), why)
        self.check(abs(gray - 0.1307) < 1e-3, f"mean gray level {gray:.4f}, not 0.1307: inverted?")

    def test_every_image_once(self):
        count, unique, size = len(self.codes), len(self.codes.unique()), self.sizes[0]
        dropped = {*self.sizes} == {size} and 60_000 - size < count < 60_000
        self.check(not dropped, f"the last, smaller batch is dropped ({count} of 60000): drop_last")
        self.check(count != 10_000, "10000 images: the test set; train=True is needed")
        self.check(count == 60_000, f"{count} images in an epoch, not all 60000")
        self.check(unique == 60_000, f"only {unique} different images, not each of the 60000 once")

    def test_order(self):
        begin, again = self.labels[:10].tolist(), torch.equal(self.codes, self.next_codes)
        self.check(begin != [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "not shuffled: the order of the file")
        self.check(not again, "the same order in every epoch: let the DataLoader shuffle")

    def test_labels(self):
        labels, means = self.labels, self.means
        right = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        counts = labels.bincount().tolist()
        self.check(counts == right, f"not the labels of the training set: {counts} of 0 to 9")
        more = (means[labels == 0].mean() - means[labels == 1].mean()).abs() / means.std()
        one, two = labels[self.codes.argsort()], self.next_labels[self.next_codes.argsort()]
        self.check(more > 1.5 and torch.equal(one, two), "labels do not belong to their images")

    def test_batch_size(self):
        loader = mnist.mnist(batch_size=500, num_workers=0, download=False)
        size, default = len(next(iter(loader))[0]), self.sizes[0]
        self.check(size == 500, f"batch_size is ignored: batches of {size}, not 500")
        self.check(default == 128, f"batch_size must be 128 by default, not {default}")


REAL, FAKE = 1.0, 0.3  # the logits of all real and all fake images in the tests below
modes, graphs = [], []  # what Generator and Discriminator note at each call


class Generator(torch.nn.Linear):  # for GeneratorMLP: the first pixels are tanh(z / 4)
    device = property(lambda self: self.weight.device)

    def __init__(self, z_dim=32, hidden_dims=(), output_shape=(1, 28, 28), dp_rate=0.1):
        super().__init__(z_dim, 784)
        self.arguments = z_dim, [*hidden_dims], dp_rate
        self.weight.data, self.bias.data = torch.eye(784, z_dim) / 4, torch.zeros(784)

    def forward(self, z):
        modes.append(self.training)
        return super().forward(z).tanh().view(-1, 1, 28, 28)


class Discriminator(torch.nn.Linear):  # for DiscriminatorMLP: the logit is the last pixel + 0.3
    def __init__(self, input_dims=784, hidden_dims=(), dp_rate=0.3):
        super().__init__(input_dims, 1)
        self.arguments = [*hidden_dims], dp_rate
        self.weight.data, self.bias.data = torch.eye(784)[-1:], torch.tensor([FAKE])

    def forward(self, x):
        logits = super().forward(x.flatten(1))
        if logits.grad_fn:  # an object that lives as long as the graph
            graphs.append(weakref.ref(logits.grad_fn.metadata.setdefault("", set())))
        return logits


class WithGAN(Contract):
    file = "train_torch.py"

    def setUp(self):
        super().setUp()
        stubs = {"GeneratorMLP": Generator, "DiscriminatorMLP": Discriminator}
        for module in (models, train_torch):
            mock.patch.multiple(module, create=True, **stubs).start()
        self.addCleanup(mock.patch.stopall)
        self.model = train_torch.GAN([16], [12], 0.1, 0.3, 8)
        self.networks = {n: getattr(self.model, n) for n in ("generator", "discriminator")}
        self.x_real = torch.rand(6, 1, 28, 28) * 2 - 1
        self.x_real[:, :, -1, -1] = REAL - FAKE
        modes[:], graphs[:] = [], []

    def step(self, name: str) -> torch.Tensor:
        """The loss that generator_step or discriminator_step returns."""
        what = f"{name} (of other networks than yours)"
        result = self.attempt(what, getattr(self.model, name), self.x_real)
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        self.check(pair and "loss" in result[1], f'{name} must return loss, {{"loss": loss, ...}}')
        self.check(result[0].numel() == 1, f"{name}: the loss must be a mean over the batch")
        vectors = [key for key, value in result[1].items() if torch.as_tensor(value).numel() > 1]
        self.check(not vectors, f"{name}: values to log must be scalars, {vectors} are not")
        return result[0]

    def generate(self, name: str, *sizes: int) -> torch.Tensor:
        """The images that sample or interpolate returns, which have to be right in any mode."""
        for training in (True, False):
            images = self.attempt(name, getattr(self.model.train(training), name), *sizes)
            shape, right = [*images.shape], [sizes[0], *(n + 2 for n in sizes[1:]), 1, 28, 28]
            flat = ": rows are flattened" if len(shape) < len(right) else ""
            self.check(shape == right, f"{name}(*{[*sizes]}): shape {shape}, not {right}{flat}")
            now = {net.training for net in self.networks.values()}
            self.check(now == {training}, f"{name} leaves the model in another mode than before")
            self.check(not images.requires_grad, f"{name} keeps a graph: no_grad() is missing")
            self.check(images.min() < 0, f"{name}: images must be the generator's, in [-1, 1]")
            self.check(len(images.unique(dim=0)) == 6, f"{name}: all images are of one latent")
        return images

    def save(self, function: str) -> None:
        """Calls generate_and_save or interpolate_and_save while the model is in training mode."""
        modes.clear()
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            call = getattr(train_torch, function)
            self.attempt(function, call, self.model.train(), 1, writer)
        self.check(not any(modes), f"{function}: dropout is on in what it saves: eval() is missing")


class GANTest(WithGAN):
    title = "GAN and seed_everything"

    def test_arguments(self):
        gen, disc = (net.arguments for net in self.networks.values())
        right = gen == (8, [16], 0.1) and disc == ([12], 0.3) and self.model.z_dim == 8
        self.check(right, f"the networks of GAN([16], [12], 0.1, 0.3, 8) get {gen} and {disc}")
        self.check(str(self.model.device) == "cpu", f"GAN.device is {self.model.device}, not cpu")

    def test_seeds(self):
        numbers = []
        for _ in range(2):
            train_torch.seed_everything(3)
            numbers.append((random.random(), np.random.rand(), torch.rand(()).item()))
        self.check(numbers[0] == numbers[1], f"seed_everything: random, numpy, torch: {numbers}")


class SampleTest(WithGAN):
    title = "task 3, sample"

    def test_images(self):
        self.generate("sample", 6)

    def test_saved_images(self):
        self.save("generate_and_save")


class InterpolateTest(WithGAN):
    title = "task 4, interpolate"

    def test_images(self):
        self.generate("interpolate", 6, 3)

    def test_saved_images(self):
        self.save("interpolate_and_save")

    def test_latents(self):
        z = 4 * self.generate("interpolate", 6, 3).flatten(2)[:, :, :8].double().atanh()
        steps = z.diff(dim=1).norm(dim=2).mean(0)
        self.check(steps.max() > 0, "interpolate: all images of a row are of one latent")
        z = 4 * self.model.interpolate(500, 3).flatten(2)[:, :, :8].atanh()
        start, end, steps = z[:, 0], z[:, -1], z.diff(dim=1).norm(dim=2).mean(0)
        alike = (start * end).sum() / (start.norm() * end.norm())  # 0 of independent latents
        ends = "without an end: weights must go from 0 to 1, i / (interpolation_steps + 1)"
        self.check(alike.abs() < 0.1, f"interpolate: {ends}")
        self.check(steps.min() > steps.max() / 2, f"interpolate: uneven steps {steps.tolist()}")


def softplus(logit: float) -> float:
    """-log(1 - sigmoid(logit)); of -logit it is -log sigmoid(logit)."""
    return np.logaddexp(0, logit)


class Step:
    """The tests of both training steps."""

    def test_loss(self):
        loss, (right, mistakes) = self.step(self.name).item(), self.losses()
        mistakes |= {"a sum, not a mean": 6 * right, "the mean of a mean": right / 6}
        mistakes |= {"the sign is wrong": -right}
        known = [why for why, x in mistakes.items() if np.isclose(loss, [x, x / 2], 1e-3).any()]
        why = " or ".join(known) or "or half of it, with these logits"
        of = f"of logits {REAL} for real and {FAKE} for fake images"
        correct = np.isclose(loss, [right, right / 2], 1e-3).any()
        self.check(correct, f"{self.name}: loss {loss:.4f} {of}, not {right:.4f}: {why}")

    def test_gradient(self):
        network, loss = self.name.split("_")[0], self.step(self.name)
        self.check(loss.requires_grad, f"{self.name}: no gradient: no_grad() or detach()?")
        loss.backward()
        grads = {name: net.bias.grad is not None for name, net in self.networks.items()}
        self.check(grads[network], f"{self.name}: the {network} gets no gradient")
        if network == "discriminator" and grads["generator"]:
            leak = "discriminator_step: gradients reach the generator, which costs time"
            hints.append(f"{self.file}: {leak}: detach() the fake images")

    def test_images(self):
        seen, fakes, real = [], [], self.x_real.flatten(1)
        self.model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for _ in range(2):
            seen.clear()
            self.step(self.name)
            images = torch.cat([x.flatten(1) for x in seen])
            same = (images[:, None] == real).all(2)
            given = self.name[0] == "g" or same.any(0).all()
            self.check(given, f"{self.name}: D does not see x_real")
            fakes.append(images[~same.any(1)])
            count = f"{len(fakes[-1])} fake images for 6 real ones"
            self.check(len(fakes[-1]) == 6, f"{self.name}: {count}")
        new = len(torch.cat(fakes).unique(dim=0)) == 12
        again = "the same fake images again: each step needs new latents, one per image"
        self.check(new, f"{self.name}: {again}")


class DiscriminatorStepTest(Step, WithGAN):
    title, name = "task 5, discriminator_step", "discriminator_step"

    def losses(self) -> tuple[float, dict[str, float]]:
        real, fake = softplus(-REAL), softplus(FAKE)  # -log D(x), -log (1 - D(G(z)))
        p_real, p_fake = np.exp([-real, -softplus(-FAKE)])
        return real + fake, {
            "swapped labels": softplus(REAL) + softplus(-FAKE),
            "1 - logit, where the target should be 0": real + softplus(FAKE - 1),
            "a sigmoid too many": softplus(-p_real) + softplus(p_fake),
            "the loss of real images alone": real,
            "the loss of fake images alone": fake,
        }


class GeneratorStepTest(Step, WithGAN):
    title, name = "task 6, generator_step", "generator_step"

    def losses(self) -> tuple[float, dict[str, float]]:
        return softplus(-FAKE), {
            "swapped labels": softplus(FAKE),
            "log(1 - D(G(z))) saturates": -softplus(FAKE),
            "1 - logit, and a target of 0": softplus(1 - FAKE),
            "a sigmoid too many": softplus(-np.exp(-softplus(-FAKE))),
        }


class TrainGANTest(WithGAN):
    title = "task 7, train_gan"

    def setUp(self):
        super().setUp()
        self.model.r1, self.model.update_average = 0, lambda: None  # they have tests of their own

    def step(self, name: str) -> torch.Tensor:
        try:
            return super().step(name)
        except AssertionError:
            self.check(False, f"train_gan is tested after {name} is mended")

    def train(self, **rates: float) -> None:
        """An epoch of 5 batches; notes what is logged, and gradients at optimizers' steps."""
        self.gradients, self.logged, optimizers = {name: [] for name in self.networks}, [], []
        for key, net in self.networks.items():

            def note(*_, key=key, bias=net.bias):
                self.gradients[key].append(np.nan if bias.grad is None else bias.grad[-1].item())

            optimizers.append(torch.optim.Adam(net.parameters(), rates.get(key, 0.0)))
            optimizers[-1].register_step_pre_hook(note)
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            writer.add_scalar = lambda tag, scalar_value, global_step=None, **_: self.logged.append(
                (tag, torch.as_tensor(scalar_value).item())
            )
            loggers = [TensorBoardLogger(writer, 1, name) for name in self.networks]
            batches = [(self.x_real, torch.zeros(6))] * 5
            arguments = self.model.eval(), batches, *loggers, *optimizers
            try:
                self.attempt("train_gan", train_torch.train_gan, *arguments)
            except AssertionError:
                for name in self.networks:
                    self.step(f"{name}_step")  # whose mistake it may be
                raise

    def test_steps(self):
        self.train()
        for name, found in self.gradients.items():
            (right,) = torch.autograd.grad(self.step(f"{name}_step"), self.networks[name].bias)
            what, same = f"train_gan: the {name}'s optimizer", np.isclose(found, right[-1], 1e-3)
            self.check(len(found) == 5, f"{what} makes {len(found)} steps in 5 batches")
            self.check(same[0], f"{what} does not follow {name}_step: no zero_grad(), or swapped?")
            self.check(same.all(), f"{what} follows gradients that add up: zero_grad() missing")

    def test_each_network_is_moved_by_its_own_optimizer(self):
        for name in self.networks:
            before = {key: net.bias.clone() for key, net in self.networks.items()}
            self.train(**{name: 0.1})
            moved = [key for key in before if not torch.equal(before[key], self.networks[key].bias)]
            self.check(moved == [name], f"train_gan: the {name}'s optimizer moves {moved}")

    def test_logs(self):
        self.train()
        for name in self.networks:
            losses = [value for tag, value in self.logged if tag == f"{name}/loss"]
            self.check(len(losses) == 5, f"train_gan: the {name}'s logger gets {len(losses)} of 5")
            right = np.isclose(losses[0], self.step(f"{name}_step").item(), 1e-3)
            self.check(right, f"train_gan: {name}_step's dictionary is not logged: swapped?")

    def test_mode_and_memory(self):
        self.train()
        self.check(any(modes), "train_gan: no dropout: model.train() is missing")
        kept = sum(graph() is not None for graph in graphs)
        self.check(kept < 3, f"graphs of {kept} calls stay in memory: detach() what is kept")


class OptimizersTest(WithGAN):  # what a train_torch.py need not have, as the two below
    title = "task 8, make_optimizers"

    def test_rates_and_parameters(self):
        if hasattr(train_torch, "make_optimizers"):
            args = argparse.Namespace(lr=0.1, lr_disc=0.2, betas=[0.3, 0.4])
            made = self.attempt("make_optimizers", train_torch.make_optimizers, self.model, args)
            for name, optimizer, lr in zip(self.networks, made, (0.1, 0.2), strict=True):
                (group,) = optimizer.param_groups
                found, what = (group["lr"], *group["betas"]), f"make_optimizers: the {name}'s has"
                self.check(found == (lr, 0.3, 0.4), f"{what} other rates or betas: {found}")
                of = {*map(id, group["params"])} == {*map(id, self.networks[name].parameters())}
                self.check(of, f"{what} parameters of something else")


class PenaltyTest(WithGAN):
    title = "task 9, gradient_penalty"

    def test_value(self):
        if hasattr(self.model, "gradient_penalty"):
            weight = self.model.discriminator.weight
            weight.data *= 2  # the length of the gradient, for each image
            penalty = self.attempt("gradient_penalty", self.model.gradient_penalty, self.x_real)
            right = "4.0, the mean over the images of the gradient's squared length"
            self.check(np.isclose(penalty.item(), 4), f"gradient_penalty: {penalty}, not {right}")
            self.check(penalty.requires_grad, "gradient_penalty: no gradient: create_graph=True?")


class AverageTest(WithGAN):
    title = "task 10, update_average"

    def test_weights(self):
        if hasattr(self.model, "update_average"):
            averaged = self.model.averaged.bias
            for steps, ema, right in [(0, 99, 1), (20, 99, 1 / 5), (100, 3, 1 / 4)]:
                self.model.steps_done, self.model.ema = steps, ema
                averaged.data.fill_(0)
                self.model.generator.bias.data.fill_(1)
                self.attempt("update_average", self.model.update_average)
                found, of = averaged[0].item(), f"with {steps} steps done and an ema of {ema}"
                why = f"update_average: a weight of {found:.3g}, not {right:.3g}, {of}"
                self.check(np.isclose(found, right), why)


CONTRACT = MnistTest, GANTest, GeneratorTest, DiscriminatorTest, SampleTest, InterpolateTest
CONTRACT += DiscriminatorStepTest, GeneratorStepTest, TrainGANTest, OptimizersTest
OPTIONAL = PenaltyTest, AverageTest


class Messages(unittest.TestResult):
    """What is wrong; of messages that differ in numbers alone, the first."""

    def __init__(self):
        super().__init__()
        self.messages: dict[str, str] = {}

    def addFailure(self, _, error):
        message = str(error[1])
        self.messages.setdefault("".join(c for c in message if not c.isdigit()), message)

    def addError(self, test, error):
        kind, value, _ = error
        what = "" if kind is NotImplementedError else f"{kind.__name__}: "
        self.addFailure(test, (kind, f"{place(value)}: {what}{value}"))


def contract(parts=CONTRACT + OPTIONAL) -> Iterator[tuple[str, list[str], list[str]]]:
    """The title of each part, what is wrong with it, and what could be better."""
    for part in parts:
        hints.clear()
        result = Messages()
        unittest.defaultTestLoader.loadTestsFromTestCase(part).run(result)
        yield part.title, [*result.messages.values()], [*dict.fromkeys(hints)]


def main() -> None:
    """Prints a report, and what to do next."""
    todo, better = [], []
    for title, messages, part_hints in contract():
        missing = all(message.endswith("is to be written") for message in messages)
        state = ("missing" if missing else "wrong") if messages else "done"
        optional = title in [part.title for part in OPTIONAL]
        report = [f"{title}{' (optional)' if optional else ''}: {state}", *messages]
        print("\n    ".join(report), flush=True)
        todo += [] if optional else messages
        better += part_hints
    for hint in better:
        print(f"hint: {hint}")
    if todo:
        sys.exit(f"next: {todo[0]}")
    print("next: python train_torch.py --progress_bar")


if __name__ == "__main__":
    command_line.run(lambda: unittest.main() if sys.argv[1:] else main())
