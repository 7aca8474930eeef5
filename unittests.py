"""All unit tests. Each message names the mistake that it guards against."""

import base64
import copy
import functools
import gzip
import hashlib
import http.server
import io
import itertools
import json
import logging
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.functional import pil_to_tensor

import command_line
import evaluate
import metrics
import sample
import train_torch
from checkpoint import CHECKPOINT, load_checkpoint, make_run_dir, replace_file
from metrics import classify, frechet_distance, kernel_distance, neighbor_scores, round_to_gray
from mnist import DATA_DIR, MD5, mnist
from models import DiscriminatorMLP, GeneratorMLP
from train_torch import GAN, HYPERPARAMETERS, parse_args, seed_everything, train_gan
from utils import CHARTS, QUALITY, TensorBoardLogger, film, git_commit, save_images, to_gray

IMAGES, LABELS, TEST_IMAGES, _ = MD5


def setUpModule():
    torch.set_num_threads(1)  # the networks here are too small for more


def fill_with_ones(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.ones_(parameter)


def small_gan(gen=(16,), disc=(16,), dp_rate_gen=0.1, dp_rate_disc=0.3, z_dim=8) -> GAN:
    return GAN(gen, disc, dp_rate_gen, dp_rate_disc, z_dim)


def events(run: Path) -> EventAccumulator:
    """What TensorBoard would read from the run directory."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    return EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every curve, by its tag."""
    read = events(run)
    tags = read.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags}


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs Python in the repository."""
    command, here = [sys.executable, *arguments], Path(train_torch.__file__).parent
    return subprocess.run(command, cwd=here, capture_output=True, text=True, **options)


class TemporaryDirectoryTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)


class ModelsTest(unittest.TestCase):
    def test_outputs_at_any_depth(self):
        torch.manual_seed(0)
        for hidden_dims in ([], (7,), [7, 5, 3]):
            generator = GeneratorMLP(4, hidden_dims, output_shape=(3, 5, 6))
            images = generator(1000 * torch.randn(50, 4))
            self.assertEqual(images.shape, (50, 3, 5, 6), "images must be [B, C, H, W], not flat")
            self.assertLessEqual(images.abs().max(), 1, "without Tanh, images leave [-1, 1]")
            self.assertLess(images.min(), -0.5, "a sigmoid at the end never gives black (-1)")
            self.assertEqual(generator.device, torch.device("cpu"))
            discriminator, x = DiscriminatorMLP(90, hidden_dims, dp_rate=0), 1000 * images
            logits = discriminator(x)
            self.assertEqual(logits.shape, (50, 1), "not one logit per image")
            self.assertGreater(logits.std(), 1, "a sigmoid inside: the loss applies it once more")
            torch.testing.assert_close(discriminator(x.flatten(1)), logits, msg="flat images")

    def test_layers_are_as_documented(self):
        for network, sizes, rate in [
            (GeneratorMLP(), [128, 256, 512, 1024, 784], 0.1),
            (DiscriminatorMLP(), [512, 256, 1], 0.3),
        ]:
            name, hidden = type(network).__name__, len(sizes) - 1
            kinds = [type(layer).__name__ for layer in network.layers]
            expected = [*["Linear", "Dropout", "LeakyReLU"] * hidden, "Linear"]
            self.assertEqual(kinds, expected, f"{name}: no dropout, other layers or another order")
            linear, dropout, activation = (network.layers[i::3] for i in range(3))
            self.assertEqual([layer.out_features for layer in linear], sizes, f"{name}: defaults")
            self.assertEqual({layer.p for layer in dropout}, {rate}, f"{name}: another rate")
            self.assertEqual({layer.negative_slope for layer in activation}, {0.2}, "another slope")

    def test_invalid_sizes_and_rates_are_rejected_by_name_and_value(self):
        generator = {"z_dim": 0, "hidden_dims": [-3], "output_shape": [0], "dp_rate": 1.0}
        discriminator = {"input_dims": 0, "hidden_dims": [2.5], "dp_rate": math.nan}
        for network, invalid in [(GeneratorMLP, generator), (DiscriminatorMLP, discriminator)]:
            for name, value in invalid.items():
                reason = f"{name} must.*" + re.escape(str(value).strip("[]"))
                with self.assertRaisesRegex(ValueError, reason, msg=f"{name} was accepted"):
                    network(**{name: value})


class GANTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x_real = torch.rand(6, 1, 28, 28) * 2 - 1

    def train(self, model, steps: int, lr_gen: float = 1e-3, lr_disc: float = 1e-3, **options):
        """Runs an epoch on the same batch; returns the two loggers' stand-ins."""
        networks = (model.generator, lr_gen), (model.discriminator, lr_disc)
        optimizers = [torch.optim.Adam(network.parameters(), lr=lr) for network, lr in networks]
        loggers = mock.Mock(), mock.Mock()
        train_gan(model, [(self.x_real, None)] * steps, *loggers, *optimizers, **options)
        return loggers

    def test_arguments_go_where_they_belong(self):
        model = GAN([5, 6], [7], 0.2, 0.4, 3)
        expected = GeneratorMLP(z_dim=3, hidden_dims=[5, 6], dp_rate=0.2)
        self.assertEqual(str(model.generator), str(expected), "the generator has other arguments")
        expected = DiscriminatorMLP(hidden_dims=[7], dp_rate=0.4)
        self.assertEqual(
            str(model.discriminator), str(expected), "the discriminator has other arguments"
        )
        self.assertEqual(model.latents(2).shape, (2, 3), "z_dim is not used")

    def test_losses_and_logged_values_are_those_worked_out_by_hand(self):
        for real, fake in [(0.1, -0.11), (-0.11, 0.1)]:  # the logits
            model, x_real = small_gan([], []), torch.full((6, 1, 28, 28), (real - 1) / 3)
            # All fake images have one gray level, and a logit is 3 * mean + 1.
            constants = 0, math.atanh((fake - 1) / 3), 6 / 784, -2
            networks = [*model.generator.parameters(), *model.discriminator.parameters()]
            for parameter, value in zip(networks, constants, strict=True):
                nn.init.constant_(parameter, value)
            p_real, p_fake = (1 / (1 + math.exp(-logit)) for logit in (real, fake))
            loss = -(math.log(p_real) + math.log(1 - p_fake)) / 2
            disc = {"loss": loss, "probability_real": p_real, "probability_fake": p_fake}
            disc |= {"accuracy_real": real > 0, "accuracy_fake": fake < 0}
            gen = {"loss": -math.log(p_fake)}
            for own, by_hand in [("discriminator", disc), ("generator", gen)]:
                loss, values = getattr(model, f"{own}_step")(x_real)
                self.assertAlmostEqual(loss.item(), by_hand["loss"], 4, f"{own}: another loss")
                for key, value in values.items():
                    self.assertEqual(value.shape, (), f"{own}: {key} is not a scalar")
                    self.assertFalse(value.requires_grad, f"{own}: {key} keeps graphs in memory")
                    self.assertAlmostEqual(value.item(), by_hand[key], 4, f"{own}: wrong {key}")

    def test_each_loss_gives_gradients_to_its_own_network_alone(self):
        model, steps = small_gan(), []
        frozen = model.discriminator.layers[0].weight.requires_grad_(False)  # by the user
        networks = nn.ModuleDict({n: getattr(model, n) for n in ("generator", "discriminator")})

        def note(optimizer):
            grads = {name: p.grad for name, p in networks.named_parameters()}
            steps.append({name: grad.clone() for name, grad in grads.items() if grad is not None})

        with mock.patch.object(torch.optim.Adam, "step", note):
            self.train(model, 1)
        disc, gen = steps
        for name, p in networks.named_parameters():
            learns = name.startswith("discriminator") and p is not frozen
            self.assertEqual(name in disc, learns, f"{name}: the discriminator's loss or step")
            if name.startswith("generator"):
                self.assertTrue(gen[name].any(), f"{name} gets no gradient of the generator's loss")
            elif learns:
                same = torch.equal(gen[name], disc[name])
                self.assertTrue(same, f"the generator's step computes a gradient of {name}")
        self.assertFalse(frozen.requires_grad, "unfreezes what the user froze")

    def test_bf16_is_for_matmuls_alone(self):
        model, dtypes, backward = small_gan(), [], []
        for layer in (model.generator.layers[0], model.discriminator.layers[-1]):
            layer.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
            layer.weight.register_hook(lambda _: backward.append(torch.is_autocast_enabled("cpu")))
        loggers = self.train(model, 3, bf16=True)
        self.assertEqual(set(dtypes), {torch.bfloat16}, "autocast is not on")
        self.assertEqual(set(backward), {False}, "autocast is around backward, too")
        for name, p in model.named_parameters():
            self.assertEqual(p.dtype, torch.float32, f"{name} is not kept in float32")
        for call in [*loggers[0].add_values.mock_calls, *loggers[1].add_values.mock_calls]:
            for key, value in call.args[0].items():
                self.assertEqual(value.dtype, torch.float32, f"{key} is rounded to 8 bits")
        self.train(model, 1)
        self.assertEqual(dtypes[-1], torch.float32, "autocast is on without being asked for")

    def test_discriminator_sees_real_and_fresh_fake_images(self):
        model, seen = small_gan(dp_rate_gen=0.0), []
        model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for step in (model.discriminator_step, model.discriminator_step, model.generator_step):
            step(self.x_real)
        torch.testing.assert_close(seen[0][:6], self.x_real, msg="real images were changed")
        first, second, third = (images[-6:] for images in seen)
        repeated = torch.equal(first, second) or torch.equal(second, third)
        self.assertFalse(repeated, "each step needs fresh fake images")

    def test_sampling_and_its_dropout(self):
        model = small_gan(dp_rate_gen=0.5)
        self.assertEqual(model.sample(3).shape, (3, 1, 28, 28))
        for training in (True, False):
            model.train(training)
            a, b = (model.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
            self.assertTrue(torch.equal(a, b), "dropout is on, or the given RNG is not used")
            self.assertFalse(a.requires_grad, "sampling builds a graph")
            self.assertEqual(model.generator.training, training, "sampling changes the mode")
        self.train(model, 1)
        self.assertTrue(model.generator.training, "training must switch dropout on")

    def test_interpolation_has_both_ends_and_even_spacing(self):
        model = small_gan(z_dim=4)
        model.averaged = nn.Unflatten(1, (1, 2, 2))  # its image is the latent
        torch.manual_seed(3)
        start, end = model.latents(5), model.latents(5)
        torch.manual_seed(3)
        images = model.interpolate(5, 3)
        self.assertEqual(images.shape, (5, 5, 1, 2, 2), "not [B, steps + 2, C, H, W]")
        expected = torch.stack([start + (end - start) * i / 4 for i in range(5)], dim=1)
        torch.testing.assert_close(images.flatten(2), expected, msg="no end, or uneven steps")

    def test_each_optimizer_moves_its_own_network(self):
        for lr_gen, lr_disc in [(1e-3, 0.0), (0.0, 1e-3), (1e-3, 1e-3)]:
            model = small_gan()
            before = {name: p.clone() for name, p in model.named_parameters()}
            loggers = self.train(model, 3, lr_gen, lr_disc)
            for name, p in model.named_parameters():
                trained = (lr_disc if name.startswith("discriminator") else lr_gen) > 0
                moved = not torch.equal(p, before[name])
                self.assertEqual(moved, trained, f"{name} is not moved by its own step alone")
        for logger in loggers:
            self.assertEqual(logger.add_values.call_count, 3, "not one call of a logger per batch")
            self.assertEqual(logger.flush.call_count, 1, "flush is missing: the rest is lost")
        own = ["accuracy_real" in logger.add_values.call_args.args[0] for logger in loggers]
        self.assertEqual(own, [False, True], "the loggers are swapped")

    def test_gradient_penalty(self):
        model = small_gan(disc=())
        weight = model.discriminator.layers[0].weight  # D(x) = weight · (x + 1) / 2 + bias
        by_hand = (weight / 2).square().sum().item()
        penalty = model.gradient_penalty(self.x_real)
        self.assertAlmostEqual(penalty.item(), by_hand, 4, "not R1")
        self.assertTrue(penalty.requires_grad, "the penalty does not train the discriminator")
        torch.manual_seed(0)
        without = model.discriminator_step(self.x_real)[0].item()
        torch.manual_seed(0)
        loss, values = model.discriminator_step(self.x_real, r1=0.6)
        self.assertAlmostEqual(loss.item(), without + 0.3 * by_hand, 4, "not weighted by r1 / 2")
        self.assertAlmostEqual(values["loss"].item(), without, 4, "logged with the penalty")
        weights, step = [], model.discriminator_step
        with mock.patch.object(
            model, "discriminator_step", lambda x, r1: weights.append(r1) or step(x)
        ):
            model.r1 = 0.5
            self.train(model, 17)
        self.assertEqual([w for w in weights if w], [4.0] * 3, "not 8 r1 at every 8th step")
        self.assertEqual(weights[8], 4.0, "not at every 8th step")

    def test_samples_are_of_averaged_weights(self):
        model = small_gan()
        with mock.patch.object(model.averaged, "forward", lambda z: z.new_zeros(len(z), 1, 2, 2)):
            images = model.sample(3), model.interpolate(3, 1).flatten(0, 1)
        self.assertFalse(any(x.any() for x in images), "generated with the raw weights")
        self.train(model, 3)
        moved = model.averaged.n_averaged.item(), model.generator.layers[0].weight
        self.assertEqual(moved[0], 3, "the average is not updated at every step")
        self.assertFalse(torch.equal(moved[1], model.averaged.module.layers[0].weight))

    def test_gradients_do_not_accumulate(self):
        model, norms = small_gan(dp_rate_gen=0.0, dp_rate_disc=0.0), []
        for steps in (1, 50):
            self.train(model, steps, lr_gen=0.0, lr_disc=0.0)
            networks = model.generator, model.discriminator
            norms.append([sum(p.grad.norm() for p in net.parameters()) for net in networks])
        for name, first, last in zip(("generator", "discriminator"), *norms, strict=True):
            self.assertLess(last, 5 * first, f"zero_grad of the {name} is missing")

    def test_seeds(self):
        def numbers(seed: int, epoch: int) -> dict[str, float]:
            seed_everything(seed, epoch)
            return {"random": random.random(), "numpy": np.random.rand(), "torch": torch.rand(())}

        first = numbers(1, 2)
        self.assertEqual(numbers(1, 2), first, "a resumed epoch has other random numbers")
        for other in [(1, 3), (2, 2), (2, 1), (1, 0)]:
            for rng, number in numbers(*other).items():
                self.assertNotEqual(number, first[rng], f"{rng}: (1, 2) and {other} are the same")


def idx(array: np.ndarray) -> bytes:
    """A gzipped IDX file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes(), 1)


def only_mirror(port: int = 9):
    """Lets torchvision download from this port alone; nobody listens on port 9."""
    return mock.patch("torchvision.datasets.MNIST.mirrors", [f"http://127.0.0.1:{port}/"])


class ArchivesHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        # torchvision first asks for the headers, by a GET request with "Method: HEAD", and closes
        # the connection. Sending it the file would end in a ConnectionResetError.
        self.do_HEAD() if self.headers["Method"] == "HEAD" else super().do_GET()


@contextmanager
def local_mirror():
    """Serves MNIST's archives; hides what server and progress bar print."""
    handler = functools.partial(ArchivesHandler, directory=DATA_DIR / "MNIST" / "raw")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with only_mirror(server.server_port), redirect_stderr(io.StringIO()):
            yield
        server.shutdown()


class MnistTest(TemporaryDirectoryTest):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.loader = mnist()
        cls.epochs = [[torch.cat(x) for x in zip(*cls.loader, strict=True)] for _ in range(2)]

    def setUp(self):
        super().setUp()
        shutil.copytree(DATA_DIR / "MNIST", self.directory / "MNIST")
        self.raw = self.directory / "MNIST" / "raw"

    def test_batches_and_values(self):
        self.assertIsInstance(self.loader, torch.utils.data.DataLoader)
        sizes = [(images.shape, labels.shape) for images, labels in self.loader]
        self.assertEqual((len(self.loader), len(sizes)), (469, 469), "len() is not the batches")
        self.assertEqual(sizes[0], ((128, 1, 28, 28), (128,)))
        self.assertEqual(sizes[-1], ((96, 1, 28, 28), (96,)), "the last smaller batch is dropped")
        self.assertEqual(len(mnist(batch_size=100)), 600, "batch_size is ignored")
        with self.assertRaisesRegex(ValueError, "batch_size.*0"):
            mnist(batch_size=0)
        images, labels = self.epochs[0]
        self.assertEqual((images.dtype, labels.dtype), (torch.float32, torch.int64))
        self.assertEqual((images.min(), images.max()), (-1, 1), "Tanh needs data in [-1, 1]")
        self.assertEqual(len(images.unique()), 256, "gray levels are lost")
        self.assertAlmostEqual((images.mean().item() + 1) / 2, 0.1307, places=4)  # well known
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        self.assertEqual(labels.bincount().tolist(), counts, "labels are not the training set's")

    def test_every_image_once_in_a_new_order_with_its_label(self):
        weights = torch.randint(2**31, (785,)).double()

        def numbers(gray: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            """One for each image with its label."""
            return torch.column_stack([gray.flatten(1), labels]).double() @ weights

        dataset = self.loader.dataset
        known = numbers(dataset.images, dataset.labels)
        orders = [numbers(((x + 1) * 127.5).round(), labels) for x, labels in self.epochs]
        for order in orders:
            self.assertTrue(torch.equal(order.sort()[0], known.sort()[0]), "not every image once")
            self.assertFalse(torch.equal(order, known), "not shuffled")
        self.assertFalse(torch.equal(*orders), "the same order in every epoch")
        self.assertEqual(dataset[7][0].shape, (1, 28, 28), "an integer index is one image")

    def test_the_seed_decides_the_order(self):
        orders = []
        for workers, seed in [(0, 1), (0, 1), (0, 2), (1, 1)]:
            loader = mnist(batch_size=60, num_workers=workers)
            self.assertEqual(loader.num_workers, workers, "num_workers is ignored")
            torch.manual_seed(seed)
            orders.append(next(iter(loader))[1].tolist())
        self.assertEqual(orders[0], orders[1], "a resumed epoch has another order")
        self.assertNotEqual(orders[0], orders[2], "the seed is ignored")
        self.assertEqual(orders[0], orders[3], "workers change the order")

    def test_missing_archives_are_named_and_nothing_is_created(self):
        new = self.directory / "new"
        with self.assertRaisesRegex(OSError, f"{IMAGES} is missing"):
            mnist(new, download=False)
        with only_mirror(), self.assertRaisesRegex(OSError, "could not be downloaded") as caught:
            mnist(new)
        message = str(caught.exception).replace(str(self.directory), "")
        for part in (IMAGES, LABELS, str(Path("new", "MNIST", "raw"))):
            self.assertIn(part, message, "the message does not say which files belong where")
        self.assertRegex(message, "^.{1,270}$", "more than one line, or too long for one")
        self.assertFalse(new.exists(), "a failed download leaves directories")

    def test_download_fills_in_only_what_is_missing(self):
        def copy_a_part(source, target):
            Path(target).write_bytes(b"the first bytes")
            raise OSError("disk full")

        fashion = idx(np.full((60_000, 28, 28), 7))
        (self.raw / IMAGES).write_bytes(fashion)
        (self.raw / TEST_IMAGES).write_bytes(idx(np.full((10_000, 28, 28), 7)))
        (self.raw / LABELS).unlink()
        (self.raw / IMAGES).with_suffix("").touch()  # as a kill during unpacking leaves it
        with local_mirror(), redirect_stderr(io.StringIO()) as printed:
            full = mock.patch("shutil.copyfile", copy_a_part)
            with full, self.assertRaisesRegex(OSError, "disk full"):
                mnist(self.directory)
            self.assertFalse((self.raw / LABELS).exists(), "copied in place instead of moved")
            self.assertEqual(list(self.raw.glob("*.unfinished")), [], "a part of a file is left")
            loader = mnist(self.directory)
            mnist(self.directory, train=False)
        self.assertTrue((self.raw / IMAGES).read_bytes() == fashion, "a user's file is overwritten")
        self.assertEqual(loader.dataset.images.unique().tolist(), [7], "other images were used")
        lines = printed.getvalue().splitlines()
        self.assertEqual(sum("not the original" in line for line in lines), 1, "not said, or twice")

    def test_downloads_at_the_same_time_all_get_the_images(self):
        new, copyfile = self.directory / "new", shutil.copyfile

        def copy_while_another_downloads(source, target):
            copyfile(source, target)
            with mock.patch("shutil.copyfile", copyfile):
                mnist(new)
            there.update({file: file.stat().st_ino for file in raw.iterdir() if file != target})

        raw, there = new / "MNIST" / "raw", {}
        with local_mirror(), mock.patch("shutil.copyfile", copy_while_another_downloads):
            images = mnist(new).dataset.images
        self.assertTrue(torch.equal(images, self.loader.dataset.images), "other images")
        files = {file: file.stat().st_ino for file in raw.iterdir()}
        self.assertEqual({file.name for file in files}, set(MD5), "something else is left there")
        self.assertEqual(files, there, "files of another process were replaced")

    def test_corrupted_archives_are_rejected_by_name_and_kept(self):
        complete = (self.raw / IMAGES).read_bytes()
        for images in (
            complete[:5_000_000],  # truncated
            complete[:5_000_000] + b"x" + complete[5_000_001:],
            b"not gzip",
            gzip.compress(b""),
            gzip.compress(b"\0\0\x0d\x03" + bytes(12)),  # an IDX file of floats
            gzip.compress(gzip.decompress(complete)[:-1], 0),  # a byte is missing
        ):
            (self.raw / IMAGES).write_bytes(images)
            with only_mirror(), self.assertRaisesRegex(OSError, f"{IMAGES} is corrupted"):
                mnist(self.directory)
            kept = (self.raw / IMAGES).read_bytes() == images
            self.assertTrue(kept, "a corrupted file of the user's was replaced")
        (self.raw / IMAGES).write_bytes(idx(np.zeros((60_000, 2, 2))))
        with redirect_stdout(io.StringIO()), self.assertRaisesRegex(OSError, "60000, 2, 2.*28"):
            mnist(self.directory)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class FrechetDistanceTest(unittest.TestCase):
    def test_closed_form_of_commuting_covariances(self):
        one = torch.tensor([1.0, 2.0]).double(), torch.tensor([4.0, 9.0]).double().diag()
        two = torch.tensor([4.0, -2.0]).double(), torch.tensor([1.0, 0.0]).double().diag()
        expected = 3**2 + 4**2 + (2 - 1) ** 2 + (3 - 0) ** 2
        self.assertAlmostEqual(frechet_distance(one, two), expected, 9, "not Fréchet's formula")
        self.assertAlmostEqual(frechet_distance(two, one), expected, 9, "not symmetric")

    def test_covariances_that_do_not_commute(self):
        x = normal(50, 6) @ normal(6, 6, seed=1)
        y = normal(40, 6, seed=2) @ normal(6, 6, seed=3) + 1
        cov_x, cov_y = np.cov(x.double(), rowvar=False), np.cov(y.double(), rowvar=False)
        self.assertGreater(np.abs(cov_x @ cov_y - cov_y @ cov_x).max(), 1, "the test shows nothing")
        overlap = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).real).sum()
        means = (x.double().mean(0) - y.double().mean(0)).square().sum().item()
        expected = means + np.trace(cov_x + cov_y) - 2 * overlap
        for generated in (x, metrics.moments(x)):
            ratio = frechet_distance(generated, y) / expected
            self.assertAlmostEqual(ratio, 1, 9, "wrong covariance, or wrong square root")

    def test_fewer_images_than_features(self):
        x = normal(5, 20)
        self.assertAlmostEqual(frechet_distance(x, x), 0, 5, "negative eigenvalues not clamped")
        for bad in (x[:1], x[0]):
            with self.assertRaisesRegex(ValueError, "N >= 2"):
                frechet_distance(bad, x)


class KernelDistanceTest(unittest.TestCase):
    @staticmethod
    def by_loops(x: torch.Tensor, y: torch.Tensor) -> float:
        def kernel(a, b):
            return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

        x, y, n = x.tolist(), y.tolist(), len(x)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs)
        return within / (n * (n - 1)) - 2 * sum(kernel(a, b) for a in x for b in y) / n**2

    def test_against_loops(self):
        x, y = normal(6, 3).double(), normal(6, 3, seed=1).double() + 1
        mean, std = kernel_distance(x, y)
        self.assertAlmostEqual(mean, self.by_loops(x, y), 9, "not the KID")
        self.assertAlmostEqual(std, 0, 9, "subsets that are the whole set must agree")

    def test_subsets(self):
        x, y = normal(30, 3).double(), normal(40, 3, seed=1).double()
        rng, estimates = torch.Generator().manual_seed(5), []
        for _ in range(4):
            parts = [a[torch.randperm(len(a), generator=rng)[:10]] for a in (x, y)]
            estimates.append(self.by_loops(*parts))
        before = torch.get_rng_state()
        result = kernel_distance(x, y, subsets=4, size=10, seed=5)
        expected = np.mean(estimates), np.std(estimates, ddof=1)
        np.testing.assert_allclose(result, expected, rtol=1e-9, err_msg="mean and std of subsets")
        self.assertTrue(torch.equal(before, torch.get_rng_state()), "takes training's numbers")
        for bad in ((x[:1], y), (x, y, 1)):
            with self.assertRaisesRegex(ValueError, "at least 2"):
                kernel_distance(*bad)


class NeighborScoresTest(unittest.TestCase):
    def test_counted_by_hand(self):
        # The radii are 1, 1, 2, 4 and 1/2, 1/2, 18. Of the generated features, 1.5 and 2 are in
        # the balls of 1 and 3, and 20 is in none. Of the real ones, only 0 is in no ball.
        real, generated = torch.tensor([[0.0, 1, 3, 7]]).T, torch.tensor([[1.5, 2, 20]]).T
        self.assertEqual(metrics.radii(real, 1).round(decimals=5).tolist(), [1, 1, 2, 4], "radii")
        expected = {"precision": 2 / 3, "recall": 3 / 4, "density": 4 / 3, "coverage": 2 / 4}
        for name, value in neighbor_scores(generated, real, k=1).items():
            self.assertAlmostEqual(value, expected[name], 9, f"{name}: swapped sets?")

    def test_against_full_matrices(self):
        x, y, k = normal(60, 4).double(), normal(45, 4, seed=1).double() + 0.5, 3
        within_x, within_y, between = (
            np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in ((x, x), (y, y), (y, x))
        )
        radii_x, radii_y = np.sort(within_x)[:, k], np.sort(within_y)[:, k]
        in_real = between <= radii_y[:, None]
        expected = [in_real.any(0).mean(), (between <= radii_x).any(1).mean()]
        expected += [in_real.sum(0).mean() / k, in_real.any(1).mean()]
        with mock.patch.object(metrics, "ROWS", 7):
            for radii in (None, metrics.radii(y, k)):
                values = list(neighbor_scores(x, y, k, radii).values())
                np.testing.assert_allclose(values, expected, err_msg="chunks put together wrongly")

    def test_duplicates(self):
        real = F.normalize(normal(20, 96)).repeat(6, 1)  # each has 5 others at a distance of 0
        self.assertLess(metrics.radii(real).max(), 1e-5, "copies are not counted as neighbors")
        values = neighbor_scores(real[:50].flip(0) * (1 + 2e-7), real).values()  # rounded copies
        self.assertEqual([*values], [1, 1, 6 / 5, 1], "equal features are in balls of radius 0")
        others = F.normalize(real + 1e-3 * normal(120, 96, seed=1))
        self.assertEqual(neighbor_scores(others, real)["precision"], 0, "a ball of 0 has grown")
        with self.assertRaisesRegex(ValueError, "more than 5"):
            neighbor_scores(real, real[:5])


class ScoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        test = mnist(train=False).dataset
        cls.images, cls.labels = test.images, test.labels
        cls.classifier = metrics.load_classifier()
        cls.reference = metrics.Reference.of(cls.images, cls.labels)

    def test_classifier_is_the_published_one(self):
        content = metrics.WEIGHTS.read_bytes()
        published = "a27a873c82546403b53a57958c0da7b098b9597b8a38e3ebb3192e44283c04c4"
        self.assertLessEqual(len(content), 2**20, "the weights take more than 1 MB")
        self.assertEqual(hashlib.sha256(content).hexdigest(), published, "scores not comparable")
        _, probabilities = classify(self.images, self.classifier)
        self.assertLess((probabilities.sum(1) - 1).abs().max(), 1e-9, "logits, not probabilities")
        right = probabilities.argmax(1) == self.labels
        self.assertGreaterEqual(right.double().mean(), 0.992, "weights and network do not match")
        self.assertFalse(self.classifier.training, "normalizes by each batch's own moments")
        self.assertFalse(self.classifier.to_logits.weight.requires_grad, "not frozen")

    def test_features_do_not_depend_on_the_batch_size(self):
        values = []
        for batch_size in (1, 7, 300):
            features, _ = classify(self.images[:300], self.classifier, batch_size)
            self.assertEqual(features.shape, (300, 96), "features are not [N, F]")
            self.assertEqual(features.dtype, torch.float64, "moments and distances need float64")
            values.append(frechet_distance(features, self.reference.moments))
        np.testing.assert_allclose(values, values[0], rtol=1e-6, err_msg="depends on batch_size")

    def test_images_are_rounded_to_gray_levels(self):
        levels = torch.arange(256, dtype=torch.uint8)
        exact = round_to_gray(levels)
        self.assertTrue(torch.equal(exact, levels / 127.5 - 1), "gray 0 is not -1, or 255 not 1")
        for offset in (-0.45, 0.45):
            rounded = round_to_gray(exact.double() + offset / 127.5)
            self.assertTrue(torch.equal(rounded, exact), "cut off, not rounded or not clamped")
        images = self.images[:50]
        result = metrics.score(images / 127.5 - 0.998, self.reference)
        exact = metrics.score(images, self.reference)
        self.assertEqual(result, exact, "scores see what the 256 gray levels do not show")
        with self.assertRaisesRegex(ValueError, "NaN"):
            metrics.score(images * math.nan, self.reference)

    def test_noise_is_neither_precise_nor_dense_nor_covering(self):
        noise = normal(500, 1, 28, 28)
        uniform = torch.rand(noise.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        for name, images in {"normal": noise, "uniform": uniform, "dark": noise / 2 - 1}.items():
            result = metrics.score(images, self.reference)
            for measure in ("precision", "density", "coverage"):
                self.assertLess(result[measure], 0.02, f"{name} noise passes for digits: {measure}")

    def test_training_images_score_well(self):
        images = mnist().dataset.images[:1000]
        result = metrics.score(images, self.reference)
        self.assertLess(result["frechet_distance"], 0.4, "real images are far from real ones")
        self.assertLess(abs(result["kid"]), 0.01, "biased: equal distributions must give 0")
        for name in ("precision", "recall", "density", "confident"):
            self.assertGreater(result[name], 0.85, f"real images score low: {name}")

    def test_a_digit_that_is_missing(self):
        _, probabilities = classify(self.images[:1200], self.classifier)
        kept = probabilities.argmax(1) != 3
        result = metrics.score(self.images[:1200][kept], self.reference)
        self.assertEqual(result["precision"], 1, "all are among the real ones; sets swapped?")
        self.assertEqual(result["missing_digits"], 1, "only the 3 is missing")
        self.assertEqual((result["smallest_share"], result["share_3"]), (0, 0), "the 3 has a share")
        sure, digits = probabilities[kept].max(1)
        self.assertAlmostEqual(result["share_7"], (digits == 7).double().mean().item(), 9, "order")
        self.assertAlmostEqual(result["confident"], (sure > 0.9).double().mean().item(), 9, "sure")
        self.assertAlmostEqual(result["kl_divergence"], -math.log(0.9), 1, "infinite or reversed")
        self.assertEqual(self.reference.shares[5].item(), 0.0892, "not the true labels' shares")

    def test_shares_and_divergence_by_hand(self):
        shares = metrics.label_shares(torch.tensor([0, 0, 1, 9]))
        self.assertEqual(shares.tolist(), [0.5, 0.25, *[0.0] * 7, 0.25], "not shares of the total")
        real = torch.tensor([0.25, 0.25, *[0.0625] * 8], dtype=torch.float64)
        result, expected = metrics.kl_divergence(shares, real), math.log(2)  # 1/2 ln 2 + 1/4 ln 4
        self.assertAlmostEqual(result, expected, 12, "not KL(generated || real)")

    def test_nearest_images_against_differences(self):
        known, images = mnist().dataset.images[:300], self.images[:30].clone()
        images[4:9] = known[250:255]
        with mock.patch.object(metrics, "ROWS", 7):
            distances, indices = metrics.nearest_images(images, round_to_gray(known))
        differences = (images.double() - known.double().transpose(0, 1)) / 127.5
        expected, nearest = differences.flatten(2).norm(dim=2).min(1)
        self.assertTrue(torch.equal(indices, nearest), "not the nearest ones")
        np.testing.assert_allclose(distances, expected, rtol=1e-5, err_msg="not L2 in pixels")
        self.assertEqual(distances[4:9].tolist(), [0] * 5, "an exact copy is at a distance of 0")


class EvaluateTest(TemporaryDirectoryTest):
    def test_the_scores_of_a_checkpoint(self):
        pairs, training = self.directory / "closest.png", mnist().dataset.images
        flags = ["--num_samples", "50", "--seed", "3", "--json", "--pairs", str(pairs)]
        with redirect_stdout(io.StringIO()) as output, mock.patch("evaluate.NEIGHBORS", 30):
            evaluate.main(flags)
            copies, same = evaluate.memorization(training[:30].float() / 127.5 - 1, DATA_DIR)
        scores, test = json.loads(output.getvalue()), mnist(train=False).dataset
        samples = GAN.from_checkpoint().sample(50, torch.Generator().manual_seed(3))
        expected = metrics.score(samples, metrics.Reference.of(test.images, test.labels))
        self.assertLessEqual(expected.items(), scores.items(), "not the scores of these samples")
        distances, others = (
            metrics.nearest_images(images[:30], training)[0] for images in (samples, test.images)
        )
        names = "nearest_training_image", "nearest_training_image_of_test"
        medians = [distances.median().item(), others.median().item()]
        self.assertEqual([scores.get(name) for name in names], medians, "memorization is lost")
        self.assertEqual(copies[names[0]], 0, "copies are not called memorized")
        self.assertTrue(torch.equal(same[:10], same[10:]), "copies are not beside their originals")
        grid = pil_to_tensor(Image.open(pairs))[0, 4::3, 4::3]
        closest = to_gray(samples[distances.argmin()])[0]
        self.assertTrue(torch.equal(grid[1:29, 1:29], closest), "not the closest pair first")


class UtilsTest(TemporaryDirectoryTest):
    def setUp(self):
        super().setUp()
        self.writer = SummaryWriter(self.directory)
        self.addCleanup(self.writer.close)

    def test_logger_writes_the_mean_of_each_window_at_its_last_step(self):
        logger = TensorBoardLogger(self.writer, avg_window=4, name="net", step=20)
        for step in range(1, 11):
            logger.add_values({"loss": torch.tensor(float(step)), "twice": 2.0 * step})
        logger.flush()
        logger.flush()
        TensorBoardLogger(self.writer, avg_window=1).add_values({"loss": 1.0})
        self.writer.flush()
        means, twice = [(24, 2.5), (28, 6.5), (30, 9.5)], [(24, 5), (28, 13), (30, 19)]
        expected = {"net/loss": means, "net/twice": twice, "loss": [(1, 1)]}
        self.assertEqual(scalars(self.directory), expected, "wrong name, mean or step; a lost rest")
        self.assertEqual(logger.means, {"loss": 9.5, "twice": 19}, "means are not the last ones")
        with self.assertRaisesRegex(ValueError, "avg_window.*0"):
            TensorBoardLogger(self.writer, avg_window=0)

    def test_logger_reads_back_only_when_it_writes(self):
        logger = TensorBoardLogger(self.writer, avg_window=3)
        value = torch.empty((), device="meta", requires_grad=True) * 2  # has no value
        try:
            logger.add_values({"loss": value})
        except (RuntimeError, NotImplementedError):
            self.fail("a value was read back before its window was full")
        self.assertFalse(logger.window["loss"][0].requires_grad, "graphs are kept")

    def test_logger_names_a_diverged_run(self):
        for bad in (math.nan, math.inf, -1.8e6):
            logger = TensorBoardLogger(self.writer, avg_window=2, name="net")
            logger.add_values({"loss": 1.0})
            with self.assertRaisesRegex(FloatingPointError, "diverged: net/loss .* step 2.*lr"):
                logger.add_values({"loss": torch.tensor(bad)})

    def test_grids_are_filled_row_by_row_and_black_is_black(self):
        images = torch.tensor([-1.0, 1.0, 0.0, -2.0, 3.0]).view(5, 1, 1, 1).expand(5, 3, 4, 6)
        path = save_images(images, 2, "samples", 20, self.writer)
        self.writer.flush()
        self.assertEqual(path, self.directory / "samples_epoch_0020.png")
        grid = pil_to_tensor(Image.open(path))
        self.assertEqual(grid.shape, (3, 3 * (4 + 2) + 2, 2 * (6 + 2) + 2), "columns are ignored")
        gray = grid[1, 3::6, 3::8].tolist()
        self.assertEqual(gray, [[0, 255], [128, 0], [255, 0]], "other gray levels, or by columns")
        (event,) = events(self.directory).Images("samples")
        self.assertEqual(event.step, 20, "the slider should show the epoch")
        shown = pil_to_tensor(Image.open(io.BytesIO(event.encoded_image_string)))
        self.assertTrue(torch.equal(shown, grid), "TensorBoard shows other gray levels")
        path.with_name("samples_epoch_0021.png").write_bytes(path.read_bytes()[:99])
        frames = Image.open(io.BytesIO(film(self.directory))).n_frames
        self.assertEqual(frames, 1, "a grid cut short by a kill is in the film")


class RunTest(TemporaryDirectoryTest):
    """Runs `main` with small networks on 256 images of noise: 4 steps an epoch."""

    def setUp(self):
        super().setUp()
        self.data = self.directory / "data"
        raw = self.data / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / IMAGES).write_bytes(idx(np.random.default_rng(0).integers(256, size=(256, 28, 28))))
        (raw / LABELS).write_bytes(idx(np.arange(256) % 10))
        self.small = ["--hidden_dims_gen", "32", "--hidden_dims_disc", "24", "--batch_size", "64"]
        self.small += ["--data_dir", str(self.data)]
        first = mock.patch("train_torch.EARLY_EPOCHS", ())
        self.addCleanup(first.stop)
        first.start()

    def add_test_images(self) -> None:
        """Without them, runs are not scored."""
        images, labels = (self.data / "MNIST" / "raw" / name for name in (IMAGES, LABELS))
        for path in (images, labels):
            shutil.copy(path, path.with_name(path.name.replace("train", "t10k")))

    def run_main(self, *flags: str, module=train_torch, logs: str = "logs") -> Path:
        """Runs a command in a directory of logs; returns the directory of its last run."""
        directory = self.directory / logs
        given = flags if "--resume" in flags else (*self.small, *flags)
        with redirect_stdout(io.StringIO()) as self.output, redirect_stderr(self.output):
            module.main(*module.parse_args(["--log_dir", str(directory), *given]))
        return max(directory.iterdir(), key=lambda run: run.stat().st_ctime_ns)

    def resume(self, run: Path, *flags: str, module=train_torch) -> Path:
        # TensorBoard reads event files in the order of their names, which begin with the second.
        time.sleep(1 - time.time() % 1)
        return self.run_main("--resume", str(run), *flags, module=module, logs=run.parent.name)

    def rejected(self, *flags: str) -> str:
        """What the command line says about invalid flags: one line, exit status 2."""
        with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as stop:
            parse_args(["--log_dir", str(self.directory / "logs"), *flags])
        self.assertEqual(stop.exception.code, 2, f"exit status for {flags}")
        self.assertRegex(errors.getvalue(), r"^[^\n]+\n$", "not one line")
        return errors.getvalue()

    def assert_same_end(self, resumed: Path, straight: Path, why: str) -> None:
        """Weights, buffers, moments, curves and sample grids have to be equal, bit for bit."""
        a, b = load_checkpoint(resumed), load_checkpoint(straight)
        for part in ("epoch", "model", "optimizer_gen", "optimizer_disc"):
            torch.testing.assert_close(a[part], b[part], rtol=0, atol=0, msg=f"{part} {why}")
        a, b = scalars(resumed), scalars(straight)
        for tag in b.keys() - {"seconds_per_epoch", "images_per_second"}:
            self.assertEqual(a.get(tag), b[tag], f"{tag} differs {why}")
        for path in straight.glob("*.png"):
            same = (resumed / path.name).read_bytes() == path.read_bytes()
            self.assertTrue(same, f"{path.name} differs {why}")


class TrainingTest(RunTest):
    def test_what_a_run_leaves_and_prints(self):
        with mock.patch("train_torch.EARLY_EPOCHS", (3,)):
            run = self.run_main("--epochs", "5", "--save_every", "2", "--name", "first")
        self.assertRegex(run.name, r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_first$", "--name is ignored")
        for tag in ("samples", "interpolation"):
            epochs = [event.step for event in events(run).Images(tag)]
            self.assertEqual(
                epochs, [0, 2, 3, 4, 5], "grids not at the start, --save_every, the end"
            )
            files = {path.name for path in run.glob(f"{tag}*.png")}
            self.assertEqual(files, {f"{tag}_epoch_000{epoch}.png" for epoch in epochs})
        samples = pil_to_tensor(Image.open(run / "samples_epoch_0005.png"))
        self.assertEqual(samples.shape, (3, 8 * 30 + 2, 8 * 30 + 2), "samples are not 8 x 8")
        rows = pil_to_tensor(Image.open(run / "interpolation_epoch_0005.png"))
        self.assertEqual(rows.shape, (3, 16 * 30 + 2, 7 * 30 + 2), "not 16 rows of 7 images")
        saved = load_checkpoint(run)
        self.assertEqual(saved["epoch"], 5, "the checkpoint is not of the last epoch")
        arguments = json.loads((run / "args.json").read_text())
        self.assertEqual(saved.get("args"), arguments, "args are not saved in the checkpoint")
        steps = {saved[f"optimizer_{x}"]["state"][0]["step"].item() for x in ("gen", "disc")}
        self.assertEqual(steps, {20}, "not one step of each optimizer per batch")
        curves = scalars(run)
        means = ["loss", "accuracy_real", "accuracy_fake", "probability_real", "probability_fake"]
        expected = {"seconds_per_epoch", "generator/loss", *(f"discriminator/{m}" for m in means)}
        expected.add("images_per_second")
        self.assertLessEqual(expected, curves.keys(), "curves are missing")
        for tag, points in curves.items():
            steps = [step for step, _ in points]
            self.assertEqual(steps, [4, 8, 12, 16, 20], f"{tag}: not a mean per epoch of 4 steps")

        lines = self.output.getvalue().splitlines()
        self.assertEqual(len(lines), 10, "four lines at the start, one per grid, two at the end")
        self.assertIn("Scores:      none", lines.pop(1))
        self.assertIn(str(run), lines[1])
        command = "tensorboard --logdir .*logs.* --samples_per_plugin images="
        self.assertRegex(lines[2], command, "TensorBoard's slider would skip sample grids")
        gen, disc = (curves[f"{name}/loss"][-1][1] for name in ("generator", "discriminator"))
        line = rf"^epoch +5/5: G {gen:.3f} D {disc:.3f}, .* s/epoch"
        self.assertRegex(lines[6], line, "another loss, or that of the other network")
        self.assertLess(max(map(len, lines[3:7])), 80, "wider than a terminal")
        self.assertIn("model_checkpoint.pt", lines[8])
        with Image.open(run / "progress.gif") as film:
            self.assertEqual(film.n_frames, 5, "the film is not of all sample grids")
            self.assertEqual(film.info.get("loop"), 0, "the film does not loop")
            film.seek(4)
            last = film.convert("L").resize((242, 242), Image.Resampling.NEAREST)
        distance = (pil_to_tensor(last).int() - samples[:1].int()).abs().max()
        self.assertLess(distance, 10, "the film does not end with the last samples")

    def test_flags_reach_what_they_are_for(self):
        flags = "--z_dim 5 --hidden_dims_gen 6 7 --hidden_dims_disc 8 --lr 0.003 --precision bf16"
        flags += " --dp_rate_gen 0.2 --dp_rate_disc 0.4 --num_workers 3 --batch_size 32"
        flags += " --betas 0.5 0.999 --r1 0.7 --ema 7 --lr_disc 0.004"
        train = mock.patch("train_torch.train_gan", autospec=True, side_effect=KeyboardInterrupt)
        has_bf16 = mock.patch("command_line.supports_bf16", return_value=True)
        with train as train, has_bf16, self.assertRaises(SystemExit):
            self.run_main(*flags.split(), "--progress_bar")
        arguments = train.call_args.args
        model, loader, logger_gen, logger_disc, optimizer_gen, optimizer_disc, *rest = arguments
        self.assertEqual(rest, [True, True], "--progress_bar or --precision has no effect")
        self.assertEqual(model.r1, 0.7, "--r1 has no effect")
        message = "--data_dir, --batch_size or --num_workers does not reach mnist"
        given = len(loader.dataset), len(loader), loader.num_workers
        self.assertEqual(given, (256, 256 / 32, 3), message)
        message = "--z_dim, --hidden_dims or --dp_rate of one of the networks go elsewhere"
        self.assertEqual(str(model), str(GAN([6, 7], [8], 0.2, 0.4, 5)), message)
        model.averaged.n_averaged += 99
        model.averaged.update_parameters(copy.deepcopy(model.generator).apply(fill_with_ones))
        moved = model.averaged.module.layers[0].bias[0].item()
        self.assertAlmostEqual(moved, 1 / 8, msg="--ema is not the window of the average")
        for name, network, optimizer, logger, lr in [
            ("generator", model.generator, optimizer_gen, logger_gen, 0.003),
            ("discriminator", model.discriminator, optimizer_disc, logger_disc, 0.004),
        ]:
            (group,) = optimizer.param_groups
            self.assertEqual(group["lr"], lr, f"--lr: another rate in the {name}'s optimizer")
            self.assertEqual(tuple(group["betas"]), (0.5, 0.999), f"--betas: the {name}'s")
            same = {id(p) for p in group["params"]} == {id(p) for p in network.parameters()}
            self.assertTrue(same, f"the {name}'s optimizer is over other parameters")
            self.assertEqual(logger.prefix, f"{name}/", "the loggers are swapped")

    def test_hyperparameters_are_logged_with_what_one_compares_first(self):
        self.add_test_images()
        with mock.patch("train_torch.score_samples", wraps=train_torch.score_samples) as scored:
            run = self.run_main("--epochs", "1", "--lr", "0.003")
        numbers = [call.args[2] for call in scored.call_args_list]
        self.assertEqual(numbers, [2000, 10_000], "scores of other numbers of samples")
        (digits,) = events(run).Histograms("digits_of_1000")
        self.assertAlmostEqual(digits.histogram_value.num, 1000, delta=10, msg="digits are lost")
        metadata, parse = events(run).summary_metadata, HParamsPluginData.FromString
        self.assertIn("_hparams_/session_start_info", metadata, "HPARAMS is missing")
        start = parse(metadata["_hparams_/session_start_info"].plugin_data.content)
        logged = start.session_start_info.hparams
        self.assertEqual(set(logged), set(HYPERPARAMETERS), "missing among the hyperparameters")
        self.assertEqual(logged["lr"].number_value, 0.003, "lr is missing, or another")
        sorted_by_name = "_hparams_/experiment" in metadata
        self.assertFalse(sorted_by_name, "HPARAMS does not show first what differs between runs")
        final = json.loads((run / "scores.json").read_text())
        self.assertEqual(final["epochs"], 1, "do not say after how many epochs")
        tags = {f"final/{name}" for name in final} | {f"quality/{name}" for name in QUALITY}
        self.assertLessEqual(tags, scalars(run).keys(), "scores are missing among the curves")
        self.assertIn("frechet_distance", self.output.getvalue(), "the scores are not printed")
        self.assertIn("custom_scalars__config__", metadata, "Custom Scalars has no layout")
        self.assertIn("what the charts say/text_summary", metadata, "charts are not explained")
        shown = {tag for charts in CHARTS.values() for tags in charts.values() for tag in tags}
        self.assertLessEqual(shown, scalars(run).keys(), "charts of curves that there are not")
        (event,) = events(run).Tensors("this run/text_summary")
        table = event.tensor_proto.string_val[0].decode()
        for text in ("`lr` | 0.003", torch.__version__, git_commit()):
            self.assertIn(text, table, "not in the table of this run")

    def test_the_seed_alone_decides_the_weights(self):
        flags = ("--epochs", "2", "--seed")
        run = self.run_main(*flags, "1", "--save_every", "9")
        again = self.run_main(*flags, "1", "--save_every", "1")
        self.assert_same_end(again, run, "with the same seed and more sample grids")
        other = self.run_main(*flags, "2")
        first = [(x / "samples_epoch_0000.png").read_bytes() for x in (run, other)]
        self.assertFalse(first[0] == first[1], "the initialization ignores the seed")
        weights, others = (load_checkpoint(x)["model"] for x in (run, other))
        for name in weights.keys() - {"averaged.n_averaged"}:
            self.assertFalse(torch.equal(weights[name], others[name]), f"{name} ignores the seed")

    def test_runs_of_the_same_second_get_directories_of_their_own(self):
        directories = {make_run_dir(self.directory) for _ in range(5)}
        self.assertEqual(len(directories), 5, "two runs write into the same directory")

    def test_data_without_test_images_are_trained_on_without_scores(self):
        ordinary = types.SimpleNamespace(dataset=[(0, 1)])  # of somebody else's mnist.py
        for loader in ({"side_effect": TypeError("train")}, {"return_value": ordinary}):
            with mock.patch("train_torch.mnist", **loader), redirect_stdout(io.StringIO()) as said:
                reference = train_torch.load_reference(parse_args([])[0])
            self.assertIsNone(reference)
            self.assertRegex(said.getvalue(), "^Scores: +none .*\n$", "does not say why")

    def test_a_discriminator_that_has_won_is_named(self):
        for loss, named in [(0.004, True), (0.02, False)]:
            loggers = (types.SimpleNamespace(means={"loss": mean}) for mean in (11.9, loss))
            message = train_torch.losses(*loggers)
            self.assertEqual("D has won" in message, named, f"{message} at {loss=}")

    def test_progress_bars_fit_80_columns_and_show_both_losses(self):
        window = mock.patch.object(TensorBoardLogger.__init__, "__defaults__", (2, None, 0))
        hint = mock.patch("command_line.print_thread_hint")
        with window, hint as hint, mock.patch.dict("os.environ", {"COLUMNS": "80"}):
            self.run_main("--progress_bar", "--epochs", "2", "--device", "cpu")
        hint.assert_called_once_with("cpu")
        output = self.output.getvalue()
        bars = output[output.index("epochs:") : output.index("Film:")]
        self.assertRegex(bars, r"G \d+\.\d{3} D \d+\.\d{3}, [\d,]+ img/s")
        longest = max(map(len, bars.replace("\r", "\n").splitlines()))
        self.assertLessEqual(longest, 82, "bars break the line")  # tqdm appends an escape sequence
        self.assertNotIn("s/epoch", output, "lines would tear the bars apart")
        self.assertRegex(bars, r" 2/2 [^\n]*\n$", "the bar of epochs is not closed, or not full")

    def test_times_checkpoints_and_grids_of_epochs_that_train_nothing(self):
        clock, checkpoints, seeded = types.SimpleNamespace(now=0), [], []
        clock.perf_counter = clock.monotonic = lambda: clock.now
        seconds = [10, 10, 10, 10, 100, 3, 1, 1]

        def wait(model, loader, logger_gen, logger_disc, *rest):
            clock.now += seconds[logger_gen.step]
            number = torch.rand(())
            seed_everything(7, logger_gen.step + 1)  # one step an epoch
            seeded.append(torch.equal(number, torch.rand(())))
            for logger in (logger_gen, logger_disc):
                logger.add_values({"loss": 1.0})
                logger.flush()

        def replace(path, content):
            if path.name == CHECKPOINT.name:
                checkpoints.append((clock.now, flush.called))
                flush.reset_mock()
            replace_file(path, content)

        waiting = mock.patch.multiple("train_torch", time=clock, train_gan=wait)
        writing = mock.patch.multiple("checkpoint", time=clock, replace_file=replace)
        with waiting, writing, mock.patch.object(SummaryWriter, "flush") as flush:
            run = self.run_main("--epochs", "8", "--save_every", "6", "--seed", "7")
        self.assertTrue(all(seeded), "epochs are not seeded by --seed and their number")
        times, flushed = zip(*checkpoints, strict=True)
        self.assertEqual(times, (0, 40, 140, 143, 145), "not after 30 s, with grids, at the end")
        self.assertTrue(all(flushed[1:]), "a kill -9 would leave a hole in the curves")
        curve = [value for _, value in scalars(run)["seconds_per_epoch"]]
        self.assertEqual(curve, seconds, "seconds are counted from the start of training")
        speed = [value for _, value in scalars(run)["images_per_second"]]
        np.testing.assert_allclose(speed, [256 / s for s in seconds], err_msg="of another time")
        line = r"epoch +6/8: .*, 3.0 s/epoch, 0:00:06 left"
        self.assertRegex(self.output.getvalue(), line, "another time of an epoch, or time left")
        for tag in ("samples", "interpolation"):
            grids = {path.read_bytes() for path in run.glob(f"{tag}*.png")}
            self.assertEqual(len(grids), 1, f"{tag} are not of the same latents at every epoch")


FOREIGN_MODELS = """
from torch import nn

class GeneratorMLP(nn.Sequential):
    def __init__(self, z_dim=32, hidden_dims=[128], output_shape=[1, 28, 28], dp_rate=0.1):
        hidden = nn.Linear(z_dim, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dp_rate)
        super().__init__(*hidden, nn.Linear(16, 784), nn.Tanh(), nn.Unflatten(1, output_shape))

class DiscriminatorMLP(nn.Sequential):
    def __init__(self, input_dims=784, hidden_dims=[512], dp_rate=0.3):
        hidden = nn.Linear(input_dims, 16), nn.BatchNorm1d(16), nn.Dropout(dp_rate)
        super().__init__(nn.Flatten(), *hidden, nn.Linear(16, 1))
"""
FOREIGN_MNIST = """
import os, random, numpy, torch

class Images(list):
    def __getitem__(self, i):
        shift = random.randrange(4) + numpy.random.randint(4) + torch.randint(4, ()).item()
        return torch.full((1, 28, 28), i / 100 - 1).roll(shift, 2) * torch.rand(28), i % 10

def mnist(root="data", batch_size=128, num_workers=0, download=True):
    fork = num_workers and hasattr(os, "fork")  # other workers could not import this module
    return torch.utils.data.DataLoader(Images(range(200)), batch_size, shuffle=True,
        num_workers=int(fork), multiprocessing_context="fork" if fork else None)
"""


def train_torch_with(name: str, code: str) -> types.ModuleType:
    """`train_torch.py` beside somebody else's module of this name."""
    foreign, loaded = types.ModuleType(name), types.ModuleType(f"train_torch_{name}")
    exec(code, foreign.__dict__)
    loaded.__file__ = train_torch.__file__
    with mock.patch.dict(sys.modules, {name: foreign}):
        exec(Path(train_torch.__file__).read_text(encoding="utf-8"), loaded.__dict__)
    return loaded


class ResumeTest(RunTest):
    """Runs that are killed and resumed. Real processes: benchmarks/kill_and_resume.py."""

    def test_a_killed_run_ends_as_one_that_was_not(self):
        flags, add_values = ("--epochs", "4", "--save_every", "2"), TensorBoardLogger.add_values
        straight = self.run_main(*flags, logs="straight")
        for last_step, saved_epoch in [(1, 0), (7, 0), (9, 2), (16, 2)]:  # 4 steps an epoch

            def add_and_die(logger, values, last_step=last_step):
                add_values(logger, values)
                if logger.step == last_step:
                    logger.flush()  # more than its checkpoint knows of
                    if logger.prefix == "generator/":
                        raise SystemExit  # as abruptly as a kill -9

            killed = mock.patch.object(TensorBoardLogger, "add_values", add_and_die)
            with killed, self.assertRaises(SystemExit):
                self.run_main(*flags, logs=f"{last_step}")
            (run,) = (self.directory / f"{last_step}").iterdir()
            self.assertEqual(load_checkpoint(run)["epoch"], saved_epoch, "checkpoint of that time")
            self.resume(run)
            self.assertEqual(list(run.parent.iterdir()), [run], "resumed in another directory")
            self.assert_same_end(run, straight, f"after a kill in step {last_step}")

    def test_a_kill_while_a_checkpoint_is_written_duplicates_no_score(self):
        self.add_test_images()
        flags = ("--epochs", "3", "--save_every", "1")
        straight = self.run_main(*flags, logs="straight")
        for last_epoch in (2, 3):

            def die(path, content, last_epoch=last_epoch):
                if path.name == CHECKPOINT.name and f"samples_epoch_000{last_epoch}.png" in {
                    file.name for file in path.parents[1].iterdir()
                }:
                    raise SystemExit  # as abruptly as a kill -9
                replace_file(path, content)

            with mock.patch("checkpoint.replace_file", die), self.assertRaises(SystemExit):
                self.run_main(*flags, logs=f"killed {last_epoch}")
            (run,) = (self.directory / f"killed {last_epoch}").iterdir()
            self.resume(run)
            self.assert_same_end(run, straight, f"after a kill at the end of epoch {last_epoch}")

    def test_epochs_can_be_raised_with_any_models_and_mnist(self):
        foreign_models = train_torch_with("models", FOREIGN_MODELS)
        foreign_mnist = train_torch_with("mnist", FOREIGN_MNIST)
        for name, module, *flags in [
            ("after raising --epochs", train_torch, "--decay_from", "2"),
            ("with another models.py", foreign_models),
            ("with another mnist.py", foreign_mnist),
            ("with another mnist.py in a worker", foreign_mnist, "--num_workers", "1"),
        ]:
            straight = self.run_main("--epochs", "3", *flags, module=module, logs=f"{name} 3")
            run = self.run_main("--epochs", "1", *flags, module=module, logs=name)
            self.resume(run, "--epochs", "3", *flags, module=module)
            self.assert_same_end(run, straight, name)
        run = self.run_main("--epochs", "1")
        with self.assertRaisesRegex(OSError, "does not fit models.py"):
            self.resume(run, "--epochs", "2", module=foreign_models)

    def test_only_what_changes_the_result_must_agree(self):
        run = self.run_main("--epochs", "1")
        resumed = ["--resume", str(run), "--epochs", "2"]
        others = {"lr": "0.1", "seed": "1", "z_dim": "3", "dp_rate_gen": "0.5", "name": "other"}
        for name, value in others.items():
            message = self.rejected(*resumed, f"--{name}", value)
            self.assertRegex(
                message, f"argument --{name}: .*{value}", "a contradiction is accepted"
            )
        contents = torch.load(run / CHECKPOINT, weights_only=True)
        contents["args"] |= {"device": "cuda:0", "num_workers": 7, "progress_bar": True}
        torch.save(contents, run / CHECKPOINT)
        free = ["--num_workers", "1", "--save_every", "3", "--data_dir", str(self.data / ".")]
        args, _ = parse_args([*resumed, *free, "--log_dir", "elsewhere"])
        self.assertNotEqual(args.device, "cuda:0", "a checkpoint of a GPU cannot be resumed here")
        self.assertEqual((args.num_workers, args.save_every), (1, 3), "flags are ignored")
        self.assertFalse(args.progress_bar, "a resumed run cannot switch its bars off")
        self.resume(run, "--epochs", "2", *free)
        self.assertEqual(GAN.from_checkpoint(run).sample(2).shape, (2, 1, 28, 28))

    def test_the_learning_rate_of_an_epoch(self):
        rates, step = [], torch.optim.Adam.step
        flags = "--epochs 4 --lr 0.04 --lr_disc 0.08 --decay_from 2"

        def note_and_step(optimizer):
            rates.append(optimizer.param_groups[0]["lr"])
            step(optimizer)

        with mock.patch.object(torch.optim.Adam, "step", note_and_step):
            run = self.run_main(*flags.split())
            self.resume(run, "--epochs", "5")
        # Discriminator, generator; 4 steps an epoch.
        decay = [1, 1, 2 / 3, 1 / 2, 2 / 5]
        expected = [factor * lr for factor in decay for _ in range(4) for lr in (0.08, 0.04)]
        np.testing.assert_allclose(rates, expected, err_msg="not for both, too early, or swapped")

    def test_resuming_a_finished_run(self):
        run = self.run_main("--epochs", "1")
        with self.assertRaises(SystemExit) as stop:
            self.resume(run)
        self.assertRegex(self.output.getvalue(), "finished.*--epochs", "how to train on?")
        self.assertEqual(stop.exception.code, 0, "resuming a finished run is not a failure")
        self.resume(run, "--epochs", "2", "--progress_bar")
        bars = self.output.getvalue()
        self.assertRegex(bars, r"epochs: +100%.* 2/2 ", "the bar starts at epoch 0")
        self.assertRegex(bars, r"steps: .* 0/4 ", "an epoch of fewer steps")

    def test_a_job_resumes_its_own_run(self):
        for job in ("7", "17"):
            self.run_main("--epochs", "1", "--job_id", job, "--name", "x")
        logs = ["--log_dir", str(self.directory / "logs")]
        _, saved = parse_args([*logs, *self.small, "--job_id", "7", "--epochs", "9"])
        name = saved["run_dir"].name if saved else "a new run"
        self.assertRegex(name, "_x_job7$", "a restarted job does not resume its own run")
        self.assertIsNone(parse_args([*logs, "--job_id", "1"])[1], "a new job took another's run")

    def test_ctrl_c_prints_one_line_with_the_command_that_resumes(self):
        interrupted = mock.patch("train_torch.train_gan", side_effect=KeyboardInterrupt)
        with interrupted as train, self.assertRaises(SystemExit) as stop:
            self.run_main("--epochs", "1")
        self.assertEqual(train.call_args.args[6:], (False, False), "bars or bf16 without a flag")
        (run,) = (self.directory / "logs").iterdir()
        self.assertEqual(stop.exception.code, 130, "exit status is not 128 + SIGINT")
        last_line = f"--resume .*{run.name}.*\n$"
        self.assertRegex(self.output.getvalue(), last_line, "does not say how to resume")
        with interrupted, self.assertRaises(SystemExit):
            self.resume(run, "--epochs", "7")
        epochs = load_checkpoint(run)["args"]["epochs"]
        self.assertEqual(epochs, 7, "the printed command would forget the new --epochs")

    def test_errors_and_ctrl_c_of_a_script_are_one_line(self):
        for error, status, said in [
            (OSError("no disk"), f"{Path(sys.argv[0]).name}: no disk", ""),
            (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
        ]:
            with redirect_stdout(io.StringIO()) as printed, self.assertRaises(SystemExit) as stop:
                command_line.run(mock.Mock(side_effect=error), OSError)
            self.assertEqual(
                (stop.exception.code, printed.getvalue()), (status, said), "not one line"
            )
        with self.assertRaises(KeyError, msg="hides errors of the code"):
            command_line.run(mock.Mock(side_effect=KeyError), OSError)

    def test_two_processes_on_one_run(self):
        run = self.run_main("--epochs", "1")

        def train_while_another_resumes(*args):
            with mock.patch("train_torch.train_gan", train_gan):
                self.resume(run, "--epochs", "3")
            train_gan(*args)

        another = mock.patch("train_torch.train_gan", train_while_another_resumes)
        with another, self.assertRaisesRegex(OSError, "replaced by another process"):
            self.resume(run, "--epochs", "2")
        self.assertEqual(load_checkpoint(run)["epoch"], 3, "replaced the faster one's checkpoint")

    def test_files_that_are_not_checkpoints_are_rejected(self):
        path = self.run_main("--epochs", "1") / CHECKPOINT
        complete, executed = path.read_bytes(), self.directory / "executed"
        newer = {**torch.load(path, weights_only=True), "format": 99}

        class Code:
            def __reduce__(self):
                return (os.mkdir, (str(executed),))

        for reason, invalid in {
            "corrupted": [b"", complete[:5000], complete[:-1], b"a text\n" * 100],
            "contains code": [{"format": 2, "model": Code()}],
            "not a checkpoint of this version": [{"weights": torch.ones(2)}, [1, 2], newer],
        }.items():
            for content in invalid:
                path.write_bytes(content) if reason == "corrupted" else torch.save(content, path)
                self.assertRaisesRegex(ValueError, reason, load_checkpoint, path)
        self.assertFalse(executed.exists(), "code in the file was executed")
        path.unlink()
        self.assertIn("No such file", self.rejected("--resume", str(path)))

    def test_a_full_disk_leaves_the_last_checkpoint(self):
        path = self.directory / "checkpoints" / "c.pt"
        replace_file(path, b"older")
        path.with_name("c.pt.123.unfinished").touch()  # as a kill during writing leaves it
        replace_file(path, b"old")
        full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with full, self.assertRaisesRegex(OSError, "could not write .*c.pt .*No space"):
            replace_file(path, b"new")
        files = {file: file.read_bytes() for file in path.parent.iterdir()}
        self.assertEqual(files, {path: b"old"}, "the checkpoint is lost, or unfinished files left")

    def test_a_diverged_run_stops_and_keeps_the_last_checkpoint(self):
        factors = iter([1.0] * 10 + [math.nan] * 99)  # two losses a step, 4 steps an epoch
        loss = nn.functional.binary_cross_entropy_with_logits
        name = "train_torch.F.binary_cross_entropy_with_logits"
        diverging = mock.patch(name, lambda *logits: loss(*logits) * next(factors))
        with diverging, self.assertRaisesRegex(FloatingPointError, "training diverged: .*/loss"):
            self.run_main("--save_every", "1", "--epochs", "3")
        saved = load_checkpoint(next((self.directory / "logs").iterdir()))
        self.assertEqual(saved["epoch"], 1, "the last good checkpoint is lost")
        for name, weight in saved["model"].items():
            self.assertTrue(weight.isfinite().all(), f"{name} was saved broken")


class SampleTest(RunTest):
    def sample(self, *flags: str) -> Path:
        """The file that sample.py writes."""
        path = self.directory / "out"
        with redirect_stdout(io.StringIO()) as output:
            sample.main([*flags, "--out", str(path)])
        self.assertEqual(output.getvalue(), f"{path}\n", "does not say what it has written")
        return path

    def test_grids(self):
        run = self.run_main("--epochs", "1")
        for name, flags in {
            "samples": ["--grid", "8", "8"],
            "interpolation": ["--interpolate", "--grid", "16", "7"],
        }.items():
            grid = pil_to_tensor(Image.open(self.sample(str(run), "--scale", "1", *flags)))
            trained = pil_to_tensor(Image.open(run / f"{name}_epoch_0001.png"))
            self.assertTrue(torch.equal(grid, trained), f"{name} are not those of the run")
            large = pil_to_tensor(Image.open(self.sample(str(run), "--scale", "3", *flags)))
            self.assertTrue(torch.equal(large[:, 1::3, 1::3], grid), "--scale blurs or is ignored")
        few = self.sample(str(run), "--grid", "2", "3", "--scale", "1").read_bytes()
        size = pil_to_tensor(Image.open(io.BytesIO(few))).shape[1:]
        self.assertEqual(size, (2 * 30 + 2, 3 * 30 + 2), "--grid is not ROWS COLUMNS")
        for other in (["--raw"], ["--seed", "1"]):
            other_images = self.sample(str(run), "--grid", "2", "3", "--scale", "1", *other)
            self.assertNotEqual(other_images.read_bytes(), few, f"{other[0]} has no effect")
        raw, model = self.sample(str(run), "--raw", "--scale", "1"), GAN.from_checkpoint(run)
        latents = model.latents(64, torch.Generator().manual_seed(0))
        images = to_gray(model.generator.eval()(latents)).detach()
        corner = pil_to_tensor(Image.open(raw))[0, 2:30, 32:60]
        self.assertTrue(torch.equal(corner, images[1, 0]), "--raw: not the raw weights' images")

    def test_animation_is_a_closed_walk(self):
        path = self.sample("--animate")
        self.assertLess(path.stat().st_size, 2_000_000, "the animation is too large to share")
        film = Image.open(path)
        self.addCleanup(film.close)
        self.assertEqual(film.info.get("loop"), 0, "the animation does not loop")
        frames = []
        for i in range(film.n_frames):
            film.seek(i)
            frames.append(pil_to_tensor(film.convert("L")).float())
        steps = [(a - b).abs().mean().item() for a, b in itertools.pairwise(frames)]
        jump = (frames[-1] - frames[0]).abs().mean().item()
        self.assertLess(jump, 2 * max(steps), "the animation jumps when it starts again")
        self.assertGreater(min(steps), 0, "the animation stands still")

    def test_spherical_interpolation(self):
        start, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        for weight, expected in [
            (0, start),
            (1, end),
            (1 / 3, 3 * torch.tensor([[0.75**0.5, 0.5]])),
        ]:
            torch.testing.assert_close(sample.slerp(start, end, weight), expected)
        same = sample.slerp(start, start, 0.5)
        torch.testing.assert_close(same, start, msg="equal latents: division by 0")

    def test_arrays(self):
        with mock.patch("sample.BATCH", 4):
            path = self.sample("--arrays", "10", "--seed", "3")
        arrays, model = np.load(path), GAN.from_checkpoint()
        self.addCleanup(arrays.close)
        kinds = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        expected = {"images": ("uint8", (10, 28, 28)), "latents": ("float32", (10, 32))}
        self.assertEqual(kinds, {**expected, "labels": ("uint8", (10,))})
        self.assertEqual(len(np.unique(arrays["latents"])), 320, "batches of the same latents")
        first = model.latents(4, torch.Generator().manual_seed(3)).numpy()
        self.assertTrue(np.array_equal(arrays["latents"][:4], first), "--seed has no effect")
        sizes = [member.file_size - 128 for member in arrays.zip.infolist()]  # without the headers
        self.assertEqual(sizes, [10 * 784, 10 * 32 * 4, 10], "more than N in the file")
        images = to_gray(model.generate(torch.from_numpy(arrays["latents"])))[:, 0]
        difference = (images.int() - torch.from_numpy(arrays["images"]).int()).abs().max()
        self.assertLessEqual(difference, 1, "images are not those of the latents")
        images = torch.from_numpy(arrays["images"])[:, None]
        labels = classify(images, metrics.load_classifier())[1].argmax(1)
        self.assertEqual(arrays["labels"].tolist(), labels.tolist(), "labels are not the images'")
        self.assertEqual(list(path.parent.glob("*.unfinished")), [], "temporary files are left")

    def test_explorer_holds_the_generator(self):
        page = self.sample("--explorer").read_text(encoding="utf-8")
        self.assertLess(len(page), 2e6, "more than 2 MB")
        self.assertNotRegex(page.replace("data:image", ""), "https?:|src=[^d]", "needs a network")
        (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page)
        data = json.loads(text)
        docs = (sample.PAGE.parent / "docs" / "explorer.html").read_text(encoding="utf-8")
        template = page.split(text)
        same = docs.startswith(template[0]) and docs.endswith(template[1])
        self.assertTrue(same, "docs/explorer.html is of another template")
        self.assertIn(data["weights"], docs, "docs/explorer.html is of another generator")
        weights = np.frombuffer(base64.b64decode(data["weights"]), np.float16).astype(np.float32)
        x = latents = torch.tensor(data["latents"])
        for i, (inputs, outputs) in enumerate(itertools.pairwise(data["sizes"])):
            matrix, bias, weights = np.split(weights, [inputs * outputs, (inputs + 1) * outputs])
            x = F.leaky_relu(x, 0.2) if i else x
            x = x @ torch.from_numpy(matrix).view(outputs, inputs).T + torch.from_numpy(bias)
        self.assertEqual(len(weights), 0, "weights are left over")
        expected = GAN.from_checkpoint().generate(latents).flatten(1)
        difference = (to_gray(x.tanh()).int() - to_gray(expected).int()).abs().max()
        self.assertLessEqual(difference, 1, "other digits than torch's")
        run = self.run_main("--epochs", "1")
        with_film = self.sample(str(run), "--explorer").read_text(encoding="utf-8")
        self.assertIn('"film": "data:image/gif;base64,', with_film, "the run's film is missing")
        for i, other in [
            (2, nn.ReLU()),
            (2, nn.LeakyReLU(0.1)),
            (3, nn.Linear(32, 784, bias=False)),
        ]:
            model = GAN.from_checkpoint(run)
            model.averaged.module.layers[i] = other
            with self.assertRaisesRegex(ValueError, "the page can compute linear layers"):
                sample.explorer(model, run, torch.Generator())

    def test_the_pretrained_generator_scores_what_its_file_says(self):
        about = json.loads(train_torch.PRETRAINED.with_suffix(".json").read_text())
        checksum = hashlib.sha256(train_torch.PRETRAINED.read_bytes()).hexdigest()
        self.assertEqual(checksum, about["sha256"], "generator.json is of another generator")
        test = mnist(train=False).dataset
        reference = metrics.Reference.of(test.images, test.labels)
        scores = train_torch.score_samples(GAN.from_checkpoint(), reference, 10_000)
        for name, value in scores.items():
            self.assertAlmostEqual(value, about["scores"][name], delta=0.01, msg=name)

    def test_invalid_runs_are_rejected_in_one_line(self):
        (self.directory / "empty").mkdir()
        for flags, reason in [
            ([str(self.directory / "empty")], "model_checkpoint.pt"),
            (["--raw"], "averaged weights only"),
            (["--grid", "0", "3"], "from 1 to 100"),
            (["--animate", "--explorer"], "not allowed"),
        ]:
            with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as stop:
                sample.main(flags)
            self.assertEqual(stop.exception.code, 2, f"exit status for {flags}")
            self.assertRegex(errors.getvalue(), rf"^[^\n]*{reason}[^\n]*\n$")
        with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit):
            parse_args(["--resume", str(train_torch.PRETRAINED)])
        self.assertRegex(errors.getvalue(), "^[^\n]*not in a run directory[^\n]*\n$")


class CommandLineTest(RunTest):
    def test_defaults(self):
        args = parse_args([])[0]
        networks = [32, [128, 256, 512], [512, 256], 0.0, 0.0, 1000, 0.3]
        values = [getattr(args, name) for name in HYPERPARAMETERS]
        self.assertEqual(values, [2e-3, 1e-3, 20, [0.0, 0.99], 128, 42, "fp32", *networks])
        self.assertEqual((args.epochs, args.num_workers, args.save_every), (50, 0, 10))
        self.assertEqual(args.log_dir, "GAN_logs/")
        self.assertEqual(parse_args(["--hidden_dims_gen"])[0].hidden_dims_gen, [])

    def test_invalid_values_are_rejected_in_one_line(self):
        file = self.directory / "file"
        file.touch()
        for reason, invalid in {
            "integer": "--z_dim 0 --batch_size 0 --epochs many --seed 5000000000",
            "an integer from 1": "--save_every 0 --decay_from 0",
            "an integer from 0 to 256": "--num_workers 257",
            "separated by spaces": "--hidden_dims_gen 128,256 --hidden_dims_disc 1e3",
            "below 1": "--dp_rate_gen 1.0 --dp_rate_disc nan",
            "from 0 to 1000": "--r1 -1 --r1 nan --ema -1",
            "above 0 and at most 1": "--lr 0 --lr inf",
            "no device": "--device nonsense --device meta",
            "choose from": "--precision fp8",
            "cpu has no instructions": "--precision bf16",
            "letters": "--name a/b --job_id a/b",
            "not a directory": f"--log_dir {file}/logs --data_dir {file}",
        }.items():
            for flag, value in re.findall(r"(--\w+) (\S+)", invalid):
                with mock.patch("command_line.supports_bf16", return_value=False):
                    message = self.rejected("--device", "cpu", flag, value)
                self.assertRegex(
                    message, f"argument {flag}: .*{reason}", "does not say what is expected"
                )
                self.assertIn(repr(value), message, "does not name the value")
        self.assertIn("not allowed with", self.rejected("--resume", "x", "--job_id", "1"))
        self.assertEqual({*self.directory.iterdir()}, {file, self.data}, "something was created")

    def test_user_errors_end_with_one_line(self):
        (self.data / "MNIST" / "raw" / IMAGES).write_bytes(b"corrupted")
        logs = self.directory / "logs"
        cases = [("--batch_size", "0", 2), ("--data_dir", str(self.data), 1)]
        for flag, value, status in cases:
            done = python(train_torch.__file__, "--log_dir", str(logs), flag, value)
            self.assertEqual(done.returncode, status, f"another exit status for {flag}")
            one_line = f"^train_torch.py: .*{re.escape(value)}.*\n$"
            self.assertRegex(done.stderr, one_line, "not one line with the value")
        self.assertFalse(logs.exists(), "something was created")

    def test_a_busy_machine_is_named_with_the_faster_command(self):
        for load, threads, hints in [(0.2, 2, 0), (1.1, 2, 1), (9, 1, 0)]:
            loads = mock.patch("os.getloadavg", return_value=(load, 0, 0), create=True)
            cores = mock.patch("os.cpu_count", return_value=2)
            own = mock.patch("torch.get_num_threads", return_value=threads)
            with loads, cores, own, redirect_stdout(io.StringIO()) as printed:
                command_line.print_thread_hint("cpu")
                command_line.print_thread_hint("cuda:0")
            printed = printed.getvalue().count("OMP_NUM_THREADS=1")
            self.assertEqual(printed, hints, f"no hint, or a needless one, at {load=}, {threads=}")

    def test_openmp_is_told_not_to_spin_before_torch_is_loaded(self):
        code = """if True:
            import os, sys
            sys.modules["torch"] = None  # cannot be imported
            try:
                import train_torch
            except ImportError:
                print(os.environ.get("GOMP_SPINCOUNT", 0))"""
        env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        self.assertGreater(int(python("-c", code, env=env).stdout), 0, "not set before the import")
        env["GOMP_SPINCOUNT"] = "7"
        self.assertEqual(int(python("-c", code, env=env).stdout), 7, "overwrites the user's value")

    def test_trains_without_posix_only_functions(self):
        code = """if True:
            import os, signal, sys
            import torch.utils.tensorboard, torchvision, tqdm
            for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGHUP"):
                vars(signal).pop(name, None)
            for name in ("getloadavg", "fork", "kill", "getuid", "sched_getaffinity"):
                vars(os).pop(name, None)
            sys.modules.update(resource=None, fcntl=None, pwd=None, grp=None, termios=None)
            import unittest, unittests
            unittest.main(unittests, argv=["", "TrainingTest.test_what_a_run_leaves_and_prints"])"""
        done = python("-c", code)
        self.assertEqual(done.returncode, 0, f"does not run on Windows: {done.stderr}")


if __name__ == "__main__":
    unittest.main()
