"""All unit tests (unittest or pytest). Each message names the mistake that it guards against."""

import contextlib
import io
import itertools
import json
import logging
import math
import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from signal import SIG_DFL, SIGINT, SIGTERM, SIGUSR1, default_int_handler, getsignal
from unittest import mock

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import train_torch
from checkpoint import (
    CHECKPOINT,
    FORMAT,
    StopSignals,
    load_checkpoint,
    make_run_dir,
    save_checkpoint,
)
from mnist import DATA_DIR, IMAGES, mnist
from models import DiscriminatorMLP, Dropout, GeneratorMLP
from train_torch import GAN, parse_args, train_gan
from utils import TensorBoardLogger, image_grid, save_images


def setUpModule():
    torch.set_num_threads(1)  # the networks here are too small to share out


def small_gan(**changes) -> GAN:
    return GAN(
        **{
            "hidden_dims_gen": [16],
            "hidden_dims_disc": [16],
            "dp_rate_gen": 0.1,
            "dp_rate_disc": 0.3,
            "z_dim": 8,
            **changes,
        }
    )


def events(folder: Path) -> EventAccumulator:
    """What a TensorBoard would read from the folder."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


class TemporaryFolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class ModelsTest(unittest.TestCase):
    def test_generator_gives_images_in_range(self):
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
        linears = [m for m in GeneratorMLP().modules() if isinstance(m, nn.Linear)]
        widths = [linear.out_features for linear in linears]
        self.assertEqual(widths, [128, 256, 512, 1024, 784], "defaults differ from the interface")
        kinds = [type(m).__mro__[0].__name__ for m in GeneratorMLP(4, [3]).layers]
        self.assertEqual(
            kinds,
            ["Linear", "Dropout", "LeakyReLU", "Linear"],
            "dropout or activation is missing, or stands after the last Linear",
        )
        slopes = {m.negative_slope for m in GeneratorMLP().modules() if isinstance(m, nn.LeakyReLU)}
        self.assertEqual(slopes, {0.2}, "LeakyReLU's own default slope is 0.01")

    def test_discriminator_gives_logits(self):
        torch.manual_seed(0)
        discriminator = DiscriminatorMLP(dp_rate=0)
        images = 100 * torch.randn(50, 1, 28, 28)
        logits = discriminator(images)
        self.assertEqual(logits.shape, (50, 1))
        self.assertLess(logits.min(), 0, "a sigmoid inside: the loss applies it a second time")
        self.assertGreater(logits.max(), 1, "a sigmoid inside: the loss applies it a second time")
        torch.testing.assert_close(discriminator(images.flatten(1)), logits, msg="flat images")

    def test_bad_sizes_and_rates_are_refused_by_name_and_value(self):
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
            y = Dropout(p)(torch.ones(n))
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
        masks = Dropout(0.5)(torch.ones(4, 250_000)) - 1  # +1 or -1
        for lag in (1, 2, 3, 4, 8, 64):
            flat = masks.flatten()
            self.assertLess(
                abs((flat[lag:] * flat[:-lag]).mean()), 5e-3, f"neighbours {lag} apart correlate"
            )
        rows = masks @ masks.T / masks.shape[1] - torch.eye(4)
        self.assertLess(rows.abs().max(), 0.01, "images of a batch share a mask")
        self.assertFalse(torch.equal(Dropout(0.5)(torch.ones(64)), Dropout(0.5)(torch.ones(64))))

    def test_dropout_gradient_and_evaluation(self):
        dropout, x = Dropout(0.3), torch.ones(3, 5, requires_grad=True)  # 5 is no multiple of 4
        y = dropout(x)
        y.sum().backward()
        torch.testing.assert_close(x.grad, y.detach(), msg="backward used another mask")
        self.assertIs(type(dropout.eval()(x)), torch.Tensor)
        torch.testing.assert_close(dropout(x), x, msg="dropout is still on in evaluation mode")

    def test_dropout_masks_come_from_the_seed_and_go_on_from_a_state(self):
        def seeded(seed: int) -> Dropout:
            torch.manual_seed(seed)
            return Dropout(0.5)

        def masks(dropout: Dropout) -> list[torch.Tensor]:
            return [dropout(torch.ones(99)) for _ in range(3)]

        a, b, last = masks(seeded(1)), masks(seeded(1)), seeded(2)
        state = last.state_dict()
        c = masks(last)
        self.assertTrue(torch.equal(a[0], b[0]), "masks don't come from torch's seed")
        self.assertFalse(torch.equal(a[0], c[0]), "every seed gives the same masks")
        self.assertFalse(torch.equal(a[0], a[1]), "every step has the same mask")
        resumed = Dropout(0.5)
        resumed.load_state_dict(state)
        for mask, again in zip(c, masks(resumed), strict=True):
            self.assertTrue(torch.equal(mask, again), "the state_dict does not hold the state")

    def test_dropout_of_each_type(self):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            y = Dropout(0.5)(torch.ones(3, 4, 5, dtype=dtype))
            self.assertEqual((y.dtype, y.shape), (dtype, (3, 4, 5)))
            self.assertEqual(set(y.unique().tolist()), {0, 2})
        self.assertLess(Dropout(1 - 1e-9)(torch.ones(999)).count_nonzero(), 9)


class LinearJudge(nn.Module):
    """A discriminator with a known answer: logit 3 * mean + 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1, keepdim=True) + 1


class BlackDrawer(nn.Module):
    """A generator whose images are all -1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))

    def forward(self, z):
        return self.weight.expand(len(z), 1, 28, 28)


class GANTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x_real = torch.rand(6, 1, 28, 28) * 2 - 1

    def test_losses_are_those_worked_out_by_hand(self):
        model = small_gan()
        model.generator, model.discriminator = BlackDrawer(), LinearJudge()
        white = torch.ones(6, 1, 28, 28)  # logit 4; the drawn ones have logit -2

        loss, values = model.discriminator_step(white)
        by_hand = (math.log1p(math.exp(-4)) + math.log1p(math.exp(-2))) / 2
        self.assertAlmostEqual(loss.item(), by_hand, places=5, msg="targets or signs are wrong")
        self.assertAlmostEqual(values["loss"].item(), by_hand, places=5)
        self.assertEqual(values["accuracy_real"], 1, "a positive logit means real")
        self.assertEqual(values["accuracy_fake"], 1, "a negative logit means fake")
        self.assertAlmostEqual(values["probability_real"].item(), 0.98201, places=4)
        self.assertAlmostEqual(values["probability_fake"].item(), 0.11920, places=4)

        loss, values = model.generator_step(white)
        by_hand = math.log1p(math.exp(2))
        self.assertAlmostEqual(
            loss.item(), by_hand, places=5, msg="not the non-saturating loss -log D(G(z))"
        )
        self.assertAlmostEqual(values["loss"].item(), by_hand, places=5)

    def test_logged_values_are_scalars_without_graph(self):
        model = small_gan()
        for step in (model.generator_step, model.discriminator_step):
            for key, value in step(self.x_real)[1].items():
                self.assertEqual(value.shape, (), f"{key} is no scalar")
                self.assertFalse(value.requires_grad, f"logging {key} keeps every graph in memory")

    def test_each_step_gives_gradients_to_its_own_network_alone(self):
        model = small_gan()
        for step, learns, rests in [
            (model.discriminator_step, model.discriminator, model.generator),
            (model.generator_step, model.generator, model.discriminator),
        ]:
            model.zero_grad()
            step(self.x_real)[0].backward()
            for name, p in learns.named_parameters():
                self.assertIsNotNone(p.grad, f"{step.__name__}: {name} gets no gradient")
                self.assertTrue(p.grad.any(), f"{step.__name__}: {name} gets a zero gradient")
            for name, p in rests.named_parameters():
                self.assertIsNone(p.grad, f"{step.__name__}: wasted a gradient on {name}")
                self.assertTrue(p.requires_grad, f"{step.__name__}: left {name} frozen")

    def test_bf16_is_for_products_alone(self):
        model, seen = small_gan(), []
        for layer in (model.generator.layers[0], model.discriminator.layers[-1]):
            layer.register_forward_hook(lambda *call: seen.append(call[2].dtype))
        before = {name: p.clone() for name, p in model.named_parameters()}
        loggers = mock.Mock(), mock.Mock()
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=1e-3)
            for network in (model.generator, model.discriminator)
        ]
        train_gan(model, [(self.x_real, None)] * 3, *loggers, *optimizers, bf16=True)
        self.assertEqual(set(seen), {torch.bfloat16}, "autocast is not on")
        for name, p in model.named_parameters():
            self.assertEqual((p.dtype, p.grad.dtype), (torch.float32, torch.float32), name)
            self.assertFalse(torch.equal(p, before[name]), f"{name} is not trained")
        for logger in loggers:
            for call in logger.add_values.call_args_list:
                for key, value in call.args[0].items():
                    self.assertEqual(value.dtype, torch.float32, f"{key} is rounded to 8 bits")
        seen.clear()
        train_gan(model, [(self.x_real, None)], *loggers, *optimizers)
        self.assertEqual(set(seen), {torch.float32}, "autocast is on without being asked for")

    def test_discriminator_step_judges_real_and_fresh_fake(self):
        model, seen = small_gan(dp_rate_gen=0.0, dp_rate_disc=0.0), []
        model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model.discriminator_step(self.x_real)
        model.discriminator_step(self.x_real)
        model.generator_step(self.x_real)
        torch.testing.assert_close(seen[0][:6], self.x_real, msg="real images must be judged as is")
        fakes = [seen[0][6:], seen[1][6:], seen[2]]
        for a, b in [(0, 1), (1, 2)]:
            self.assertFalse(torch.equal(fakes[a], fakes[b]), "each step must draw fresh images")

    def test_steps_train_with_dropout_and_sampling_is_without(self):
        model = small_gan(dp_rate_gen=0.5)
        z = torch.randn(4, 8)
        model.train()
        self.assertFalse(torch.equal(model.generator(z), model.generator(z)), "no dropout at all")
        with mock.patch.object(model, "latents", lambda n: z[:n]):
            self.assertTrue(
                torch.equal(model.sample(4), model.sample(4)), "dropout was on in sampling"
            )
            self.assertFalse(model.sample(4).requires_grad, "sampling builds a graph")

    def test_sampling_gives_each_layers_mode_back(self):
        model = small_gan()
        for mode in (True, False):
            model.train(mode)
            model.generator.layers[1].train(not mode)  # as somebody may have frozen one layer
            model.sample(2)
            model.interpolate(2, 1)
            self.assertEqual(model.generator.training, mode, "mode not given back")
            self.assertEqual(model.generator.layers[1].training, not mode, "a layer's mode is lost")

    def test_sample_shape(self):
        images = small_gan().sample(3)
        self.assertEqual(images.shape, (3, 1, 28, 28))

    def test_interpolation_has_both_ends_and_even_spacing(self):
        model = small_gan(z_dim=4)
        model.generator = nn.Unflatten(1, (1, 2, 2))  # draws its latent vector
        torch.manual_seed(3)
        start, end = model.latents(5), model.latents(5)
        torch.manual_seed(3)
        with mock.patch.object(GAN, "device", torch.device("cpu")):
            images = model.interpolate(5, 3)
        self.assertEqual(images.shape, (5, 5, 1, 2, 2), "[B, steps + 2, C, H, W]")
        z = images.flatten(2)
        torch.testing.assert_close(z[:, 0], start, msg="the first is not the one end")
        torch.testing.assert_close(z[:, -1], end, msg="the last is not the other end")
        steps = z.diff(dim=1)
        torch.testing.assert_close(
            steps, ((end - start) / 4)[:, None].expand_as(steps), msg="not evenly spaced"
        )

    def test_one_epoch_changes_each_network_by_its_own_optimizer(self):
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
                learns = (lr_gen if name.startswith("generator") else lr_disc) > 0
                self.assertEqual(
                    not torch.equal(p, before[name]), learns, f"{name}: the wrong optimizer steps"
                )
            self.assertTrue(model.training, "training must switch dropout on")
            for logger in loggers:
                self.assertEqual(logger.add_values.call_count, 3, "one call of a logger per batch")

    def test_gradients_do_not_pile_up(self):
        model = small_gan(dp_rate_gen=0.0, dp_rate_disc=0.0)
        networks = model.generator, model.discriminator
        optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in networks]

        def gradients_after(steps: int) -> list[float]:
            batches = [(self.x_real, None)] * steps
            train_gan(model, batches, mock.Mock(), mock.Mock(), *optimizers)
            return [sum(p.grad.norm().item() for p in net.parameters()) for net in networks]

        for first, last in zip(gradients_after(1), gradients_after(50), strict=True):
            self.assertLess(last, 5 * first, "zero_grad is missing: 50 steps' gradients are added")


class MnistTest(TemporaryFolderTest):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.loader = mnist()
        cls.epochs = [
            tuple(torch.cat(parts) for parts in zip(*cls.loader, strict=True)) for _ in range(2)
        ]

    def test_batches(self):
        self.assertIsInstance(self.loader, torch.utils.data.DataLoader)
        sizes = [(images.shape, labels.shape) for images, labels in self.loader]
        self.assertEqual(len(self.loader), 469)
        self.assertEqual(len(sizes), 469, "len() is not the number of batches")
        self.assertEqual(sizes[0], ((128, 1, 28, 28), (128,)))
        self.assertEqual(sizes[-1], ((96, 1, 28, 28), (96,)), "the last smaller batch is dropped")

    def test_values(self):
        images, labels = self.epochs[0]
        self.assertEqual((images.dtype, labels.dtype), (torch.float32, torch.int64))
        self.assertEqual((images.min(), images.max()), (-1, 1), "Tanh needs data in [-1, 1]")
        self.assertEqual(len(images.unique()), 256, "grey values are lost")
        self.assertAlmostEqual((images.mean().item() + 1) / 2, 0.1307, places=4)  # well known
        self.assertEqual(
            labels.bincount().tolist(),
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            "labels are not those of the training set",
        )

    def test_every_image_once_in_a_new_order(self):
        known = self.loader.dataset.images.flatten(1).long()
        weights = torch.randint(2**31, (784,))
        marks = (known * weights).sum(1)
        shown = [
            (((x.flatten(1) + 1) * 127.5).round().long() * weights).sum(1) for x, _ in self.epochs
        ]
        for mark in shown:
            self.assertTrue(
                torch.equal(mark.sort().values, marks.sort().values), "not every image once"
            )
            self.assertFalse(torch.equal(mark, marks), "not shuffled")
        self.assertFalse(torch.equal(*shown), "the same order in every epoch")
        # Labels go with their images: index by hand.
        image, label = self.loader.dataset[7]
        at = (shown[0] == marks[7]).nonzero()[0, 0]
        self.assertTrue(torch.equal(self.epochs[0][0][at], image))
        self.assertEqual(self.epochs[0][1][at], label, "labels lost their images")

    def test_the_seed_decides_the_order(self):
        def first(seed, **options):
            torch.manual_seed(seed)
            loader = mnist(batch_size=60, **options)
            torch.rand(5)  # what else draws must not matter
            return next(iter(loader))[1]

        self.assertTrue(torch.equal(first(1), first(1)), "the same seed must give the same order")
        self.assertFalse(torch.equal(first(1), first(2)), "the seed is ignored")
        self.assertTrue(torch.equal(first(1), first(1, num_workers=1)), "workers change the order")

    def test_iterating_leaves_the_global_random_numbers_alone(self):
        state = torch.get_rng_state()
        next(iter(self.loader))
        self.assertTrue(torch.equal(torch.get_rng_state(), state))

    def test_bad_batch_size(self):
        with self.assertRaisesRegex(ValueError, "batch_size.*0"):
            mnist(batch_size=0)

    def test_missing_archives_are_named(self):
        with self.assertRaisesRegex(OSError, f"{IMAGES} is missing"):
            mnist(self.folder, download=False)
        self.assertEqual(list(self.folder.iterdir()), [], "nothing may be made without download")

    def test_failed_download_says_which_files_belong_where(self):
        with (
            mock.patch("torchvision.datasets.MNIST", side_effect=RuntimeError("no\nnetwork")),
            self.assertRaises(OSError) as caught,
        ):
            mnist(self.folder)
        message = str(caught.exception)
        for part in (
            IMAGES,
            "train-labels-idx1-ubyte.gz",
            str(self.folder / "MNIST/raw"),
            "no net",
        ):
            self.assertIn(part, message)
        self.assertNotIn("\n", message, "one line")

    def test_download_fills_an_empty_folder(self):
        def download(root, download):
            raw = Path(root, "MNIST", "raw")
            raw.mkdir(parents=True)
            for archive in (DATA_DIR / "MNIST" / "raw").glob("*.gz"):
                (raw / archive.name).write_bytes(archive.read_bytes())

        with mock.patch("torchvision.datasets.MNIST", side_effect=download):
            self.assertEqual(len(mnist(self.folder / "new").dataset), 60_000)
        self.assertEqual(len(mnist(self.folder / "new", download=False).dataset), 60_000)

    def test_what_lies_unpacked_beside_the_archives_is_not_read(self):
        raw = self.folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for archive in (DATA_DIR / "MNIST" / "raw").glob("train*.gz"):
            (raw / archive.name).write_bytes(archive.read_bytes())
            (raw / archive.stem).touch()  # as a kill in the middle of unpacking leaves it
        before = sorted((path.name, path.stat().st_mtime_ns) for path in raw.iterdir())
        images = mnist(self.folder, download=False).dataset.images
        self.assertTrue(torch.equal(images, self.loader.dataset.images), "read a half-made file")
        after = sorted((path.name, path.stat().st_mtime_ns) for path in raw.iterdir())
        self.assertEqual(after, before, "wrote into the data folder, which may be read-only")

    def test_processes_that_download_at_once_all_get_the_right_images(self):
        code = f"""if True:
            import shutil, time, torchvision, mnist
            from pathlib import Path
            class Slow:
                def __init__(self, root, download):
                    raw = Path(root, "MNIST", "raw")
                    raw.mkdir(parents=True)
                    for archive in Path({str(DATA_DIR)!r}, "MNIST", "raw").glob("*.gz"):
                        with open(raw / archive.name, "wb") as file:
                            for part in range(0, archive.stat().st_size, 500_000):
                                file.write(archive.read_bytes()[part:part + 500_000])
                                file.flush()
                                time.sleep(0.01)
            torchvision.datasets.MNIST = Slow
            print(mnist.mnist({str(self.folder / "new")!r}).dataset.images.sum().item())"""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parent
            )
            for _ in range(4)
        ]
        sums = {process.communicate()[0].decode().strip() for process in processes}
        self.assertEqual(sums, {str(self.loader.dataset.images.sum().item())})

    def test_damaged_archive_is_refused(self):
        raw = self.folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        content = bytearray((DATA_DIR / "MNIST" / "raw" / IMAGES).read_bytes())
        content[5_000_000] ^= 1
        (raw / IMAGES).write_bytes(content)
        with self.assertRaisesRegex(OSError, f"{IMAGES} is damaged"):
            mnist(self.folder, download=False)


class UtilsTest(TemporaryFolderTest):
    def test_logger_writes_the_mean_of_each_window_at_its_last_step(self):
        with SummaryWriter(self.folder) as writer:
            logger = TensorBoardLogger(writer, avg_window=4, name="net")
            for step in range(1, 11):
                logger.add_values({"loss": torch.tensor(float(step)), "twice": 2.0 * step})
            logger.flush()
            logger.flush()
        written = events(self.folder)
        loss = [(e.step, e.value) for e in written.Scalars("net/loss")]
        self.assertEqual(
            loss,
            [(4, 2.5), (8, 6.5), (10, 9.5)],
            "wrong mean or step, a rest that is lost, or one written twice",
        )
        self.assertEqual([e.value for e in written.Scalars("net/twice")], [5, 13, 19])

    def test_logger_reads_back_only_when_it_writes(self):
        read = []
        original = torch.Tensor.item

        def item(tensor):
            read.append(tensor)
            return original(tensor)

        with SummaryWriter(self.folder) as writer, mock.patch.object(torch.Tensor, "item", item):
            logger = TensorBoardLogger(writer, avg_window=3)
            for _ in range(2):
                logger.add_values({"loss": torch.tensor(1.0, requires_grad=True) * 2})
            self.assertEqual(len(read), 0, "a value was read back before its window was full")
            self.assertFalse(logger.open["loss"][0].requires_grad, "graphs are kept")
            logger.add_values({"loss": torch.tensor(1.0)})
        self.assertEqual(len(read), 1, "one read-back for one written mean")

    def test_logger_without_name_and_with_bad_window(self):
        with SummaryWriter(self.folder) as writer:
            TensorBoardLogger(writer, avg_window=1).add_values({"loss": 1.0})
            with self.assertRaisesRegex(ValueError, "avg_window.*0"):
                TensorBoardLogger(writer, avg_window=0)
        self.assertEqual(events(self.folder).Tags()["scalars"], ["loss"])

    def test_black_is_black_and_white_is_white(self):
        images = torch.tensor([-1.0, 1.0, 0.0, -2.0, 3.0]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
        grid = image_grid(images, columns=5, gap=0)[0, ::4, 0].tolist()
        self.assertEqual(grid, [0, 255, 128, 0, 255], "stretched, wrapped around or not clipped")

    def test_grid_is_filled_row_by_row(self):
        images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 4, 6)
        grid = image_grid(images, columns=2)
        self.assertEqual(grid.shape, (3 * 4 + 2 * 2, 2 * 6 + 2, 3))
        corners = grid[::6, ::8, 1].tolist()
        self.assertEqual(corners, [[0, 64], [128, 191], [255, 0]])
        self.assertFalse(grid[4:6].any() or grid[:, 6:8].any(), "no gap between the images")

    def test_png_and_tensorboard_show_the_same(self):
        images = torch.rand(6, 1, 5, 5) * 2 - 1
        with SummaryWriter(self.folder) as writer:
            path = save_images(images, 3, "samples", 20, writer)
        self.assertEqual(path, self.folder / "samples_epoch_0020.png")
        png = np.array(Image.open(path))
        self.assertTrue(np.array_equal(png, image_grid(images, 3)[..., 0]))
        (event,) = events(self.folder).Images("samples")
        self.assertEqual(event.step, 20, "the slider should show the epoch")
        shown = np.array(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
        self.assertTrue(np.array_equal(shown, png), "TensorBoard shows other grey values")


def run_main(*flags: str, images: int = 512) -> str:
    """Runs `main` on the first images of MNIST; gives what it printed."""

    def slice_of_mnist(*_):
        loader = mnist(batch_size=64)
        loader.dataset.images = loader.dataset.images[:images]
        return loader

    printed = io.StringIO()
    with mock.patch("train_torch.mnist", slice_of_mnist), contextlib.redirect_stdout(printed):
        given = [] if "--resume" in flags else ["--epochs", "2", "--hidden_dims_gen", "32"]
        run_main.status = train_torch.main(parse_args([*given, *flags]))
    return printed.getvalue()


class TrainingTest(TemporaryFolderTest):
    def run_once(self, *flags: str) -> tuple[Path, str]:
        """Runs `main`; gives the new run's folder and what was printed."""
        before = set(self.folder.iterdir())
        printed = run_main("--log_dir", str(self.folder), *flags)
        (run,) = set(self.folder.iterdir()) - before
        return run, printed

    def test_a_run_leaves_the_complete_folder(self):
        run, printed = self.run_once("--save_every", "1")
        self.assertEqual(
            sorted(path.name for path in run.glob("*.png")),
            [f"{tag}_epoch_000{n}.png" for tag in ("interpolation", "samples") for n in (0, 1, 2)],
            "pictures before training, every --save_every epochs and at the end",
        )
        arguments = json.loads((run / "args.json").read_text())
        self.assertEqual((arguments["epochs"], arguments["hidden_dims_gen"]), (2, [32]))
        contents = torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)
        self.assertEqual(contents["batches"]["epoch"], 2)
        self.assertIn("generator.layers.0.weight", contents["model"])
        for name in ("optimizer_gen", "optimizer_disc"):
            self.assertEqual(contents[name]["state"][0]["step"], 16, f"{name}: no Adam moments")
            self.assertEqual(contents[name]["param_groups"][0]["betas"], [0.5, 0.999])

        written = events(run)
        for tag in [
            "generator/loss",
            *(f"discriminator/{what}" for what in ("loss", "accuracy_real", "accuracy_fake")),
            *("discriminator/probability_real", "discriminator/probability_fake"),
        ]:
            steps = [event.step for event in written.Scalars(tag)]
            self.assertEqual(steps, [16], f"{tag}: the rest below a window is lost")
        self.assertEqual(len(written.Scalars("seconds_per_epoch")), 2)
        for tag in ("samples", "interpolation"):
            self.assertEqual([event.step for event in written.Images(tag)], [0, 1, 2])
        self.assertIn("_hparams_/session_start_info", written.summary_metadata)

        lines = printed.splitlines()
        self.assertEqual(len(lines), 6, "two lines at the start, one per save, two at the end")
        self.assertIn(str(run), lines[0])
        self.assertEqual(lines[1].split(maxsplit=1)[1], f"tensorboard --logdir {self.folder}")
        self.assertRegex(lines[2], r"^epoch +1/2: G \d.*D \d.* s/epoch, .*left$")
        self.assertTrue(all(len(line) < 80 for line in lines[2:4]), "wider than a terminal")
        self.assertIn("model_checkpoint.pt", lines[5])

    def test_same_seed_same_weights_and_another_seed_others(self):
        weights = []
        for seed in ("1", "1", "2"):
            run, _ = self.run_once("--seed", seed)
            path = run / "checkpoints" / "model_checkpoint.pt"
            weights.append(torch.load(path, weights_only=True)["model"])
        same = [all(torch.equal(weights[0][k], w[k]) for k in w) for w in weights[1:]]
        self.assertEqual(same, [True, False], "the seed does not decide the weights")

    def test_precision_reaches_the_training(self):
        biases = []
        with mock.patch("command_line.multiplies_bf16", lambda device: True):
            for precision in ("fp32", "bf16"):
                run, _ = self.run_once("--precision", precision)
                biases.append(load_checkpoint(run / CHECKPOINT)["model"]["generator.layers.0.bias"])
        self.assertFalse(torch.equal(*biases), "--precision bf16 has no effect")
        torch.testing.assert_close(*biases, rtol=0, atol=0.05, msg="bf16 trains something else")

    def test_pictures_do_not_change_training(self):
        weights = []
        for save_every in ("1", "9"):
            run, _ = self.run_once("--save_every", save_every)
            path = run / "checkpoints" / "model_checkpoint.pt"
            weights.append(torch.load(path, weights_only=True)["model"])
        for key in weights[0]:
            self.assertTrue(torch.equal(*(w[key] for w in weights)), "pictures draw from training")

    def test_pictures_of_two_epochs_show_the_same_latent_vectors(self):
        model = small_gan()
        with SummaryWriter(self.folder) as writer:
            for picture in (train_torch.generate_and_save, train_torch.interpolate_and_save):
                first = picture(model, 1, writer).read_bytes()
                torch.rand(5)  # as training would
                second = picture(model, 2, writer).read_bytes()
                self.assertEqual(first, second, f"{picture.__name__} draws new vectors each time")

    def test_runs_of_the_same_second_get_folders_of_their_own(self):
        runs = {make_run_dir(str(self.folder)) for _ in range(5)}
        self.assertEqual(len(runs), 5, "two runs write into the same folder")
        self.assertEqual(set(self.folder.iterdir()), runs)

    def test_curves_are_on_disk_before_the_checkpoint_is(self):
        reached = []

        def save(path, contents):
            if contents["batches"]["epoch"] == 2:
                reached.append(events(path.parent.parent).Scalars("generator/loss")[-1].step)
            save_checkpoint(path, contents)

        with mock.patch("train_torch.save_checkpoint", save):
            self.run_once()
        self.assertEqual(reached, [16], "a kill -9 would leave a hole in the curves")

    def test_progress_bar_fits_80_columns_and_shows_both_losses(self):
        bars = io.StringIO()
        with (
            mock.patch.dict("os.environ", {"COLUMNS": "80"}),
            contextlib.redirect_stderr(bars),
            mock.patch("train_torch.TensorBoardLogger.__init__.__defaults__", (4, None)),
        ):
            _, printed = self.run_once("--progress_bar")
        self.assertRegex(bars.getvalue(), r"G \d+\.\d{3} D \d+\.\d{3}, [\d,]+ img/s")
        longest = max(map(len, bars.getvalue().replace("\r", "\n").splitlines()))
        self.assertLessEqual(longest, 82, "bars break the line")  # tqdm appends an escape sequence
        self.assertNotIn("s/epoch", printed, "lines would tear the bars apart")


class SurvivalTest(TemporaryFolderTest):
    """Runs that are stopped and go on. Real processes are in benchmarks/kill_and_resume.py."""

    def run_once(self, name: str, *flags: str) -> tuple[Path, str]:
        """Starts a run, or goes on with it, in a log folder of that name."""
        logs = self.folder / name
        resume = ["--resume", str(next(logs.iterdir()))] if logs.exists() else []
        printed = run_main("--log_dir", str(logs), *flags, *resume)
        return next(logs.iterdir()), printed

    def run_stopped(self, name: str, step: int, number: int) -> str:
        """Runs until it has been sent a signal in that step, and has saved itself for it."""
        add_values = TensorBoardLogger.add_values

        def add_and_send(logger, values):
            add_values(logger, values)
            if logger.prefix == "generator/" and logger.step == step:
                os.kill(os.getpid(), number)

        with mock.patch.object(TensorBoardLogger, "add_values", add_and_send):
            _, printed = self.run_once(name)
        self.assertEqual(run_main.status, 128 + number, "exit status is not 128 + the signal's")
        return printed

    def outcome(self, run: Path) -> dict:
        contents = load_checkpoint(run / CHECKPOINT)
        scalars = {
            tag: [(e.step, e.value) for e in events(run).Scalars(tag)]
            for tag in ("generator/loss", "discriminator/loss", "discriminator/accuracy_real")
        }
        return {
            "weights": {name: w.tolist() for name, w in contents["model"].items()},
            "moments": [str(contents[name]) for name in ("optimizer_gen", "optimizer_disc")],
            "random": str(contents["batches"]["random"]),
            "scalars": scalars,
            "pictures": {path.name: path.read_bytes() for path in run.glob("*.png")},
        }

    def test_a_stopped_run_ends_as_one_that_was_left_alone(self):
        with mock.patch.object(TensorBoardLogger.__init__, "__defaults__", (3, None)):
            straight = self.outcome(self.run_once("straight")[0])
            for stops in [(1,), (8,), (5, 6, 15)]:  # 8 steps an epoch; 8 is the last of its epoch
                name = "-".join(map(str, stops))
                for step, number in zip(stops, (SIGTERM, SIGUSR1, SIGINT), strict=False):
                    printed = self.run_stopped(name, step, number)
                    self.assertIn(f"--resume {next((self.folder / name).iterdir())}", printed)
                run, _ = self.run_once(name)
                self.assertEqual(run_main.status, 0)
                resumed = self.outcome(run)
                for part in straight:
                    self.assertTrue(
                        resumed[part] == straight[part], f"{part} after stops at {name}"
                    )
        starts = json.loads((run / "args.json").read_text())["starts"]
        self.assertEqual(
            [(s["epoch"], s["step"]) for s in starts], [(0, 0), (0, 5), (0, 6), (1, 7)]
        )

    def test_a_killed_run_repeats_what_it_had_not_saved_and_curves_do_not_fold_back(self):
        straight = self.outcome(self.run_once("straight", "--save_every", "1")[0])

        class Killed(BaseException):
            pass

        add_values = TensorBoardLogger.add_values

        def add_and_die(logger, values):
            add_values(logger, values)
            logger.flush()  # so that it has written more than its checkpoint knows of
            if logger.step == 13:
                raise Killed

        with (
            mock.patch.object(TensorBoardLogger, "add_values", add_and_die),
            self.assertRaises(Killed),
        ):
            self.run_once("killed", "--save_every", "1")
        (run,) = (self.folder / "killed").iterdir()
        self.assertEqual(load_checkpoint(run / CHECKPOINT)["batches"]["epoch"], 1)
        resumed = self.outcome(self.run_once("killed")[0])
        for part in ("weights", "moments", "random", "pictures"):
            self.assertTrue(resumed[part] == straight[part], f"{part} differ after a kill")
        steps = [step for step, _ in resumed["scalars"]["generator/loss"]]
        self.assertEqual(steps, [1, 2, 3, 4, 5, 6, 7, 8, 16], "steps 9 to 13 were not purged")

    def test_epochs_can_be_raised_and_nothing_else_changed(self):
        straight = self.outcome(self.run_once("straight", "--epochs", "3")[0])
        run, _ = self.run_once("raised", "--epochs", "1")
        raised = self.outcome(self.run_once("raised", "--epochs", "3")[0])
        for part in ("weights", "moments", "random"):
            self.assertTrue(raised[part] == straight[part], f"{part} differ after raising --epochs")
        for flag, value in [("--lr", "0.1"), ("--seed", "1"), ("--z_dim", "3"), ("--epochs", "1")]:
            said = self.refused("--resume", str(run), flag, value)
            self.assertRegex(said, f"argument {flag}: .*{value}", "a contradiction is accepted")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), self.assertRaises(SystemExit) as stop:
            parse_args(["--resume", str(run)])
        self.assertIn("finished", printed.getvalue())
        self.assertEqual(stop.exception.code, 0, "to resume a finished run is no failure")

    def test_a_job_goes_on_with_its_own_run(self):
        logs, hidden = ["--log_dir", str(self.folder)], ["--hidden_dims_gen", "32"]
        for job in ("7", "17"):
            run_main(*logs, "--job_id", job)
        args = parse_args([*logs, *hidden, "--job_id", "7", "--epochs", "9"])
        self.assertIn("_job7/", args.resume, "a restarted job starts anew, or takes another's run")
        args = parse_args([*logs, "--job_id", "1"])
        self.assertIsNone(args.resume, "a new job took another's run")

    def refused(self, *flags: str) -> str:
        """What the command line says when it refuses the flags: one line, exit code 2."""
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as stop:
            parse_args(flags)
        self.assertEqual(stop.exception.code, 2)
        self.assertEqual(errors.getvalue().count("\n"), 1, "more than one line")
        return errors.getvalue()

    def test_files_that_are_no_checkpoint_are_refused(self):
        run, _ = self.run_once("run")
        whole = (run / CHECKPOINT).read_bytes()
        newer = {**load_checkpoint(run / CHECKPOINT), "format": FORMAT + 1}
        path = self.folder / "bad.pt"

        class Code:
            def __reduce__(self):
                return (os.mkdir, (str(path.with_name("executed")),))

        for content, reason in [
            (None, "No such file"),
            (b"", "damaged"),
            (whole[:5000], "damaged"),
            (whole[: len(whole) // 2], "damaged"),
            (whole[:-1], "damaged"),
            (b"a text\n" * 100, "damaged"),
            ({"weights": torch.ones(2)}, "no checkpoint of this program"),
            ([1, 2], "no checkpoint of this program"),
            ({"format": FORMAT, "model": Code()}, "carries code"),
            (newer, f"format {FORMAT + 1}"),
        ]:
            path.unlink(missing_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                torch.save(content, path)
            self.assertIn(reason, self.refused("--resume", str(path)))
        self.assertFalse((self.folder / "executed").exists(), "code in the file was run")

    def test_a_checkpoint_is_made_of_plain_things(self):
        run, _ = self.run_once("run")

        def kinds(value):
            yield type(value)
            if isinstance(value, dict | list | tuple):
                for item in value.values() if isinstance(value, dict) else value:
                    yield from kinds(item)

        allowed = {dict, list, str, int, float, bool, type(None), torch.Tensor}
        self.assertEqual(set(kinds(load_checkpoint(run / CHECKPOINT))) - allowed, set())

    def test_a_second_interrupt_stops_at_once(self):
        with StopSignals() as signals:
            os.kill(os.getpid(), SIGINT)
            self.assertEqual(signals.signal, SIGINT)
            self.assertEqual(getsignal(SIGINT), SIG_DFL, "the second Ctrl-C is swallowed, too")
        self.assertIs(getsignal(SIGINT), default_int_handler, "handlers outlive the run")

    def test_a_checkpoint_of_other_networks_is_refused(self):
        self.run_once("run", "--epochs", "1")

        def narrower(**options):
            return DiscriminatorMLP(**{**options, "hidden_dims": [7]})

        with (
            mock.patch("train_torch.DiscriminatorMLP", narrower),
            self.assertRaisesRegex(OSError, "does not fit models.py"),
        ):
            self.run_once("run", "--epochs", "2")

    def test_a_full_disk_leaves_the_last_checkpoint(self):
        path = self.folder / "checkpoints" / "c.pt"
        save_checkpoint(path, {"value": 1})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with self.assertRaisesRegex(OSError, "could not write .*c.pt"):
                save_checkpoint(path, {"value": torch.rand(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertEqual(load_checkpoint(path)["value"], 1, "the good checkpoint is lost")
        self.assertEqual([p.name for p in path.parent.iterdir()], ["c.pt"], "remains are left")

    def test_a_loss_that_is_not_finite_stops_the_run(self):
        for bad in (math.nan, math.inf):
            generator_step, steps = GAN.generator_step, itertools.count(1)

            def step(model, x_real, bad=bad, generator_step=generator_step, steps=steps):
                loss, values = generator_step(model, x_real)
                return (loss * bad, {"loss": loss * bad}) if next(steps) == 12 else (loss, values)

            with (
                mock.patch.object(GAN, "generator_step", step),
                self.assertRaisesRegex(
                    FloatingPointError, f"generator/loss became {bad} at step 12"
                ),
            ):
                self.run_once(f"bad_{bad}", "--save_every", "1", "--epochs", "3")
            contents = load_checkpoint(next((self.folder / f"bad_{bad}").iterdir()) / CHECKPOINT)
            self.assertEqual(contents["batches"]["epoch"], 1, "the last good checkpoint is lost")
            for name, weight in contents["model"].items():
                self.assertTrue(weight.isfinite().all(), f"{name} was saved broken")

    def test_command_ends_with_one_line_for_what_a_user_can_cause(self):
        a_file = self.folder / "file"
        a_file.touch()
        train = [sys.executable, train_torch.__file__]
        for flags, code, said in [
            (["--batch_size", "0"], 2, "--batch_size"),
            (["--log_dir", str(a_file)], 1, str(a_file)),
        ]:
            done = subprocess.run([*train, *flags], cwd=self.folder, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (code, ""), flags)
            self.assertRegex(done.stderr, rf"^train_torch.py: .*{said}[^\n]*\n$", "not one line")
        self.assertEqual(list(self.folder.iterdir()), [a_file], "something was made nevertheless")


class CommandLineTest(unittest.TestCase):
    def test_defaults(self):
        args = vars(parse_args([]))
        expected = {
            "z_dim": 32,
            "hidden_dims_gen": [128, 256, 512],
            "hidden_dims_disc": [512, 256],
            "dp_rate_gen": 0.1,
            "dp_rate_disc": 0.3,
            "lr": 2e-4,
            "batch_size": 128,
            "epochs": 250,
            "seed": 42,
            "num_workers": 0,
            "log_dir": "GAN_logs/",
            "data_dir": str(DATA_DIR),
            "save_every": 10,
            "precision": "fp32",
            "progress_bar": False,
        }
        self.assertEqual({name: args[name] for name in expected}, expected)

    def test_bf16_is_refused_where_the_device_has_none(self):
        with mock.patch("command_line.multiplies_bf16", lambda device: True):
            self.assertEqual(parse_args(["--precision", "bf16"]).precision, "bf16")
        errors = io.StringIO()
        with (
            mock.patch("command_line.multiplies_bf16", lambda device: False),
            contextlib.redirect_stderr(errors),
            self.assertRaises(SystemExit) as stop,
        ):
            parse_args(["--precision", "bf16", "--device", "cpu"])
        self.assertEqual(stop.exception.code, 2)
        self.assertRegex(errors.getvalue(), "^[^\n]*--precision: cpu [^\n]*'bf16'\n$")

    def test_hidden_dims_may_be_none(self):
        self.assertEqual(parse_args(["--hidden_dims_gen"]).hidden_dims_gen, [])

    def test_bad_values_are_refused_in_one_line(self):
        for flag, value in [
            ("--z_dim", "0"),
            ("--hidden_dims_gen", "0"),
            ("--hidden_dims_disc", "1e3"),
            ("--dp_rate_gen", "1.0"),
            ("--dp_rate_disc", "nan"),
            ("--lr", "0"),
            ("--lr", "inf"),
            ("--batch_size", "0"),
            ("--epochs", "many"),
            ("--seed", "5000000000"),
            ("--num_workers", "257"),
            ("--save_every", "0"),
            ("--device", "nonsense"),
            ("--device", "meta"),
            ("--precision", "fp8"),
        ]:
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as stop:
                parse_args([flag, value])
            self.assertEqual(stop.exception.code, 2, f"{flag} {value}")
            self.assertRegex(errors.getvalue(), rf"^[^\n]*{flag}: [^\n]*'{value}'[^\n]*\n$")


if __name__ == "__main__":
    unittest.main()
