"""The contract: what any correct models.py, mnist.py and train_torch.py do, however they do it.

    python unittests.py                the contract, then the unit tests in tests/
    python unittests.py ModelsTest     one class of it, or one test: ModelsTest.test_device

Put your own file in place of one of the three: each message begins with the file to look at.
GANTest has networks of its own, so that a wrong models.py does not fail it.
"""

import random
import tempfile
import unittest
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

import mnist
import models
import train_torch
from utils import TensorBoardLogger


class Contract(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def check(self, holds, mistake: str) -> None:
        if not holds:
            self.fail(f"{self.file}: {mistake}")


class ModelsTest(Contract):
    file = "models.py"

    def networks(self, dp_rate: float = 0.0):
        """Name, network and a batch for it, for each of the two networks."""
        generator = models.GeneratorMLP(4, [64, 32], [1, 28, 28], dp_rate)
        discriminator = models.DiscriminatorMLP(784, [64, 32], dp_rate)
        self.z, self.x = torch.randn(50, 4), torch.rand(50, 1, 28, 28) * 2 - 1
        return ("GeneratorMLP", generator, self.z), ("DiscriminatorMLP", discriminator, self.x)

    def test_images(self):
        images = self.networks()[0][1].eval()(1000 * self.z)
        shape, low, high = [*images.shape], images.min().item(), images.max().item()
        right = "GeneratorMLP must return images [B, 1, 28, 28] from -1 to 1"
        self.check(shape == [50, 1, 28, 28], f"{right}, but the shape of 50 is {shape}")
        self.check(high <= 1, f"{right}, but they reach {high:.3g}: no Tanh at the end")
        right += f", not from {low:.3g} to {high:.3g}: a sigmoid instead of Tanh, or rescaled?"
        self.check(-1 <= low < -0.5 and high > 0.5, right)

    def test_logits(self):
        discriminator, right = self.networks()[1][1].eval(), "DiscriminatorMLP must return [B, 1]"
        for x in (1000 * self.x, 1000 * self.x.flatten(1)):
            try:
                logits = discriminator(x)
            except RuntimeError as error:
                self.check(False, f"{right} of {[*x.shape]}: is flatten(1) missing? {error}")
            shape, sigmoid = [*logits.shape], logits.min() >= 0 and logits.max() <= 1
            self.check(shape == [50, 1], f"{right}, but the shape of 50 is {shape}")
            why = "binary_cross_entropy_with_logits applies it once more"
            self.check(not sigmoid, f"a sigmoid at the end of DiscriminatorMLP: {why}")

    def test_arguments(self):
        dims, why = [8, 128, 16], "an argument is ignored, or layers are in a plain list"
        for name, arguments, widths in [
            ("GeneratorMLP", {}, [32, 128, 256, 512, 1024, 784]),
            ("GeneratorMLP", {"z_dim": 500, "hidden_dims": dims}, [500, 8, 128, 16, 784]),
            ("DiscriminatorMLP", {}, [784, 512, 256, 1]),
            ("DiscriminatorMLP", {"hidden_dims": dims}, [784, 8, 128, 16, 1]),
        ]:
            network, least = getattr(models, name)(**arguments), np.dot(widths[1:], widths[:-1])
            count = sum(p.numel() for p in network.parameters() if p.ndim > 1)
            call = f"{name}(**{arguments}) has {count} weights, but {widths} need {least}"
            self.check(least <= count < 3 * least, f"{call}: {why}")
            self.check(dims == [8, 128, 16], f"{name} changes the list hidden_dims it is given")

    def test_activations(self):
        for name, network, x in self.networks():
            start, end = x.split(25)
            y = network.eval()(torch.cat([start, (start + end) / 2, end])).double()
            y = y.clamp(-0.9999, 0.9999).atanh() if name == "GeneratorMLP" else y  # without Tanh
            start, middle, end = y.split(25)
            bend = (middle - (start + end) / 2).std() / middle.std()
            self.check(bend > 1e-3, f"{name} is linear: no activation between its layers")

    def test_dropout(self):
        for index, (name, noisy, x) in enumerate(self.networks(0.5)):
            self.check((noisy.train()(x) == 0).float().mean() < 0.1, f"{name}: dropout at the end")
            same = torch.allclose(noisy.eval()(x), noisy(x))
            self.check(same, f"{name}: dropout in eval mode: F.dropout needs self.training")
            quiet = self.networks(0.0)[index][1]
            none, much = ((net.train()(x) - net(x)).abs().mean() for net in (quiet, noisy))
            self.check(much > 10 * none, f"{name}: dp_rate is ignored, or there is no dropout")

    def test_device(self):
        generator = self.networks()[0][1]
        for device in ("cpu", "meta"):
            found = str(getattr(generator.to(device), "device", "missing"))
            self.check(found == device, f"GeneratorMLP.device must be a property: {found}")


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
    file = "mnist.py"

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


class GANTest(Contract):
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

    def test_arguments(self):
        gen, disc = (net.arguments for net in self.networks.values())
        right = gen == (8, [16], 0.1) and disc == ([12], 0.3) and self.model.z_dim == 8
        self.check(right, f"the networks of GAN([16], [12], 0.1, 0.3, 8) get {gen} and {disc}")
        self.check(str(self.model.device) == "cpu", f"GAN.device is {self.model.device}, not cpu")

    def step(self, name: str) -> torch.Tensor:
        """The loss that generator_step or discriminator_step returns."""
        result = getattr(self.model, name)(self.x_real)
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        self.check(pair and "loss" in result[1], f'{name} must return loss, {{"loss": loss, ...}}')
        self.check(result[0].numel() == 1, f"{name}: the loss must be a mean over the batch")
        vectors = [key for key, value in result[1].items() if torch.as_tensor(value).numel() > 1]
        self.check(not vectors, f"{name}: values to log must be scalars, {vectors} are not")
        return result[0]

    def test_losses(self):
        (real, g), (not_real, not_g) = np.logaddexp(0, [[-REAL, -FAKE], [REAL, FAKE]])
        p_real, p_fake = np.exp([-real, -g])  # D(x), D(G(z))
        twice_real, twice_g, twice_not_g = np.logaddexp(0, [-p_real, -p_fake, p_fake])
        for name, right, swapped, twice in [
            ("discriminator_step", real + not_g, not_real + g, twice_real + twice_not_g),
            ("generator_step", g, not_g, twice_g),
        ]:
            loss = self.step(name).item()
            mistakes = {"swapped labels": swapped, "log(1 - D(G(z))) saturates": -swapped}
            mistakes |= {"a sigmoid too many": twice, "a sum, not a mean": 6 * right}
            known = [why for why, x in mistakes.items() if np.isclose(loss, [x, x / 2], 1e-3).any()]
            correct = np.isclose(loss, [right, right / 2], 1e-3).any()
            self.check(correct, f"{name}: loss {loss:.4f}, not {right:.4f}: {' or '.join(known)}")

    def test_gradients(self):
        for name, network in self.networks.items():
            self.model.zero_grad()
            loss = self.step(f"{name}_step")
            self.check(loss.requires_grad, f"{name}_step: no gradient: no_grad() or detach()?")
            loss.backward()
            self.check(network.bias.grad is not None, f"{name}_step: the {name} gets no gradient")
        leaks = self.model.generator.bias.grad is not None
        self.check(not leaks, f"{name}_step: gradients reach the generator: detach() fake images")

    def test_images(self):
        seen, fakes, real = [], [], self.x_real.flatten(1)
        self.model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for name in ("discriminator_step", "discriminator_step", "generator_step"):
            seen.clear()
            self.step(name)
            images = torch.cat([x.flatten(1) for x in seen])
            same = (images[:, None] == real).all(2)
            self.check(name[0] == "g" or same.any(0).all(), f"{name}: D does not see x_real")
            fakes.append(images[~same.any(1)])
            self.check(len(fakes[-1]) == 6, f"{name}: {len(fakes[-1])} fake images for 6 real ones")
        new = len(torch.cat(fakes).unique(dim=0)) == 18
        self.check(new, "the same fake images again: each step needs new latents, one per image")

    def test_sampling(self):
        for name, sizes in [("sample", [5]), ("interpolate", [5, 3])]:
            for training in (True, False):
                modes.clear()
                images = getattr(self.model.train(training), name)(*sizes)
                shape, right = [*images.shape], [[], [5], [5, 5]][len(sizes)] + [1, 28, 28]
                self.check(shape == right, f"{name}(*{sizes}): shape {shape}, not {right}")
                self.check(not any(modes), f"{name}: dropout is on: eval() is missing")
                now = {net.training for net in self.networks.values()}
                self.check(now == {training}, f"{name} leaves the model in another mode")
                self.check(not images.requires_grad, f"{name} keeps a graph: no_grad() is missing")
                self.check(images.min() < 0, f"{name}: images must be the generator's, in [-1, 1]")
                self.check(len(images.unique(dim=0)) == 5, f"{name}: all images are of one latent")

    def test_interpolation(self):
        z = 4 * self.model.interpolate(500, 3).flatten(2)[:, :, :8].atanh()
        start, end, steps = z[:, 0], z[:, -1], z.diff(dim=1).norm(dim=2).mean(0)
        alike = (start * end).sum() / (start.norm() * end.norm())  # 0 of independent latents
        self.check(alike.abs() < 0.1, "interpolate: no ends: weights must go from 0 to 1")
        self.check(steps.min() > steps.max() / 2, f"interpolate: uneven steps {steps.tolist()}")

    def test_seeds(self):
        numbers = []
        for _ in range(2):
            train_torch.seed_everything(3)
            numbers.append((random.random(), np.random.rand(), torch.rand(()).item()))
        self.check(numbers[0] == numbers[1], f"seed_everything: random, numpy, torch: {numbers}")

    def train(self, **rates: float) -> None:
        """An epoch of 5 batches; notes what is logged, and gradients at optimizers' steps."""
        self.gradients, optimizers = {"generator": [], "discriminator": []}, []
        for key, net in self.networks.items():

            def note(*_, key=key, bias=net.bias):
                self.gradients[key].append(np.nan if bias.grad is None else bias.grad[-1].item())

            optimizers.append(torch.optim.Adam(net.parameters(), rates.get(key, 0.0)))
            optimizers[-1].register_step_pre_hook(note)
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            writer.add_scalar = self.add_scalar = mock.Mock(wraps=writer.add_scalar)
            loggers = [TensorBoardLogger(writer, 1, name) for name in self.networks]
            batches = [(self.x_real, torch.zeros(6))] * 5
            train_torch.train_gan(self.model.eval(), batches, *loggers, *optimizers)

    def test_training_steps(self):
        self.train()
        for name, found in self.gradients.items():
            (right,) = torch.autograd.grad(self.step(f"{name}_step"), self.networks[name].bias)
            what, same = f"train_gan: the {name}'s optimizer", np.isclose(found, right[-1], 1e-3)
            self.check(len(found) == 5, f"{what} makes {len(found)} steps in 5 batches")
            self.check(same[0], f"{what} does not follow {name}_step: no zero_grad(), or swapped?")
            self.check(same.all(), f"{what} follows gradients that add up: zero_grad() missing")

    def test_training_moves_each_network_by_its_own_optimizer(self):
        for name in self.networks:
            before = {key: net.bias.clone() for key, net in self.networks.items()}
            self.train(**{name: 0.1})
            moved = [key for key in before if not torch.equal(before[key], self.networks[key].bias)]
            self.check(moved == [name], f"train_gan: the {name}'s optimizer moves {moved}")

    def test_training_logs(self):
        self.train()
        for name in self.networks:
            calls = [call.args for call in self.add_scalar.call_args_list]
            losses = [value for tag, value, _ in calls if tag == f"{name}/loss"]
            self.check(len(losses) == 5, f"train_gan: the {name}'s logger gets {len(losses)} of 5")
            right = np.isclose(losses[0], self.step(f"{name}_step").item(), 1e-3)
            self.check(right, f"train_gan: {name}_step's dictionary is not logged: swapped?")

    def test_training_mode_and_memory(self):
        modes[:], graphs[:] = [], []
        self.train()
        self.check(any(modes), "train_gan: no dropout: model.train() is missing")
        kept = sum(graph() is not None for graph in graphs)
        self.check(kept < 3, f"graphs of {kept} calls stay in memory: detach() what is kept")


def load_tests(loader: unittest.TestLoader, contract: unittest.TestSuite, _pattern):
    """Adds the unit tests in tests/ where no part of the contract is named."""
    root = Path(__file__).resolve().parent
    return unittest.TestSuite([contract, loader.discover(f"{root}/tests", top_level_dir=str(root))])


if __name__ == "__main__":
    unittest.main()
