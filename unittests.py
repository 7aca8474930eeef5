"""All unit tests. Each message names the mistake that it guards against."""

import contextlib
import functools
import gzip
import http.server
import importlib.util
import io
import json
import logging
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import types
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torchvision
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

import command_line
import train_torch
from checkpoint import CHECKPOINT, load_checkpoint, make_run_dir, replace_file
from mnist import DATA_DIR, MD5, MNISTImages, ShuffledBatches, mnist
from models import DiscriminatorMLP, Dropout, GeneratorMLP
from train_torch import GAN, HYPERPARAMETERS, parse_args, seed_everything, train_gan
from utils import TensorBoardLogger, save_images

REPOSITORY = Path(__file__).resolve().parent
IMAGES, LABELS = MD5


def setUpModule():
    torch.set_num_threads(1)  # the networks here are too small for more


def small_gan(**changes) -> GAN:
    arguments = {"hidden_dims_gen": [16], "hidden_dims_disc": [16], "z_dim": 8}
    return GAN(**{**arguments, "dp_rate_gen": 0.1, "dp_rate_disc": 0.3, **changes})


def layers(network: nn.Module, kind: type) -> list:
    return [module for module in network.modules() if isinstance(module, kind)]


def events(run: Path) -> EventAccumulator:
    """What TensorBoard would read from the run directory."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    return EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(tag)]


def read_image(file: Path | io.BytesIO) -> torch.Tensor:
    """The gray levels of a PNG file, `[3, height, width]`."""
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).movedim(2, 0)


class TemporaryDirectoryTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)


class ModelsTest(unittest.TestCase):
    def test_generator_output(self):
        torch.manual_seed(0)
        generator = GeneratorMLP()
        images = generator(100 * torch.randn(5, 32))
        self.assertEqual(images.shape, (5, 1, 28, 28), "images must be [B, C, H, W], not flat")
        self.assertLessEqual(images.abs().max(), 1, "without Tanh, images leave [-1, 1]")
        self.assertLess(images.min(), -0.5, "a sigmoid at the end never gives black (-1)")
        self.assertEqual(generator.device, torch.device("cpu"))

    def test_any_depth_and_any_output_shape(self):
        for hidden_dims in ([], (7,), [7, 5, 3]):
            images = GeneratorMLP(4, hidden_dims, output_shape=(3, 5, 6))(torch.randn(2, 4))
            self.assertEqual(images.shape, (2, 3, 5, 6), f"output_shape ignored at {hidden_dims}")
            logits = DiscriminatorMLP(90, hidden_dims)(images)
            self.assertEqual(logits.shape, (2, 1), f"one logit per image, at {hidden_dims}")

    def test_layers_are_as_documented(self):
        widths = [linear.out_features for linear in layers(GeneratorMLP(), nn.Linear)]
        self.assertEqual(widths, [128, 256, 512, 1024, 784], "defaults differ from the interface")
        widths = [linear.out_features for linear in layers(DiscriminatorMLP(), nn.Linear)]
        self.assertEqual(widths, [512, 256, 1], "defaults differ from the interface")
        for network in (GeneratorMLP(4, [3], dp_rate=0.25), DiscriminatorMLP(4, [3], dp_rate=0.25)):
            name = type(network).__name__
            rates = [layer.p for layer in layers(network, nn.Dropout)]
            self.assertEqual(rates, [0.25], f"{name}: no dropout, too much, or at another rate")
            kinds = [type(layer).__name__ for layer in network.layers]
            expected = ["Linear", "Dropout", "LeakyReLU", "Linear"]
            self.assertEqual(kinds, expected, f"{name}: other layers, or in another order")
            slopes = {layer.negative_slope for layer in layers(network, nn.LeakyReLU)}
            self.assertEqual(slopes, {0.2}, f"{name}: LeakyReLU's own default slope is 0.01")

    def test_discriminator_output(self):
        torch.manual_seed(0)
        discriminator = DiscriminatorMLP(dp_rate=0)
        images = 100 * torch.randn(50, 1, 28, 28)
        logits = discriminator(images)
        self.assertEqual(logits.shape, (50, 1))
        self.assertLess(logits.min(), 0, "a sigmoid inside: the loss applies it a second time")
        self.assertGreater(logits.max(), 1, "a sigmoid inside: the loss applies it a second time")
        torch.testing.assert_close(discriminator(images.flatten(1)), logits, msg="flat images")

    def test_invalid_sizes_and_rates_are_rejected_by_name_and_value(self):
        for make, name, value in [
            (lambda: GeneratorMLP(z_dim=0), "z_dim", "0"),
            (lambda: GeneratorMLP(hidden_dims=[8, -3]), "hidden_dims", "-3"),
            (lambda: GeneratorMLP(hidden_dims=[2.5]), "hidden_dims", "2.5"),
            (lambda: GeneratorMLP(output_shape=[1, 0, 28]), "output_shape", "0"),
            (lambda: GeneratorMLP(dp_rate=1.0), "dp_rate", "1.0"),
            (lambda: DiscriminatorMLP(input_dims=0), "input_dims", "0"),
            (lambda: DiscriminatorMLP(dp_rate=-0.1), "dp_rate", "-0.1"),
            (lambda: DiscriminatorMLP(dp_rate=math.nan), "dp_rate", "nan"),
        ]:
            with self.assertRaisesRegex(ValueError, f"{name}.*{value}", msg="accepted silently"):
                make()

    def test_dropout_keeps_the_mean_and_the_rate(self):
        torch.manual_seed(0)
        n = 1_000_000
        for p in (0.1, 0.3, 0.5, 0.99):
            y = Dropout(p).train()(torch.ones(n))
            dropped = (y == 0).double().mean().item()
            tolerance = 5 * math.sqrt(p * (1 - p) / n)  # five standard deviations
            self.assertAlmostEqual(dropped, p, delta=tolerance, msg="p is not the rate dropped")
            self.assertEqual(len(y.unique()), 2, "kept values must all be scaled alike")
            self.assertAlmostEqual(y.max().item(), 1 / (1 - p), delta=2e-3 / (1 - p) ** 2)
            self.assertAlmostEqual(
                y.double().mean().item(), 1, delta=tolerance / (1 - p), msg="not scaled by 1/(1-p)"
            )

    def test_dropout_masks_are_independent(self):
        torch.manual_seed(0)
        masks = Dropout(0.5).train()(torch.ones(4, 250_000)) - 1  # +1 or -1
        for lag in (1, 2, 3, 4, 8, 64):
            flat = masks.flatten()
            correlation = abs((flat[lag:] * flat[:-lag]).mean())
            self.assertLess(correlation, 5e-3, f"neighbors {lag} apart correlate")
        rows = masks @ masks.T / masks.shape[1] - torch.eye(4)
        self.assertLess(rows.abs().max(), 0.01, "images of a batch share a mask")

    def test_dropout_gradient_evaluation_and_types(self):
        dropout, x = Dropout(0.3).train(), torch.ones(3, 5, requires_grad=True)  # 5: not 4 n
        y = dropout(x)
        y.sum().backward()
        torch.testing.assert_close(x.grad, y.detach(), msg="backward used another mask")
        torch.testing.assert_close(dropout.eval()(x), x, msg="dropout is on in evaluation mode")
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            y = Dropout(0.5).train()(torch.ones(3, 4, 5, dtype=dtype))
            self.assertEqual((y.dtype, y.shape), (dtype, (3, 4, 5)))
            self.assertEqual(set(y.unique().tolist()), {0, 2})

    def test_dropout_masks_follow_from_the_seed_at_each_epoch(self):
        dropout, x = Dropout(0.5), torch.ones(99)

        def masks(seed: int) -> list[torch.Tensor]:
            torch.manual_seed(seed)
            dropout.train()  # as train_gan does at the start of an epoch
            return [dropout(x), dropout(x)]

        first, again, other = masks(1), masks(1), masks(2)
        for a, b in zip(first, again, strict=True):
            self.assertTrue(torch.equal(a, b), "a resumed epoch has other masks")
        self.assertFalse(torch.equal(first[0], other[0]), "every seed gives the same masks")
        self.assertFalse(torch.equal(first[0], first[1]), "every step has the same mask")


class LinearDiscriminator(nn.Module):
    """A discriminator with a known answer: logit 3 * mean + 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1, keepdim=True) + 1


class ConstantGenerator(nn.Module):
    """A generator whose images have one gray level."""

    def __init__(self, gray: float = -1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(gray))

    def forward(self, z):
        return self.weight.expand(len(z), 1, 28, 28)


class GANTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x_real = torch.rand(6, 1, 28, 28) * 2 - 1

    def test_arguments_go_where_they_belong(self):
        model = GAN([5, 6], [7], 0.2, 0.4, z_dim=3)
        sizes = [(m.in_features, m.out_features) for m in layers(model.generator, nn.Linear)]
        self.assertEqual(sizes, [(3, 5), (5, 6), (6, 784)], "hidden_dims_gen or z_dim is not used")
        sizes = [(m.in_features, m.out_features) for m in layers(model.discriminator, nn.Linear)]
        self.assertEqual(sizes, [(784, 7), (7, 1)], "hidden_dims_disc is not used")
        rates = {layer.p for layer in layers(model.generator, nn.Dropout)}
        self.assertEqual(rates, {0.2}, "dp_rate_gen does not reach the generator")
        rates = {layer.p for layer in layers(model.discriminator, nn.Dropout)}
        self.assertEqual(rates, {0.4}, "dp_rate_disc does not reach the discriminator")
        self.assertEqual(model.latents(2).shape, (2, 3), "z_dim is not used")

    def test_losses_are_those_worked_out_by_hand(self):
        model = small_gan()
        model.generator, model.discriminator = ConstantGenerator(), LinearDiscriminator()
        white = torch.ones(6, 1, 28, 28)  # logit 4; the generated ones have logit -2

        loss, values = model.discriminator_step(white)
        by_hand = (math.log1p(math.exp(-4)) + math.log1p(math.exp(-2))) / 2
        self.assertAlmostEqual(loss.item(), by_hand, places=5, msg="targets or signs are wrong")
        self.assertAlmostEqual(values["loss"].item(), by_hand, places=5, msg="logs another loss")
        self.assertAlmostEqual(values["probability_real"].item(), 0.98201, places=4)
        self.assertAlmostEqual(values["probability_fake"].item(), 0.11920, places=4)

        loss, values = model.generator_step(white)
        by_hand = math.log1p(math.exp(2))
        message = "not the non-saturating loss -log D(G(z))"
        self.assertAlmostEqual(loss.item(), by_hand, places=5, msg=message)
        self.assertAlmostEqual(values["loss"].item(), by_hand, places=5, msg="logs another loss")

    def test_accuracies_have_their_threshold_at_logit_0(self):
        model = small_gan()
        model.discriminator = LinearDiscriminator()
        for gray, real, fake in [(-0.3, 1, 0), (-0.37, 0, 1)]:  # logits 0.1 and -0.11
            model.generator = ConstantGenerator(gray)
            _, values = model.discriminator_step(torch.full((6, 1, 28, 28), gray))
            self.assertEqual(values["accuracy_real"], real, "the threshold is not at logit 0")
            self.assertEqual(values["accuracy_fake"], fake, "the threshold is not at logit 0")

    def test_logged_values_are_scalars_without_graph(self):
        model = small_gan()
        for step in (model.generator_step, model.discriminator_step):
            for key, value in step(self.x_real)[1].items():
                self.assertEqual(value.shape, (), f"{key} is not a scalar")
                self.assertFalse(value.requires_grad, f"logging {key} keeps every graph in memory")

    def test_each_step_gives_gradients_to_its_own_network_alone(self):
        model = small_gan()
        frozen = model.discriminator.layers[0].weight.requires_grad_(False)  # by the user
        for step, trained, other in [
            (model.discriminator_step, model.discriminator, model.generator),
            (model.generator_step, model.generator, model.discriminator),
        ]:
            model.zero_grad()
            step(self.x_real)[0].backward()
            for name, p in trained.named_parameters():
                if p is not frozen:
                    self.assertIsNotNone(p.grad, f"{step.__name__}: {name} gets no gradient")
                    self.assertTrue(p.grad.any(), f"{step.__name__}: {name} gets a zero gradient")
            for name, p in other.named_parameters():
                self.assertIsNone(p.grad, f"{step.__name__}: wasted a gradient on {name}")
                changed = f"{step.__name__}: {name} was frozen, or a frozen layer unfrozen"
                self.assertEqual(p.requires_grad, p is not frozen, changed)

    def test_bf16_is_for_matmuls_alone(self):
        model, dtypes = small_gan(), []
        for layer in (model.generator.layers[0], model.discriminator.layers[-1]):
            layer.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
        before = {name: p.clone() for name, p in model.named_parameters()}
        loggers = mock.Mock(), mock.Mock()
        optimizers = [
            torch.optim.Adam(n.parameters()) for n in (model.generator, model.discriminator)
        ]
        train_gan(model, [(self.x_real, None)] * 3, *loggers, *optimizers, bf16=True)
        self.assertEqual(set(dtypes), {torch.bfloat16}, "autocast is not on")
        for name, p in model.named_parameters():
            self.assertEqual((p.dtype, p.grad.dtype), (torch.float32, torch.float32), name)
            self.assertFalse(torch.equal(p, before[name]), f"{name} is not trained")
        for logger in loggers:
            for call in logger.add_values.call_args_list:
                for key, value in call.args[0].items():
                    self.assertEqual(value.dtype, torch.float32, f"{key} is rounded to 8 bits")
        dtypes.clear()
        train_gan(model, [(self.x_real, None)], *loggers, *optimizers)
        self.assertEqual(set(dtypes), {torch.float32}, "autocast is on without being asked for")

    def test_discriminator_sees_real_and_fresh_fake_images(self):
        model, seen = small_gan(dp_rate_gen=0.0, dp_rate_disc=0.0), []
        model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model.discriminator_step(self.x_real)
        model.discriminator_step(self.x_real)
        model.generator_step(self.x_real)
        torch.testing.assert_close(seen[0][:6], self.x_real, msg="real images were changed")
        fakes = [seen[0][6:], seen[1][6:], seen[2]]
        for a, b in [(0, 1), (1, 2)]:
            self.assertFalse(torch.equal(fakes[a], fakes[b]), "each step needs fresh fake images")

    def test_dropout_is_on_in_training_and_off_in_sampling(self):
        model = small_gan(dp_rate_gen=0.5)
        z = torch.randn(4, 8)
        for training in (True, False):
            model.train(training)
            self.assertTrue(torch.equal(model.generate(z), model.generate(z)), "dropout is on")
            self.assertFalse(model.sample(4).requires_grad, "sampling builds a graph")
            self.assertEqual(model.generator.training, training, "sampling changes the mode")
        model.train()
        self.assertFalse(torch.equal(model.generator(z), model.generator(z)), "no dropout at all")

    def test_sample(self):
        model = small_gan()
        self.assertEqual(model.sample(3).shape, (3, 1, 28, 28))
        a, b = (model.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
        self.assertTrue(torch.equal(a, b), "the given RNG is not used")

    def test_interpolation_has_both_ends_and_even_spacing(self):
        model = small_gan(z_dim=4)
        model.generator = nn.Unflatten(1, (1, 2, 2))  # its image is the latent
        torch.manual_seed(3)
        start, end = model.latents(5), model.latents(5)
        torch.manual_seed(3)
        images = model.interpolate(5, 3)
        self.assertEqual(images.shape, (5, 5, 1, 2, 2), "[B, steps + 2, C, H, W]")
        z = images.flatten(2)
        torch.testing.assert_close(z[:, 0], start, msg="the first is not the one end")
        torch.testing.assert_close(z[:, -1], end, msg="the last is not the other end")
        steps = z.diff(dim=1)
        even = ((end - start) / 4)[:, None].expand_as(steps)
        torch.testing.assert_close(steps, even, msg="not evenly spaced")

    def test_each_optimizer_moves_its_own_network(self):
        loader = [(torch.rand(4, 1, 28, 28), torch.zeros(4)) for _ in range(3)]
        for lr_gen, lr_disc in [(1e-3, 0.0), (0.0, 1e-3), (1e-3, 1e-3)]:
            model, loggers = small_gan().eval(), [mock.Mock(), mock.Mock()]
            before = {name: p.clone() for name, p in model.named_parameters()}
            train_gan(
                model,
                loader,
                *loggers,
                torch.optim.Adam(model.generator.parameters(), lr=lr_gen),
                torch.optim.Adam(model.discriminator.parameters(), lr=lr_disc),
            )
            for name, p in model.named_parameters():
                trained = (lr_gen if name.startswith("generator") else lr_disc) > 0
                moved = not torch.equal(p, before[name])
                self.assertEqual(moved, trained, f"{name} is moved by the other network's step")
            self.assertTrue(model.training, "training must switch dropout on")
            for logger in loggers:
                self.assertEqual(logger.add_values.call_count, 3, "one call of a logger per batch")
                self.assertEqual(logger.flush.call_count, 1, "the epoch's last steps are lost")

    def test_gradients_do_not_accumulate(self):
        model = small_gan(dp_rate_gen=0.0, dp_rate_disc=0.0)
        networks = model.generator, model.discriminator
        optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in networks]

        def gradients_after(steps: int) -> list[float]:
            batches = [(self.x_real, None)] * steps
            train_gan(model, batches, mock.Mock(), mock.Mock(), *optimizers)
            return [sum(p.grad.norm().item() for p in net.parameters()) for net in networks]

        for first, last in zip(gradients_after(1), gradients_after(50), strict=True):
            self.assertLess(last, 5 * first, "zero_grad is missing: 50 steps' gradients are added")

    def test_seeds(self):
        def numbers(seed: int, epoch: int) -> tuple[float, float, float]:
            seed_everything(seed, epoch)
            return random.random(), np.random.rand(), torch.rand(()).item()

        self.assertEqual(numbers(1, 2), numbers(1, 2), "a resumed epoch has other random numbers")
        rngs = ("random", "numpy", "torch")
        for other in [(1, 3), (2, 2), (2, 1), (1, 0)]:
            for rng, a, b in zip(rngs, numbers(1, 2), numbers(*other), strict=True):
                self.assertNotEqual(a, b, f"{rng} is seeded the same for (1, 2) and {other}")


@functools.cache
def archive_bytes(name: str) -> bytes:
    return (DATA_DIR / "MNIST" / "raw" / name).read_bytes()


def idx(array: np.ndarray) -> bytes:
    """A gzipped IDX file of bytes."""
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), 1)


class MnistTest(TemporaryDirectoryTest):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.loader = mnist()
        cls.epochs = [
            tuple(torch.cat(parts) for parts in zip(*cls.loader, strict=True)) for _ in range(2)
        ]

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "MNIST" / "raw"

    def write(self, **contents: bytes) -> None:
        """Writes archives, those of MNIST by default."""
        self.raw.mkdir(parents=True, exist_ok=True)
        (self.raw / IMAGES).write_bytes(contents.get("images", archive_bytes(IMAGES)))
        (self.raw / LABELS).write_bytes(contents.get("labels", archive_bytes(LABELS)))

    @contextlib.contextmanager
    def mirror(self):
        """A local server of the archives, as the only mirror; yields the paths it was asked for."""
        asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                asked.append(self.path)

        handler = functools.partial(Handler, directory=DATA_DIR / "MNIST" / "raw")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/"
            with mock.patch.object(torchvision.datasets.MNIST, "mirrors", [url]):
                yield asked
            server.shutdown()

    def no_mirror(self):
        """No network: the only mirror is a port where nobody listens."""
        return mock.patch.object(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])

    def test_batches(self):
        self.assertIsInstance(self.loader, DataLoader)
        sizes = [(images.shape, labels.shape) for images, labels in self.loader]
        self.assertEqual((len(self.loader), len(sizes)), (469, 469), "len() is not the batches")
        self.assertEqual(sizes[0], ((128, 1, 28, 28), (128,)))
        self.assertEqual(sizes[-1], ((96, 1, 28, 28), (96,)), "the last smaller batch is dropped")
        self.assertEqual(len(mnist(batch_size=100)), 600, "batch_size is ignored")

    def test_values(self):
        images, labels = self.epochs[0]
        self.assertEqual((images.dtype, labels.dtype), (torch.float32, torch.int64))
        self.assertEqual((images.min(), images.max()), (-1, 1), "Tanh needs data in [-1, 1]")
        self.assertEqual(len(images.unique()), 256, "gray levels are lost")
        self.assertAlmostEqual((images.mean().item() + 1) / 2, 0.1307, places=4)  # well known
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        self.assertEqual(labels.bincount().tolist(), counts, "labels are not the training set's")

    def test_every_image_once_in_a_new_order(self):
        known = self.loader.dataset.images.flatten(1).long()
        weights = torch.randint(2**31, (784,))
        marks = (known * weights).sum(1)
        shown = [
            (((x.flatten(1) + 1) * 127.5).round().long() * weights).sum(1) for x, _ in self.epochs
        ]
        for mark in shown:
            complete = torch.equal(mark.sort().values, marks.sort().values)
            self.assertTrue(complete, "not every image once")
            self.assertFalse(torch.equal(mark, marks), "not shuffled")
        self.assertFalse(torch.equal(*shown), "the same order in every epoch")
        image, label = self.loader.dataset[7]
        at = (shown[0] == marks[7]).nonzero()[0, 0]
        self.assertTrue(torch.equal(self.epochs[0][0][at], image))
        self.assertEqual(self.epochs[0][1][at], label, "labels lost their images")

    def test_the_seed_decides_the_order(self):
        def first(seed: int, loader: DataLoader) -> torch.Tensor:
            torch.manual_seed(seed)
            return next(iter(loader))[1]

        loaders = mnist(batch_size=60), mnist(batch_size=60, num_workers=1)
        self.assertEqual([loader.num_workers for loader in loaders], [0, 1], "num_workers ignored")
        orders = [first(seed, loader) for loader in loaders for seed in (1, 1, 2)]
        self.assertTrue(torch.equal(orders[0], orders[1]), "a resumed epoch has another order")
        self.assertFalse(torch.equal(orders[0], orders[2]), "the seed is ignored")
        self.assertTrue(torch.equal(orders[0], orders[3]), "workers change the order")

    def test_invalid_batch_size(self):
        with self.assertRaisesRegex(ValueError, "batch_size.*0"):
            mnist(batch_size=0)

    def test_missing_archives_are_named_and_nothing_is_created(self):
        with self.assertRaisesRegex(OSError, f"{IMAGES} is missing"):
            mnist(self.directory / "new", download=False)
        with self.no_mirror(), self.assertRaisesRegex(OSError, "could not be downloaded") as caught:
            mnist(self.directory / "new")
        message = str(caught.exception)
        for part in (IMAGES, LABELS, str(self.directory / "new" / "MNIST" / "raw")):
            self.assertIn(part, message, "the message does not say which files belong where")
        self.assertNotIn("\n", message, "more than one line")
        self.assertLess(len(message) - len(str(self.raw)), 250, "too long for one line")
        self.assertEqual(list(self.directory.iterdir()), [], "a failed download leaves directories")

    def test_download_fills_in_only_what_is_missing(self):
        with self.mirror() as asked:
            self.assertEqual(len(mnist(self.directory / "new").dataset), 60_000)
            self.assertTrue(asked, "the mirror was not used")
            fashion = idx(np.full((60_000, 28, 28), 7))
            self.write(images=fashion)
            (self.raw / LABELS).unlink()
            with contextlib.redirect_stdout(io.StringIO()):
                mnist(self.directory)
        self.assertEqual((self.raw / IMAGES).read_bytes(), fashion, "a user's file was overwritten")
        names = sorted(path.name for path in self.raw.iterdir())
        self.assertEqual(names, sorted(MD5), "something else is left in the data directory")

    def test_an_interrupted_download_leaves_no_partial_archive(self):
        def partial_copy(source, target):
            Path(target).write_bytes(Path(source).read_bytes()[:1000])
            raise OSError("disk full")

        failing = mock.patch("shutil.copyfile", partial_copy)
        with self.mirror(), failing, self.assertRaisesRegex(OSError, "disk full"):
            mnist(self.directory)
        self.assertFalse((self.raw / IMAGES).exists(), "copied in place instead of moved there")

    def test_other_files_of_the_format_are_used_with_one_printed_line(self):
        self.write(images=idx(np.full((50, 28, 28), 7)), labels=idx(np.arange(50)))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            loader = mnist(self.directory)
        self.assertEqual(loader.dataset.images.unique().tolist(), [7], "other images were used")
        self.assertEqual(printed.getvalue().count("\n"), 1, "no line, or more than one")
        self.assertIn("not MNIST's", printed.getvalue())

    def test_corrupted_archives_are_rejected_by_name_and_kept(self):
        for images in (
            archive_bytes(IMAGES)[:5_000_000],  # truncated
            archive_bytes(IMAGES)[:5_000_000] + b"x" + archive_bytes(IMAGES)[5_000_001:],
            b"not gzip",
            gzip.compress(b"\0\0\x0d\x03" + bytes(12)),  # an IDX file of floats
            gzip.compress(b"\0\0\x08\x03" + struct.pack(">3i", 2, 28, 28) + bytes(100)),
            gzip.compress(b""),
        ):
            self.write(images=images)
            with self.no_mirror(), self.assertRaisesRegex(OSError, f"{IMAGES} is corrupted"):
                mnist(self.directory)
            kept = (self.raw / IMAGES).read_bytes() == images
            self.assertTrue(kept, "a corrupted file of the user's was replaced")
        self.write(images=idx(np.zeros((50, 32, 32))), labels=idx(np.zeros(50)))
        with self.assertRaisesRegex(OSError, "50, 32, 32.*28 x 28"):
            mnist(self.directory)

    def test_unpacked_files_beside_the_archives_are_not_read(self):
        self.write()
        for name in MD5:
            (self.raw / name).with_suffix("").touch()  # as a kill during unpacking leaves them
        before = sorted((path.name, path.stat().st_mtime_ns) for path in self.raw.iterdir())
        self.assertEqual(len(mnist(self.directory, download=False).dataset), 60_000)
        after = sorted((path.name, path.stat().st_mtime_ns) for path in self.raw.iterdir())
        self.assertEqual(after, before, "wrote into the data directory, which may be read-only")

    def test_processes_that_download_at_once_all_get_the_images(self):
        with self.mirror():
            url = torchvision.datasets.MNIST.mirrors[0]
            code = f"""if True:
                import torchvision, mnist
                torchvision.datasets.MNIST.mirrors = [{url!r}]
                print(mnist.mnist({str(self.directory)!r}).dataset.images.sum().item())"""
            command = [sys.executable, "-c", code]
            processes = [
                subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) for _ in range(3)
            ]
            sums = [int(process.communicate()[0]) for process in processes]
        self.assertEqual(sums, [self.loader.dataset.images.sum().item()] * 3)


class UtilsTest(TemporaryDirectoryTest):
    def test_logger_writes_the_mean_of_each_window_at_its_last_step(self):
        with SummaryWriter(self.directory) as writer:
            logger = TensorBoardLogger(writer, avg_window=4, name="net", step=20)
            for step in range(1, 11):
                logger.add_values({"loss": torch.tensor(float(step)), "twice": 2.0 * step})
            logger.flush()
            logger.flush()
        message = "wrong mean or step, a rest that is lost, or one that is written twice"
        means = [(24, 2.5), (28, 6.5), (30, 9.5)]
        self.assertEqual(scalars(self.directory, "net/loss"), means, message)
        self.assertEqual([v for _, v in scalars(self.directory, "net/twice")], [5, 13, 19])
        self.assertEqual(logger.means, {"loss": 9.5, "twice": 19}, "means are not the last ones")

    def test_logger_reads_back_only_when_it_writes(self):
        with SummaryWriter(self.directory) as writer:
            logger = TensorBoardLogger(writer, avg_window=3)
            for _ in range(2):
                value = torch.empty((), device="meta", requires_grad=True) * 2  # has no value
                try:
                    logger.add_values({"loss": value})
                except (RuntimeError, NotImplementedError):
                    self.fail("a value was read back before its window was full")
            self.assertFalse(logger.window["loss"][0].requires_grad, "graphs are kept")

    def test_logger_without_name_and_with_invalid_window(self):
        with SummaryWriter(self.directory) as writer:
            TensorBoardLogger(writer, avg_window=1).add_values({"loss": 1.0})
            with self.assertRaisesRegex(ValueError, "avg_window.*0"):
                TensorBoardLogger(writer, avg_window=0)
        self.assertEqual(events(self.directory).Tags()["scalars"], ["loss"])

    def test_logger_names_a_diverged_run(self):
        with SummaryWriter(self.directory) as writer:
            for bad in (math.nan, math.inf, -1.8e6):
                logger = TensorBoardLogger(writer, avg_window=2, name="net")
                logger.add_values({"loss": 1.0})
                with self.assertRaisesRegex(FloatingPointError, "diverged: net/loss .* step 2.*lr"):
                    logger.add_values({"loss": torch.tensor(bad)})

    def saved(self, images: torch.Tensor, columns: int) -> torch.Tensor:
        """The grid as the PNG file has it, `[C, height, width]`."""
        with SummaryWriter(self.directory) as writer:
            path = save_images(images, columns, "samples", 20, writer)
        self.assertEqual(path, self.directory / "samples_epoch_0020.png")
        return read_image(path)

    def test_black_is_black_and_white_is_white(self):
        images = torch.tensor([-1.0, 1.0, 0.0, -2.0, 3.0]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
        gray = self.saved(images, columns=5)[0, 3, 3::6].tolist()
        self.assertEqual(gray, [0, 255, 128, 0, 255], "stretched, wrapped around or not clipped")

    def test_grid_is_filled_row_by_row(self):
        images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 4, 6)
        grid = self.saved(images, columns=2)
        self.assertEqual(grid.shape, (3, 3 * (4 + 2) + 2, 2 * (6 + 2) + 2), "columns are ignored")
        self.assertEqual(grid[1, 2::6, 2::8].tolist(), [[0, 64], [128, 191], [255, 0]])

    def test_png_and_tensorboard_show_the_same(self):
        png = self.saved(torch.rand(6, 1, 5, 5) * 2 - 1, columns=3)
        (event,) = events(self.directory).Images("samples")
        self.assertEqual(event.step, 20, "the slider should show the epoch")
        shown = read_image(io.BytesIO(event.encoded_image_string))
        self.assertTrue(torch.equal(shown, png), "TensorBoard shows other gray levels")


@functools.cache
def first_images() -> MNISTImages:
    whole = mnist().dataset
    return MNISTImages(whole.images[:256], whole.labels[:256])


class RunTest(TemporaryDirectoryTest):
    """Runs `main` on the first 256 images of MNIST: 4 steps an epoch."""

    small = ("--hidden_dims_gen", "32", "--hidden_dims_disc", "24", "--batch_size", "64")

    def mnist(self, root, batch_size, num_workers):
        self.mnist_arguments = root, batch_size, num_workers
        dataset = first_images()
        sampler = ShuffledBatches(dataset, batch_size)
        return DataLoader(dataset, batch_size=None, sampler=sampler)

    def run_main(self, *flags: str, module=train_torch, logs: str = "logs") -> Path:
        """Runs a command in a directory of logs; returns the directory of its last run."""
        directory, printed = self.directory / logs, io.StringIO()
        given = flags if "--resume" in flags else (*self.small, *flags)
        stand_in = mock.patch.object(module, "mnist", self.mnist)
        with contextlib.redirect_stdout(printed), contextlib.ExitStack() as stack:
            if module is train_torch:
                stack.enter_context(stand_in)
            self.addCleanup(setattr, self, "printed", "")
            try:
                module.main(*module.parse_args(["--log_dir", str(directory), *given]))
            finally:
                self.printed = printed.getvalue()
        return max(directory.iterdir(), key=lambda run: run.stat().st_ctime_ns)

    def resume(self, run: Path, *flags: str, module=train_torch) -> Path:
        return self.run_main("--resume", str(run), *flags, module=module, logs=run.parent.name)

    def rejected(self, *flags: str) -> str:
        """What the command line says about invalid flags: one line, exit status 2."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as stop:
            parse_args(["--log_dir", str(self.directory / "logs"), *flags])
        self.assertEqual(stop.exception.code, 2, f"exit status for {flags}")
        self.assertRegex(errors.getvalue(), r"^[^\n]+\n$", "not one line")
        return errors.getvalue()

    def assert_same_end(self, resumed: Path, straight: Path, why: str) -> None:
        """Weights, buffers, moments, curves and sample grids have to be equal, bit for bit."""
        a, b = load_checkpoint(resumed), load_checkpoint(straight)
        self.assertEqual(a["epoch"], b["epoch"], f"epochs differ {why}")
        for part in ("model", "optimizer_gen", "optimizer_disc"):
            self.assertEqual(str(a[part]), str(b[part]), f"{part} differs {why}")
            if part == "model":
                for name in b[part]:
                    self.assertTrue(torch.equal(a[part][name], b[part][name]), f"{name} {why}")
        tags = set(events(straight).Tags()["scalars"]) - {"seconds_per_epoch"}
        self.assertTrue(tags, "nothing was logged")
        for tag in tags:
            self.assertEqual(scalars(resumed, tag), scalars(straight, tag), f"{tag} {why}")
        for path in straight.glob("*.png"):
            same = (resumed / path.name).read_bytes() == path.read_bytes()
            self.assertTrue(same, f"{path.name} differs {why}")


class FakeTime(types.SimpleNamespace):
    """A clock for `main`: each call of `epoch` as train_gan takes so many seconds."""

    def __init__(self, *seconds: float):
        super().__init__(now=1000.0, seconds=iter(seconds), checkpoints=[])
        self.perf_counter = self.monotonic = lambda: self.now

    def train_gan(self, model, loader, logger_gen, logger_disc, *rest):
        self.now += next(self.seconds)
        for _ in loader:
            logger_gen.add_values({"loss": 1.0})
            logger_disc.add_values({"loss": 2.0})
        logger_gen.flush()
        logger_disc.flush()

    def replace_file(self, path, content):
        if path.name == CHECKPOINT.name:
            self.checkpoints.append(self.now - 1000)
        replace_file(path, content)

    def patched(self) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        for target in ("train_torch.time", "checkpoint.time"):
            stack.enter_context(mock.patch(target, self))
        stack.enter_context(mock.patch("train_torch.train_gan", self.train_gan))
        stack.enter_context(mock.patch("checkpoint.replace_file", self.replace_file))
        return stack


class TrainingTest(RunTest):
    def test_a_run_leaves_the_complete_directory(self):
        run = self.run_main("--epochs", "5", "--save_every", "2", "--name", "first")
        self.assertRegex(run.name, r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_first$", "--name is ignored")
        grids = sorted(path.name for path in run.glob("*.png"))
        expected = [
            f"{t}_epoch_000{n}.png" for t in ("interpolation", "samples") for n in (0, 2, 4, 5)
        ]
        self.assertEqual(
            grids, expected, "grids: before training, at every --save_every, at the end"
        )
        samples = read_image(run / "samples_epoch_0005.png")
        self.assertEqual(samples.shape[1:], (8 * 30 + 2, 8 * 30 + 2), "samples are not 8 x 8")
        rows = read_image(run / "interpolation_epoch_0005.png")
        message = "not one interpolation of 7 images in each of 16 rows"
        self.assertEqual(rows.shape[1:], (16 * 30 + 2, 7 * 30 + 2), message)
        arguments = json.loads((run / "args.json").read_text())
        self.assertEqual((arguments["epochs"], arguments["hidden_dims_gen"]), (5, [32]))

        saved = load_checkpoint(run)
        self.assertEqual(saved["epoch"], 5)
        for name in ("optimizer_gen", "optimizer_disc"):
            self.assertEqual(saved[name]["state"][0]["step"], 20, f"{name}: steps of 5 epochs")
        self.assertEqual(str(run.parent), saved["args"]["log_dir"])
        leftovers = list(run.glob("checkpoints/*.unfinished"))
        self.assertEqual(leftovers, [], "unfinished files are left")

        losses = ["generator/loss", "discriminator/loss"]
        for tag in [
            *losses,
            *(f"discriminator/accuracy_{images}" for images in ("real", "fake")),
            *(f"discriminator/probability_{images}" for images in ("real", "fake")),
            "seconds_per_epoch",
        ]:
            steps = [step for step, _ in scalars(run, tag)]
            self.assertEqual(steps, [4, 8, 12, 16, 20], f"{tag}: a mean per epoch of 4 steps")
        for tag in ("samples", "interpolation"):
            self.assertEqual([event.step for event in events(run).Images(tag)], [0, 2, 4, 5])

        lines = self.printed.splitlines()
        self.assertEqual(len(lines), 7, "two lines at the start, one per grid, two at the end")
        self.assertIn(str(run), lines[0])
        command = f"tensorboard --logdir {run.parent} --samples_per_plugin images="
        self.assertIn(command, lines[1], "TensorBoard's slider would skip sample grids")
        gen, disc = (scalars(run, tag)[-1][1] for tag in losses)
        message = "another loss, or that of the other network"
        self.assertRegex(lines[4], rf"^epoch +5/5: G {gen:.3f} D {disc:.3f}, .* s/epoch", message)
        self.assertTrue(all(len(line) < 80 for line in lines[2:5]), "wider than a terminal")
        self.assertIn("model_checkpoint.pt", lines[6])

    def test_flags_reach_what_they_are_for(self):
        captured = []
        flags = ["--z_dim", "5", "--hidden_dims_gen", "6", "7", "--hidden_dims_disc", "8"]
        flags += ["--dp_rate_gen", "0.2", "--dp_rate_disc", "0.4", "--lr", "0.003"]
        flags += ["--data_dir", str(self.directory), "--num_workers", "3", "--batch_size", "32"]

        def capture(*arguments):
            captured.extend(arguments)
            raise KeyboardInterrupt

        with mock.patch("train_torch.train_gan", capture), self.assertRaises(SystemExit):
            self.run_main(*flags, "--epochs", "1")
        model, _, logger_gen, logger_disc, optimizer_gen, optimizer_disc, *_ = captured
        root, batch_size, num_workers = self.mnist_arguments
        self.assertEqual(str(root), str(self.directory), "--data_dir does not reach mnist")
        self.assertEqual(batch_size, 32, "--batch_size does not reach mnist")
        self.assertEqual(num_workers, 3, "--num_workers does not reach mnist")
        sizes = [m.in_features for m in layers(model, nn.Linear)]
        message = "--z_dim, --hidden_dims_gen or --hidden_dims_disc go elsewhere"
        self.assertEqual(sizes, [5, 6, 7, 784, 8], message)
        rates = [layer.p for layer in layers(model, nn.Dropout)]
        self.assertEqual(rates, [0.2, 0.2, 0.4], "--dp_rate_gen or --dp_rate_disc go elsewhere")
        for name, network, optimizer, logger in [
            ("generator", model.generator, optimizer_gen, logger_gen),
            ("discriminator", model.discriminator, optimizer_disc, logger_disc),
        ]:
            (group,) = optimizer.param_groups
            self.assertEqual(group["lr"], 0.003, f"--lr does not reach the {name}'s optimizer")
            self.assertEqual(tuple(group["betas"]), (0.5, 0.999), f"the {name}'s betas")
            theirs = {id(p) for p in group["params"]}
            message = f"the {name}'s optimizer is over other parameters"
            self.assertEqual(theirs, {id(p) for p in network.parameters()}, message)
            self.assertEqual(logger.prefix, f"{name}/", "the loggers are swapped")

    def test_hyperparameters_are_logged_with_what_one_compares_first(self):
        run = self.run_main("--epochs", "1", "--lr", "0.003")
        metadata = events(run).summary_metadata
        parse = HParamsPluginData.FromString
        start = parse(metadata["_hparams_/session_start_info"].plugin_data.content)
        logged = start.session_start_info.hparams
        self.assertEqual(set(logged), set(HYPERPARAMETERS), "missing among the hyperparameters")
        self.assertEqual(logged["lr"].number_value, 0.003, "lr is missing, or another")
        experiment = parse(metadata["_hparams_/experiment"].plugin_data.content).experiment
        self.assertEqual(experiment.hparam_infos[0].name, "lr", "lr is not the first column")
        metrics = {info.name.tag for info in experiment.metric_infos}
        self.assertLessEqual(metrics, set(events(run).Tags()["scalars"]), "never written")

    def test_same_seed_same_weights_and_another_seed_others(self):
        weights = [
            load_checkpoint(self.run_main("--epochs", "1", "--seed", seed, logs=seed + name))[
                "model"
            ]
            for seed, name in [("1", "a"), ("1", "b"), ("2", "c")]
        ]
        same = [all(torch.equal(weights[0][k], w[k]) for k in w) for w in weights[1:]]
        self.assertEqual(same, [True, False], "the seed does not decide the weights")

    def test_precision_reaches_the_training(self):
        biases = []
        with mock.patch("command_line.supports_bf16", lambda device: True):
            for precision in ("fp32", "bf16"):
                run = self.run_main("--epochs", "2", "--precision", precision, logs=precision)
                biases.append(load_checkpoint(run)["model"]["generator.layers.0.bias"])
        self.assertFalse(torch.equal(*biases), "--precision bf16 has no effect")
        torch.testing.assert_close(*biases, rtol=0, atol=0.05, msg="bf16 trains something else")

    def test_sample_grids_do_not_change_training(self):
        runs = [self.run_main("--epochs", "3", "--save_every", n, logs=n) for n in ("1", "9")]
        weights = [load_checkpoint(run)["model"] for run in runs]
        for key in weights[0]:
            same = torch.equal(*(w[key] for w in weights))
            self.assertTrue(same, "sample grids use training's random numbers")

    def test_sample_grids_are_of_the_same_latents_at_every_epoch(self):
        model = small_gan()
        with SummaryWriter(self.directory) as writer:
            for save in (train_torch.generate_and_save, train_torch.interpolate_and_save):
                first = save(model, 1, writer).read_bytes()
                torch.rand(5)  # as training would
                second = save(model, 2, writer).read_bytes()
                self.assertEqual(first, second, f"{save.__name__} uses new latents each time")

    def test_runs_of_the_same_second_get_directories_of_their_own(self):
        runs = {make_run_dir(self.directory) for _ in range(5)}
        self.assertEqual(len(runs), 5, "two runs write into the same directory")
        self.assertEqual(set(self.directory.iterdir()), runs)

    def test_progress_bars_fit_80_columns_and_show_both_losses(self):
        bars = io.StringIO()
        window = mock.patch.object(TensorBoardLogger.__init__, "__defaults__", (2, None, 0))
        columns = mock.patch.dict("os.environ", {"COLUMNS": "80"})
        with columns, contextlib.redirect_stderr(bars), window:
            self.run_main("--progress_bar", "--epochs", "2")
        self.assertRegex(bars.getvalue(), r"G \d+\.\d{3} D \d+\.\d{3}, [\d,]+ img/s")
        longest = max(map(len, bars.getvalue().replace("\r", "\n").splitlines()))
        self.assertLessEqual(longest, 82, "bars break the line")  # tqdm appends an escape sequence
        self.assertNotIn("s/epoch", self.printed, "lines would tear the bars apart")

    def test_seconds_are_of_one_epoch_and_the_time_left_of_the_rest(self):
        fake = FakeTime(5, 7, 9)
        with fake.patched():
            run = self.run_main("--epochs", "3", "--save_every", "1")
        seconds = [value for _, value in scalars(run, "seconds_per_epoch")]
        self.assertEqual(seconds, [5, 7, 9], "counted from the start of training")
        self.assertIn("epoch   2/3: G 1.000 D 2.000, 7.0 s/epoch, 0:00:07 left", self.printed)

    def test_checkpoints_are_written_every_half_minute_with_the_grids_and_at_the_end(self):
        fake = FakeTime(10, 10, 10, 10, 100, 1, 1, 1)
        with fake.patched():
            self.run_main("--epochs", "8", "--save_every", "6")
        message = "start, after more than 30 s, after 30 s again, with the grids, at the end"
        self.assertEqual(fake.checkpoints, [0, 40, 140, 141, 143], message)


FOREIGN_MODELS = """
import torch
from torch import nn

class GeneratorMLP(nn.Module):
    def __init__(self, z_dim=32, hidden_dims=[128], output_shape=[1, 28, 28], dp_rate=0.1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(z_dim, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dp_rate),
            nn.Linear(16, 784), nn.Tanh()
        )
    def forward(self, z):
        return self.net(z).reshape(-1, 1, 28, 28)
    @property
    def device(self):
        return next(self.parameters()).device

class DiscriminatorMLP(nn.Module):
    def __init__(self, input_dims=784, hidden_dims=[512], dp_rate=0.3):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.net = nn.Sequential(
            nn.Linear(input_dims, 16), nn.BatchNorm1d(16), nn.Dropout(dp_rate), nn.Linear(16, 1)
        )
    def forward(self, x):
        self.passes += 1
        return self.net(x.flatten(1))
"""
FOREIGN_MNIST = """
import random
import numpy as np
import torch
from torch.utils.data import DataLoader

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 200
    def __getitem__(self, i):
        shift = random.randrange(4) + np.random.randint(4) + torch.randint(4, ()).item()
        return torch.full((1, 28, 28), i / 100 - 1).roll(shift, 2) * torch.rand(28), i % 10

def mnist(root="data", batch_size=128, num_workers=0, download=True):
    return DataLoader(Images(), batch_size, shuffle=True, num_workers=num_workers, drop_last=True)
"""


def train_torch_with(name: str, code: str) -> types.ModuleType:
    """`train_torch.py` beside somebody else's module of this name."""
    module = types.ModuleType(name)
    exec(code, module.__dict__)
    spec = importlib.util.spec_from_file_location(
        f"train_torch_{name}", REPOSITORY / "train_torch.py"
    )
    loaded = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {name: module}):
        spec.loader.exec_module(loaded)
    return loaded


class ResumeTest(RunTest):
    """Runs that are killed and resumed. Real processes: benchmarks/kill_and_resume.py."""

    def run_killed(self, step: int, *flags: str, logs: str = "killed") -> Path:
        """Starts a run and stops it in that step, as abruptly as a kill -9."""

        class Killed(BaseException):
            pass

        add_values = TensorBoardLogger.add_values

        def add_and_die(logger, values):
            add_values(logger, values)
            if logger.step == step:
                logger.flush()  # more than its checkpoint knows of
                if logger.prefix == "generator/":
                    raise Killed

        patch = mock.patch.object(TensorBoardLogger, "add_values", add_and_die)
        with patch, self.assertRaises(Killed):
            self.run_main(*flags, logs=logs)
        return next((self.directory / logs).iterdir())

    def test_a_killed_run_ends_as_one_that_was_not(self):
        flags = ("--epochs", "4", "--save_every", "2")
        straight = self.run_main(*flags, logs="straight")
        for step, saved_epoch in [(1, 0), (7, 0), (9, 2), (16, 2)]:  # 4 steps an epoch
            run = self.run_killed(step, *flags, logs=f"step{step}")
            self.assertEqual(load_checkpoint(run)["epoch"], saved_epoch, "checkpoint of that time")
            self.resume(run)
            self.assert_same_end(run, straight, f"after a kill in step {step}")
        self.assertEqual(len(list((self.directory / "step16").iterdir())), 1, "a new run directory")

    def test_epochs_can_be_raised(self):
        straight = self.run_main("--epochs", "3", logs="straight")
        raised = self.resume(self.run_main("--epochs", "1", logs="raised"), "--epochs", "3")
        (raised / "samples_epoch_0001.png").unlink()
        self.assert_same_end(raised, straight, "after raising --epochs")
        self.assertIn("epoch   3/3", self.printed)

    def test_only_what_changes_the_result_must_agree(self):
        run = self.run_main("--epochs", "1")
        for flag, value in [
            ("--lr", "0.1"),
            ("--seed", "1"),
            ("--z_dim", "3"),
            ("--dp_rate_gen", "0"),
        ]:
            message = self.rejected("--resume", str(run), "--epochs", "2", flag, value)
            self.assertRegex(message, f"argument {flag}: .*{value}", "a contradiction is accepted")
        contents = torch.load(run / CHECKPOINT, weights_only=True)
        contents["args"] |= {"device": "cuda:0", "num_workers": 7, "progress_bar": True}
        torch.save(contents, run / CHECKPOINT)
        free = ["--num_workers", "1", "--save_every", "3", "--data_dir", str(self.directory)]
        args, _ = parse_args(
            ["--resume", str(run), "--epochs", "2", *free, "--log_dir", "elsewhere"]
        )
        self.assertNotEqual(args.device, "cuda:0", "a checkpoint of a GPU cannot be resumed here")
        self.assertEqual((args.num_workers, args.save_every), (1, 3), "flags are ignored")
        self.assertFalse(args.progress_bar, "a resumed run cannot switch its bars off")
        self.resume(run, "--epochs", "2", *free)
        self.assertEqual(load_checkpoint(run)["epoch"], 2)
        self.assertEqual(GAN.from_checkpoint(run).sample(2).shape, (2, 1, 28, 28))

    def test_a_finished_run_says_how_to_train_on(self):
        run, printed = self.run_main("--epochs", "1"), io.StringIO()
        with contextlib.redirect_stdout(printed), self.assertRaises(SystemExit) as stop:
            parse_args(["--resume", str(run)])
        self.assertRegex(printed.getvalue(), "finished.*--epochs")
        self.assertEqual(stop.exception.code, 0, "resuming a finished run is not a failure")

    def test_bars_count_from_the_resumed_epoch(self):
        run, bars = self.run_main("--epochs", "1"), io.StringIO()
        with contextlib.redirect_stderr(bars):
            self.resume(run, "--epochs", "2", "--progress_bar")
        self.assertRegex(bars.getvalue(), r"epochs: +50%.* 1/2 ", "the bar starts at epoch 0")
        self.assertRegex(bars.getvalue(), r"steps: .* 0/4 ", "an epoch of fewer steps")

    def test_a_job_resumes_its_own_run(self):
        for job in ("7", "17"):
            self.run_main("--epochs", "1", "--job_id", job, "--name", "x")
        logs = ["--log_dir", str(self.directory / "logs")]
        _, saved = parse_args([*logs, *self.small, "--job_id", "7", "--epochs", "9"])
        message = "a restarted job starts a new run, or takes another job's"
        self.assertTrue(saved and saved["run_dir"].name.endswith("_x_job7"), message)
        self.assertIsNone(parse_args([*logs, "--job_id", "1"])[1], "a new job took another's run")

    def test_ctrl_c_prints_one_line_with_the_command_that_resumes(self):
        ctrl_c = mock.patch("train_torch.train_gan", side_effect=KeyboardInterrupt)
        with ctrl_c, self.assertRaises(SystemExit) as stop:
            self.run_main("--epochs", "1")
        (run,) = (self.directory / "logs").iterdir()
        self.assertEqual(stop.exception.code, 130, "exit status is not 128 + SIGINT")
        self.assertIn(f"--resume {run}", self.printed.splitlines()[-1])
        self.resume(run)

    def test_two_processes_on_one_run(self):
        straight = self.run_main("--epochs", "3", "--save_every", "1", logs="straight")
        run = self.run_main("--epochs", "1")
        train = train_gan

        def train_while_another_resumes(*args):
            with mock.patch("train_torch.train_gan", train):
                self.resume(run, "--epochs", "3")
            train(*args)

        other = mock.patch("train_torch.train_gan", train_while_another_resumes)
        with other, self.assertRaisesRegex(OSError, "replaced by another process"):
            self.resume(run, "--epochs", "2")
        epoch = load_checkpoint(run)["epoch"]
        self.assertEqual(epoch, 3, "the slower process replaced the faster one's checkpoint")
        a, b = load_checkpoint(run)["model"], load_checkpoint(straight)["model"]
        self.assertTrue(all(torch.equal(a[name], b[name]) for name in b))

    def test_somebody_elses_models_and_mnist(self):
        for name, code in [("models", FOREIGN_MODELS), ("mnist", FOREIGN_MNIST)]:
            module = train_torch_with(name, code)
            if name == "models":
                module.mnist = self.mnist
            straight = self.run_main("--epochs", "3", module=module, logs=f"{name}_straight")
            workers = ("--num_workers", "1") if name == "mnist" else ()
            run = self.run_main("--epochs", "1", module=module, logs=name)
            self.resume(run, "--epochs", "3", module=module)
            (run / "samples_epoch_0001.png").unlink()
            self.assert_same_end(run, straight, f"with another {name}.py")
            if workers:
                straight = self.run_main("--epochs", "2", *workers, module=module, logs="workers")
                run = self.run_main("--epochs", "1", *workers, module=module, logs="resumed")
                self.resume(run, "--epochs", "2", *workers, module=module)
                self.assert_same_end(run, straight, "with random transforms in a worker")

    def test_files_that_are_not_checkpoints_are_rejected(self):
        run = self.run_main("--epochs", "1")
        complete = (run / CHECKPOINT).read_bytes()
        newer = {**torch.load(run / CHECKPOINT, weights_only=True), "format": 99}
        path = self.directory / "checkpoints" / "invalid.pt"
        path.parent.mkdir()

        class Code:
            def __reduce__(self):
                return (os.mkdir, (str(path.with_name("executed")),))

        for content, reason in [
            (None, "No such file"),
            (b"", "corrupted"),
            (complete[:5000], "corrupted"),
            (complete[:-1], "corrupted"),
            (b"a text\n" * 100, "corrupted"),
            ({"weights": torch.ones(2)}, "not a checkpoint of this version"),
            ([1, 2], "not a checkpoint of this version"),
            ({"format": 2, "model": Code()}, "contains code"),
            (newer, "not a checkpoint of this version"),
        ]:
            path.unlink(missing_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                torch.save(content, path)
            self.assertIn(reason, self.rejected("--resume", str(path)))
        self.assertFalse(path.with_name("executed").exists(), "code in the file was executed")

    def test_a_checkpoint_of_other_networks_is_rejected(self):
        run = self.run_main("--epochs", "1")
        module = train_torch_with("models", FOREIGN_MODELS)
        module.mnist = self.mnist
        with self.assertRaisesRegex(OSError, "does not fit models.py"):
            self.resume(run, "--epochs", "2", module=module)

    def test_curves_are_on_disk_before_the_checkpoint_is(self):
        written = []

        def replace(path, content):
            if path.name == CHECKPOINT.name:
                written.append(events(path.parent.parent).Tags()["scalars"])
            replace_file(path, content)

        with mock.patch("checkpoint.replace_file", replace):
            self.run_main("--epochs", "1")
        self.assertIn("generator/loss", written[-1], "a kill -9 would leave a hole in the curves")

    def test_a_full_disk_leaves_the_last_checkpoint(self):
        path = self.directory / "checkpoints" / "c.pt"
        replace_file(path, b"old")
        full_disk = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with full_disk, self.assertRaisesRegex(OSError, "could not write .*c.pt .*No space"):
            replace_file(path, b"new")
        self.assertEqual(path.read_bytes(), b"old", "the complete checkpoint is lost")
        self.assertEqual([p.name for p in path.parent.iterdir()], ["c.pt"], "remains are left")
        (path.parent / "c.pt.123.unfinished").touch()  # as a kill during writing leaves it
        replace_file(path, b"new")
        self.assertEqual([p.name for p in path.parent.iterdir()], ["c.pt"], "remains are left")

    def test_a_diverged_run_stops_and_keeps_the_last_checkpoint(self):
        flags = ("--save_every", "1", "--epochs", "3")
        generator_step = GAN.generator_step
        for bad in (math.nan, math.inf, 1e6):
            steps = iter(range(1, 13))

            def step(model, x_real, bad=bad, steps=steps):
                loss, values = generator_step(model, x_real)
                return (loss * bad, {"loss": loss * bad}) if next(steps) == 6 else (loss, values)

            with (
                mock.patch.object(GAN, "generator_step", step),
                self.assertRaisesRegex(FloatingPointError, "training diverged: .*/loss"),
            ):
                self.run_main(*flags, logs=f"bad_{bad}")
            saved = load_checkpoint(next((self.directory / f"bad_{bad}").iterdir()))
            self.assertEqual(saved["epoch"], 1, "the last good checkpoint is lost")
            for name, weight in saved["model"].items():
                self.assertTrue(weight.isfinite().all(), f"{name} was saved broken")


class CommandLineTest(RunTest):
    def test_defaults(self):
        expected = {
            **{"z_dim": 32, "hidden_dims_gen": [128, 256, 512], "hidden_dims_disc": [512, 256]},
            **{"dp_rate_gen": 0.1, "dp_rate_disc": 0.3, "lr": 2e-4, "batch_size": 128},
            **{"epochs": 250, "seed": 42, "num_workers": 0, "log_dir": "GAN_logs/"},
            **{"save_every": 10, "precision": "fp32", "progress_bar": False},
        }
        args = vars(parse_args([])[0])
        self.assertEqual({name: args[name] for name in expected}, expected)
        self.assertEqual(
            parse_args(["--hidden_dims_gen"])[0].hidden_dims_gen, [], "none is allowed"
        )

    def test_bf16_is_rejected_where_the_device_has_none(self):
        flags = ("--precision", "bf16", "--device", "cpu")
        with mock.patch("command_line.supports_bf16", lambda device: True):
            self.assertEqual(parse_args(flags)[0].precision, "bf16")
        with mock.patch("command_line.supports_bf16", lambda device: False):
            self.assertRegex(self.rejected(*flags), "--precision: cpu .*'bf16'")

    def test_invalid_values_are_rejected_in_one_line(self):
        file = self.directory / "file"
        file.touch()
        for flag, value, reason in [
            ("--z_dim", "0", "integer"),
            ("--hidden_dims_gen", "128,256", "separated by spaces"),
            ("--hidden_dims_disc", "1e3", "integers"),
            ("--dp_rate_gen", "1.0", "below 1"),
            ("--dp_rate_disc", "nan", "below 1"),
            ("--lr", "0", "above 0"),
            ("--lr", "inf", "at most 1"),
            ("--batch_size", "0", "integer"),
            ("--epochs", "many", "integer"),
            ("--seed", "5000000000", "integer"),
            ("--num_workers", "257", "integer"),
            ("--save_every", "0", "integer"),
            ("--device", "nonsense", "no device"),
            ("--device", "meta", "no device"),
            ("--precision", "fp8", "choose from"),
            ("--name", "a/b", "letters"),
            ("--job_id", "a/b", "letters"),
            ("--log_dir", str(file / "logs"), "not a directory"),
            ("--data_dir", str(file), "not a directory"),
        ]:
            message = self.rejected(flag, value)
            self.assertRegex(
                message, rf"{flag}: .*{reason}.*'{value}'|{flag}: .*'{value}'.*{reason}"
            )
        self.assertIn("not allowed with", self.rejected("--resume", "x", "--job_id", "1"))
        self.assertEqual(list(self.directory.iterdir()), [file], "something was created")

    def test_the_command_ends_with_one_line_for_what_a_user_can_cause(self):
        (self.directory / "MNIST").mkdir()
        (self.directory / "MNIST" / "raw").touch()
        for flags, status, reason in [
            (["--batch_size", "0"], 2, "--batch_size"),
            (["--data_dir", str(self.directory)], 1, "is missing"),
        ]:
            command = [
                sys.executable,
                train_torch.__file__,
                "--log_dir",
                str(self.directory / "logs"),
            ]
            done = subprocess.run([*command, *flags], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (status, ""), flags)
            self.assertRegex(done.stderr, rf"^train_torch.py: .*{reason}[^\n]*\n$", "not one line")
        self.assertFalse((self.directory / "logs").exists(), "something was created")

    def test_a_busy_machine_is_named_with_the_faster_command(self):
        for load, threads, printed in [(0.2, 2, ""), (1.1, 2, "OMP_NUM_THREADS=1"), (9, 1, "")]:
            output = io.StringIO()
            with (
                mock.patch("os.getloadavg", lambda load=load: (load, 0, 0), create=True),
                mock.patch("os.cpu_count", lambda: 2),
                mock.patch("torch.get_num_threads", lambda threads=threads: threads),
                contextlib.redirect_stdout(output),
            ):
                command_line.print_thread_hint("cpu")
                command_line.print_thread_hint("cuda:0")
            text = output.getvalue()
            self.assertEqual(
                text.count("OMP_NUM"), bool(printed), f"load {load}, {threads} threads"
            )
            self.assertIn(printed, text)

    def test_openmp_is_told_not_to_spin_before_torch_is_loaded(self):
        code = """if True:
            import os, sys
            class Finder:
                def find_spec(self, name, *rest):
                    if name == "torch":
                        print(os.environ.get("GOMP_SPINCOUNT", 0), flush=True)
                        os._exit(0)
            sys.meta_path.insert(0, Finder())
            import train_torch"""
        run = functools.partial(
            subprocess.check_output, [sys.executable, "-c", code], cwd=REPOSITORY
        )
        environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
        self.assertGreater(int(run(env=environment)), 0, "set too late, or not at all")
        chosen = run(env={**environment, "GOMP_SPINCOUNT": "7"})
        self.assertEqual(int(chosen), 7, "what the user has set is overwritten")

    def test_trains_without_what_only_posix_has(self):
        code = f"""if True:
            import os, signal, sys
            import torch.utils.tensorboard, torchvision, tqdm
            for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGHUP"):
                delattr(signal, name)
            for name in ("getloadavg", "fork", "kill", "getuid", "sched_getaffinity"):
                delattr(os, name)
            sys.modules.update(resource=None, fcntl=None, pwd=None, grp=None, termios=None)
            import train_torch, unittests
            train_torch.mnist = unittests.RunTest.mnist.__get__(unittests.RunTest())
            flags = ["--epochs", "1", "--log_dir", {str(self.directory)!r}]
            train_torch.main(*train_torch.parse_args([*flags, *unittests.RunTest.small]))"""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"does not run on Windows: {done.stderr}")
        self.assertEqual(len(list(self.directory.glob(f"*/{CHECKPOINT.as_posix()}"))), 1)


if __name__ == "__main__":
    unittest.main()
