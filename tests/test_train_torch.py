import copy
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import unittest
from argparse import ArgumentTypeError
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import benchmarks.gans
import checkpoint
import failures.provoke
import mnist
import train_torch
import utils
from benchmarks.common import scalars
from checkpoint import CHECKPOINT
from tests.common import ALL_SCORES, NOISE, OwnGAN, RunTest, gray, noise_mnist
from train_torch import GAN, parse_args, seed_everything, slerp

HERE, STEP = Path(train_torch.__file__).parent, "train_torch.GAN.update_average"
OWN = "--gan tests.common:OwnGAN"


class GANTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model, self.x_real = OwnGAN([8], [8], 0.0, 0.0, 3), torch.rand(6, 1, 28, 28)

    def train(self, steps: int, epochs: int = 1, **options) -> list[mock.Mock]:
        """Trains on the same batch, after 9 steps; returns stand-ins of the two loggers."""
        networks = self.model.generator, self.model.discriminator
        optimizers = [torch.optim.SGD(network.parameters(), lr=1.0) for network in networks]
        loggers, self.model.steps_done = [mock.Mock(step=0), mock.Mock(step=0)], 9
        for _ in range(epochs):
            batches = [(self.x_real, None)] * steps
            train_torch.train_gan(self.model, batches, *loggers, *optimizers, **options)
        self.assertEqual(self.model.steps_done, 9 + steps * epochs, "steps are not counted")
        return loggers

    def test_latents_begin_with_a_category(self):
        model, rng = GAN([8], [8], 0.0, 0.0, 7, categories=3), torch.Generator().manual_seed(0)
        z = model.latents(6000, rng)
        category, normal = z[:, :3], z[:, 3:]
        self.assertEqual({*category.unique().tolist()}, {0, 4}, "not one-hot of length 4")
        self.assertTrue((category.sum(1) == 4).all(), "not one category each")
        torch.testing.assert_close(category.mean(0), torch.full((3,), 4 / 3), rtol=0.1, atol=0)
        torch.testing.assert_close(normal.std(0), torch.ones(4), rtol=0.1, atol=0)
        moved = model.in_category(z[:2], torch.tensor([2, 0]))
        self.assertEqual(moved[:, :3].tolist(), [[0, 0, 4], [4, 0, 0]])
        self.assertTrue(torch.equal(moved[:, 3:], normal[:2]), "in another category, other numbers")
        widths = [
            GAN([8], [8], 0, 0, 7, categories=n).discriminator.layers[-1].in_features
            for n in (0, 3)
        ]
        self.assertEqual(widths, [8, 9], "no batch statistic, or without categories")
        with mock.patch(
            "train_torch.DiscriminatorMLP", lambda hidden_dims, dp_rate: nn.Linear(1, 1)
        ):
            GAN([8], [8], 0.0, 0.0, 7, categories=3)  # somebody else's has no batch statistic
        with self.assertRaisesRegex(ArgumentTypeError, "^--categories 10: more than --z_dim 3; "):
            GAN.from_args(parse_args(["--z_dim", "3"]))

    def test_purity_is_the_mean_share_of_the_most_frequent_digit(self):
        model, labels = (
            GAN([8], [8], 0.0, 0.0, 7, categories=2),
            torch.tensor([3, 3, 3, 5, 7, 7, 1, 2]),
        )
        found = None, F.one_hot(labels, 10)
        with mock.patch("train_torch.classify", return_value=found) as classify:
            digits, shares = train_torch.category_digits(model, 4, torch.Generator())
        self.assertEqual((digits.tolist(), shares.tolist()), ([3, 7], [0.75, 0.5]))
        (images,) = classify.call_args.args
        self.assertEqual(len(images), 8)
        found = mock.patch("train_torch.category_digits", return_value=(digits, shares))
        with found, mock.patch("train_torch.score", return_value={}):
            self.assertEqual(train_torch.score_samples(model, 40), {"purity": 0.625})

    def test_buffers_are_averaged_and_counts_copied(self):
        new, average = self.model.generator.state_dict(), self.model.averaged.state_dict()
        for name in new:
            new[name].fill_(1)
            average[name].zero_()
        self.model.steps_done = 20
        self.model.update_average()
        for name, value in average.items():
            expected = 1 / 5 if value.is_floating_point() else 1
            self.assertAlmostEqual(value.flatten()[0].item(), expected, 5, name)

    def test_the_average_is_of_the_generator_that_a_subclass_has_made(self):
        self.assertEqual(str(self.model.averaged), str(self.model.generator), "of another one")
        self.assertIs(self.model.averaged, self.model.averaged, "made again at each use")
        self.assertFalse(any(p.requires_grad for p in self.model.averaged.parameters()))
        for clone in (copy.deepcopy(self.model), pickle.loads(pickle.dumps(self.model))):
            torch.testing.assert_close(clone.state_dict(), self.model.state_dict())

    def test_the_penalty_is_at_every_8th_step_of_the_run(self):
        bias = self.model.discriminator[1].bias
        self.model.discriminator_step = lambda x: (0 * bias.sum(), {})
        self.model.gradient_penalty = lambda x: bias.sum() / self.model.r1
        for r1, moved in [(0.5, 2 * 8 / 2), (0, 0)]:
            self.model.r1, before = r1, bias.item()
            self.train(4, epochs=5)  # the steps 9 to 28
            self.assertAlmostEqual(before - bias.item(), moved, 4, f"not 8 times r1 / 2, {r1=}")

    def test_bf16_is_for_matmuls_alone(self):
        dtypes, backward = [], []
        layer = self.model.discriminator[1]
        layer.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
        layer.weight.register_hook(lambda _: backward.append(torch.is_autocast_enabled("cpu")))
        loggers = self.train(2, bf16=True)
        self.assertEqual({*dtypes}, {torch.bfloat16}, "autocast is not on")
        self.assertEqual({*backward}, {False}, "autocast is around backward, too")
        self.assertFalse(self.model.discriminator._forward_hooks, "a hook more for each epoch")
        for logger in loggers:
            losses = {call.args[0]["loss"].dtype for call in logger.add_values.mock_calls}
            self.assertEqual(losses, {torch.float32}, "losses are rounded to 8 bits")

    def test_bf16_is_for_processors_that_have_it(self):
        can = mock.patch("torch.cpu.get_capabilities", return_value={"amx_bf16": True}, create=True)
        with can:
            found = [train_torch.has_bf16(device) for device in ("cpu", "cuda:0")]
        self.assertEqual(found, [True, False])

    def test_without_bf16_there_is_no_autocast(self):  # of which MPS would warn
        with mock.patch("torch.autocast", side_effect=AssertionError):
            self.train(1)

    def test_images_are_generated_in_parts(self):
        sizes, latents = [], self.model.latents(1200)
        whole = self.model.averaged.eval()(latents)
        self.model.averaged.register_forward_hook(lambda *call: sizes.append(len(call[2])))
        torch.testing.assert_close(self.model.generate(latents), whole, msg="others, or reordered")
        self.assertLessEqual(max(sizes), 500, "memory grows with the number of images")

    def test_spherical_interpolation(self):
        start, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        for a, b, weight, expected in [
            (start, end, 0, start),
            (start, end, 1 / 3, 3 * torch.tensor([[0.75**0.5, 0.5]])),
            (start, start, 0.4, start),
            (start, -start, 0.5, 0 * start),
            (start[:, :1], 2 * start[:, :1], 0.5, 1.5 * start[:, :1]),
        ]:
            torch.testing.assert_close(slerp(a, b, weight), expected, msg=f"{a}, {b} at {weight}")

    def test_every_epoch_of_every_seed_has_its_own_random_numbers(self):
        numbers = set()
        for seed in [(1, 2), (1, 3), (2, 2), (2, 1), (1, 0), (1,), (1, 2)]:
            seed_everything(*seed)
            numbers |= {random.random(), np.random.rand(), torch.rand(()).item()}
        self.assertEqual(len(numbers), 3 * 5, "another epoch's or seed's, or not repeated")

    def test_a_class_of_ones_own_that_cannot_be_used_is_one_line(self):
        for name, reason in [
            ("gone:GAN", "No module named 'gone'"),
            ("models:Gone", "no attribute 'Gone'"),
            ("os:system", "issubclass"),
            ("torch.nn:Linear", "not a subclass of train_torch.GAN"),
            ("tests.test_train_torch:NarrowGAN", "unexpected keyword argument 'ema'"),
        ]:
            args = parse_args(["--gan", name])
            with self.assertRaisesRegex(Exception, f"^--gan {name}: .*{reason}.* beside [^\n]*$"):
                GAN.from_args(args)


def classes_of(page: str, directory: Path) -> list[str]:
    """The classes of a page's code, to the letter, in files of the directory: MODULE:CLASS."""
    found = []
    blocks = re.findall(r"(?s)```python\n(.*?)```", (HERE / page).read_text(encoding="utf-8"))
    for block in blocks:
        names = re.findall(r"^class (\w+)\(GAN\)", block, re.M)
        if names:
            module = f"of_{Path(page).parent.name}_{names[0]}"
            (directory / f"{module}.py").write_text(block)
            found += [f"{module}:{name}" for name in names]
    return found


class ColorGAN(OwnGAN):
    """Samples are red, after an epoch green."""

    def sample(self, batch_size, generator=None):
        images = -torch.ones(batch_size, 3, 8, 8)
        images[:, int(self.steps_done > 0)] = 1
        return images


class NarrowGAN(GAN):
    """Takes the arguments of the course's GAN alone."""

    def __init__(self, hidden_dims_gen, hidden_dims_disc, dp_rate_gen, dp_rate_disc, z_dim):
        super().__init__(hidden_dims_gen, hidden_dims_disc, dp_rate_gen, dp_rate_disc, z_dim)


class RunsTest(RunTest):
    def test_what_a_run_leaves_and_prints(self):
        run = self.train("--epochs 7 --save_every 4 --lr_disc 0.004 --betas 0.5 0.9")
        shapes = {"samples": (242, 242), "interpolation": (482, 212), "categories": (302, 302)}
        for tag, shape in shapes.items():
            files = [f"{tag}_epoch_000{epoch}.png" for epoch in (0, 1, 2, 3, 4, 5, 7)]
            self.assertEqual(sorted(p.name for p in run.glob(f"{tag}*")), files, "other grids")
            self.assertEqual(gray(run / files[-1]).shape, shape, f"{tag}: other rows or columns")
        saved, curves, printed = checkpoint.load(run), scalars(run), self.printed.getvalue()
        keys = "format epoch args generator discriminator averaged optimizer_gen optimizer_disc"
        self.assertEqual({*saved}, {*keys.split(), "path"}, "another schema")
        args = json.loads((run / "args.json").read_text())
        self.assertEqual(saved["args"], args, "args.json and the checkpoint differ")
        place = {"log_dir", "name", "device", "progress_bar"} & {*args}
        self.assertFalse(place, "a run that was moved, or is on another machine, cannot resume")
        for name, lr in [("optimizer_gen", 0.002), ("optimizer_disc", 0.004)]:
            (group,), states = saved[name]["param_groups"], saved[name]["state"]
            found = group["lr"], *group["betas"], states[0]["step"].item()
            self.assertEqual(found, (lr, 0.5, 0.9, 7 * 4), f"{name}: other rates or steps")
        steps = [step for step, _ in curves["generator/loss"]]
        self.assertEqual(steps, [4, 8, 12, 16, 20, 24, 28], "not a mean per epoch of 4 steps")
        self.assertGreater(curves["seconds_per_epoch"][0][1], 0)
        images = curves["quality/coverage"][0][1], curves["final/coverage"][0][1]
        self.assertEqual(images, (2000, 10_000), "scores of other numbers of images")
        scores = json.loads((run / "scores.json").read_text())
        found = scores["epochs"], scores["num_samples"], scores["seed"], scores["coverage"]
        self.assertEqual(found, (7, 10_000, 0, 10_000), "other last scores")
        self.assertAlmostEqual(scores["purity"], 0.1, 5)
        _, *on_the_way = curves["quality/coverage"]
        self.assertEqual(len(on_the_way), 5, "not scored at every grid")
        gen, disc = (curves[f"{name}/loss"][-1][1] for name in ("generator", "discriminator"))
        for text in (
            rf"^new run in {re.escape(str(run))}\n.*samples_epoch.*\nResume with: .* --name run\n",
            r'\nTensorBoard: tensorboard --logdir ".*" --samples_per_plugin images=',
            rf"\nepoch   7/7: G {gen:.3f} D {disc:.3f}, .* s/epoch, 0:00:00 left\n",
            rf"(?s)\nfrechet_distance .*\npurity +0\.1\n.*run.{utils.FILM}\n$",
        ):
            self.assertRegex(printed, text, "not printed")

    def test_flags_reach_networks_and_data(self):
        flags = (
            "--z_dim 3 --categories 2 --hidden_dims_gen 5 6 --hidden_dims_disc 7 --ema 7 --r1 0.7"
        )
        flags = f"{flags} --dp_rate_gen 0.2 --dp_rate_disc 0.4 --epochs 1".split()
        flags += ["--data_dir", str(self.directory)]
        model = GAN.from_args(parse_args(flags))
        found = str(model), model.z_dim, model.ema, model.r1, model.categories
        self.assertEqual(
            found,
            (str(GAN([5, 6], [7], 0.2, 0.4, 3, categories=2)), 3, 7, 0.7, 2),
            "other arguments",
        )
        loader = mock.Mock(side_effect=lambda root, batch_size, **_: noise_mnist())
        moved = mock.patch.object(TensorDataset, "to", create=True)
        with mock.patch("train_torch.mnist", loader), moved as to_device:
            self.train(flags, "here")
            to_device.assert_called_once_with(torch.device("cpu"))  # data on the model's device
            self.train([*flags, "--num_workers", "2"])
        self.assertEqual(to_device.call_count, 1, "workers cannot index what is on a device")
        given = {"root": str(self.directory), "batch_size": 64, "num_workers": 2}
        given["download"] = False
        self.assertEqual(loader.call_args.kwargs, given, "other data, batches or workers")
        self.assertIn("against MNIST", self.printed.getvalue(), "of what the scores are")

    def test_grids_are_of_the_same_latents_at_each_epoch(self):
        run = self.train("--epochs 2 --lr 1e-12")
        for tag in ("samples", "interpolation", "categories"):
            first, last = (gray(run / f"{tag}_epoch_000{epoch}.png").int() for epoch in (0, 2))
            self.assertLess((first - last).abs().max(), 2, f"{tag}: of other latents")

    def test_curves_reach_as_far_as_the_checkpoint(self):
        save, calls = checkpoint.save, []
        flush = mock.patch("utils.SummaryWriter.flush", lambda _: calls.append("flush"))
        saving = lambda *given, **options: calls.append("save") or save(*given, **options)  # noqa: E731
        with flush, mock.patch("checkpoint.save", saving):
            self.train("--epochs 2")
        epochs = " ".join(calls).count("flush save")
        self.assertEqual(epochs, 2, f"the event file is not written before it: {calls}")

    def test_images_of_another_shape_have_no_scores_and_keep_their_colors(self):
        run = self.train("--gan tests.test_train_torch:ColorGAN --epochs 1")
        self.assertIn("Scores:      none", self.printed.getvalue(), "not said")
        self.assertFalse((run / "scores.json").exists(), "scored")
        with Image.open(run / utils.FILM) as film:
            colors = [film.seek(n) or film.convert("RGB").getpixel((9, 9)) for n in (0, 1)]
        self.assertEqual(colors, [(255, 0, 0), (0, 255, 0)], "not the colors of the samples")

    def test_the_progress_bar_shows_losses_and_distance_in_80_columns(self):
        with mock.patch.dict(os.environ, {"COLUMNS": "81", "LINES": "9"}):
            self.train("--progress_bar --epochs 2 --batch_size 4")
        printed = self.printed.getvalue()
        losses = r"G \d+\.\d{3} D \d+\.\d{3}( \(D has won\))?"
        self.assertRegex(printed, rf"\repoch 1/2: [^\r]*{losses}\r")
        last = r"\repoch 2/2, distance 0.1: +100%[^\r]*\nfrechet_distance"
        self.assertRegex(printed, last, "not full, or not closed")
        self.assertNotIn("s/epoch", printed, "lines would tear the bar apart")
        self.assertNotIn("\x1b", printed, "movements of the cursor, which notebooks print")
        gen = mock.Mock(means={"loss": 11.9})
        with redirect_stdout(io.StringIO()) as line:
            train_torch.print_epoch(1, 3, 60.0, "means")
        self.assertEqual(line.getvalue(), "epoch   1/3: means, 60.0 s/epoch, 0:02:00 left\n")
        for real, fake, won in [(0.995, 0.002, True), (0.995, 0.02, False), (0.9, 0.002, False)]:
            disc = mock.Mock(means={"loss": 0, "probability_real": real, "probability_fake": fake})
            self.assertEqual("D has won" in train_torch.loss_text(gen, disc), won, disc.means)
        disc.means = {"loss": -3.0}  # a Wasserstein loss
        self.assertEqual(train_torch.loss_text(gen, disc), "G 11.900 D -3.000")

    def test_a_script_that_is_run_twice_in_a_notebook_and_fails(self):
        own = "from train_torch import GAN\nclass MyGAN(GAN): pass\n"
        (self.directory / "own_gan.py").write_text(own)
        flags = ["train_torch.py", "--gan", "own_gan:MyGAN", "--log_dir", __file__]
        code = f"import contextlib, runpy, sys\nsys.argv = {flags}\nfor _ in range(2):\n"
        code += "    with contextlib.suppress(SystemExit):\n"
        code += "        runpy.run_path('train_torch.py', run_name='__main__')\n"
        env = os.environ | {"PYTHONPATH": str(self.directory)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
        line = f"train_torch.py: [Errno 17] File exists: {__file__!r}\n"
        self.assertEqual(done.stderr, 2 * line, "not one line each, or another GAN")


class ResumeTest(RunTest):
    """Runs that are killed and resumed. Real processes: benchmarks/kill_and_resume.py."""

    def end(self, run: Path) -> dict:
        """All that a run leaves, but for times and places."""
        curves = {tag: x for tag, x in scalars(run).items() if "_per_" not in tag}
        files = [*run.glob("*.png"), run / utils.FILM, run / "scores.json"]
        files = {path.name: np.fromfile(path, np.uint8) for path in files}
        return checkpoint.load(run) | curves | files | {"args": 0, "path": 0}

    def assert_same_end(self, run: Path, end: dict, why: str) -> None:
        """It has to be equal, bit for bit."""
        text = lambda differences: f"{why}: {differences}"  # noqa: E731
        torch.testing.assert_close(self.end(run), end, rtol=0, atol=0, msg=text)

    @mock.patch("train_torch.CHECKPOINT_SECONDS", 0)
    def test_a_killed_run_ends_as_one_that_was_not(self):
        flags = "--epochs 5 --save_every 9 --batch_size 16"  # 16 steps an epoch
        straight = self.end(self.train(flags, "straight"))
        for number, (function, call, epoch) in enumerate(
            [
                ("checkpoint.save", 1, None),  # before there is one
                ("train_torch.interpolate_and_save", 1, 0),
                (STEP, 1, 0),
                (STEP, 75, 4),
                ("checkpoint.save", 3, 1),
                ("utils.log_scores", 5, 5),
                ("utils.save_film", 1, 5),
            ]
        ):
            run = self.kill(function, call, flags, f"killed{number}")
            found = checkpoint.load(run)["epoch"] if (run / CHECKPOINT).exists() else None
            self.assertEqual(found, epoch, "a checkpoint of another time")
            self.train(flags if found is None else "", run.name)  # the name alone is enough
            first = f"{epoch} of 5 epochs done" if epoch else "new run"
            line = f"^{first} in {re.escape(str(run))}\n"
            self.assertRegex(self.printed.getvalue(), line, "not said first")
            self.assert_same_end(run, straight, f"after a kill in call {call} of {function}")
            events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
            for tag in ("samples", "interpolation"):
                steps = [image.step for image in events.Images(tag)]
                self.assertEqual(steps, [16 * n for n in (0, 1, 2, 3, 5)], f"{tag}: other images")

    def test_a_run_can_be_extended_with_any_networks_and_in_a_worker(self):
        for gan in ("", OWN):
            flags = f"--decay_from 2 --num_workers 1 {gan}"
            straight = self.end(self.train(f"--epochs 4 {flags}", f"straight{gan[-3:]}"))
            run = self.train(f"--epochs 1 {flags}", f"run{gan[-3:]}")
            self.kill(STEP, 2, "--epochs 4", run.name)
            self.train("", run.name)  # to the 4 epochs of before
            self.assert_same_end(run, straight, f"with {flags}")
        saved = checkpoint.load(run)
        rates = [saved[f"optimizer_{x}"]["param_groups"][0]["lr"] for x in ("gen", "disc")]
        self.assertEqual(rates, [0.001, 0.0005], "other learning rates in epoch 4")
        corner = gray(run / "samples_epoch_0004.png")[2:30, 2:30]
        self.assertEqual(corner.min(), 255, "sample grids are not of the model's own sampling")

    def test_classes_of_the_pages_and_of_ours_can_be_killed_and_resumed(self):
        names = classes_of("README.md", self.directory)
        names += classes_of("failures/README.md", self.directory)
        self.assertEqual(len(names), 4, "other classes on the pages")
        for module in (benchmarks.gans, failures.provoke):
            own = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, GAN)]
            names += [f"{module.__name__}:{one.__name__}" for one in own if one is not GAN]
        self.assertEqual(len(names), 4 + 5, "other classes of ours")
        path = mock.patch.object(sys, "path", [str(self.directory), *sys.path])
        timed = mock.patch.dict(os.environ, {"TIMED_DIR": str(self.directory)})
        with path, timed, mock.patch("train_torch.score_samples", return_value=ALL_SCORES):
            for name in names:
                flags, run = f"--gan {name} --epochs 2 --precision bf16", name.replace(":", "-")
                straight = self.end(self.train(flags, f"straight-{run}"))
                self.kill("utils.TensorBoardLogger.add_values", 11, flags, run)  # in epoch 2
                self.assert_same_end(self.train(flags, run), straight, name)
                images = GAN.from_checkpoint(self.directory / run).sample(3)
                self.assertEqual(images.shape, (3, 1, 28, 28), name)

    def test_a_run_that_is_resumed_with_other_data_counts_its_steps(self):
        run = self.train("--epochs 2")  # 4 steps each
        more = TensorDataset(torch.cat([NOISE, NOISE]) / 127.5 - 1, torch.zeros(512))
        loader = mock.Mock(return_value=DataLoader(more, 64, shuffle=True))
        with mock.patch("train_torch.mnist", loader):
            self.train("--epochs 3")
        steps = [step for step, _ in scalars(run)["generator/loss"]]
        self.assertEqual(steps, [4, 8, 16], "curves are purged, or at steps of other data")

    def test_a_run_that_has_lost_its_checkpoint_is_not_begun_anew(self):
        run = self.train("--epochs 1")
        (run / CHECKPOINT).unlink()
        with self.assertRaisesRegex(ArgumentTypeError, "^[^\n]*run is a run without .*--name"):
            self.train("--epochs 1")
        self.assertFalse((run / CHECKPOINT).exists(), "begun anew")

    def test_a_mistyped_data_dir_is_one_line_and_stays_missing(self):
        gone = self.directory / "gone"
        missing = self.assertRaisesRegex(OSError, f"^[^\n]*{re.escape(str(gone))}[^\n]*$")
        with mock.patch("train_torch.mnist", mnist.mnist), missing:
            self.train(["--epochs", "1", "--data_dir", str(gone)])
        self.assertFalse(gone.exists() or (self.directory / "run").exists(), "made")

    def test_seed_and_precision_decide_the_weights(self):
        with mock.patch("train_torch.has_bf16", return_value=True):
            flags = {"auto": "", "seed": "--seed 1", "fp32": "--precision fp32"}
            flags["bf16"] = "--precision bf16"
            grids = {name: self.train(f"--epochs 3 {x}", name) for name, x in flags.items()}
        for epoch, one, other, equal in [
            (0, "auto", "seed", False),
            (3, "auto", "fp32", False),
            (3, "auto", "bf16", True),
        ]:
            a, b = (gray(grids[name] / f"samples_epoch_000{epoch}.png") for name in (one, other))
            self.assertEqual(torch.equal(a, b), equal, f"{one} and {other}")

    def test_hyperparameters_stay_those_of_the_run(self):
        here = ["--log_dir", str(self.directory)]
        early = parse_args([*here, "--name=run", "--epochs=1", "--z_dim=13"])
        run = self.train("--epochs 1 --save_every 4")
        with self.assertRaisesRegex(Exception, "--z_dim: the run has 32, not 13; .*--name"):
            train_torch.main(early)  # parsed when there was no such run
        flags = "--seed 1", "--lr 0.1", "--dp_rate_gen 0.5", "--categories 0", OWN, "--ema 9"
        for flag in (*flags, "--batch_size 32", "--r1 0.5", "--decay_from 3"):
            reason = f"^argument {flag.split()[0]}: the run has .*, not {flag.split()[1]}; "
            with self.assertRaisesRegex(Exception, reason):
                self.train(flag)
        moved = run.rename(self.directory / "moved")
        contents = torch.load(moved / CHECKPOINT, weights_only=True)
        contents["args"] |= {"bf16": True, "device": "cuda:0", "log_dir": "/gone"}  # as once saved
        del contents["args"]["r1"]  # a hyperparameter that an earlier version had not
        torch.save(contents, moved / CHECKPOINT)
        args = parse_args([*here, "--name=moved", "--epochs=2"])
        found = args.epochs, args.save_every, *args.hidden_dims_gen, args.name, args.log_dir
        expected = 2, 4, 32, "moved", str(self.directory)
        self.assertEqual(found, expected, "flags or the run's own arguments are lost")
        self.assertNotEqual(args.device, "cuda:0", "cannot be resumed on another machine")
        flags = "--num_workers 1 --save_every 3 --precision fp32 --epochs 2 --data_dir /x"
        self.train(flags, "moved")
        self.assertEqual(json.loads((moved / "args.json").read_text())["epochs"], 2)
        with self.assertRaisesRegex(Exception, "^argument --epochs: 2 are done, more than 1; "):
            self.train("--epochs 1", "moved")

    def test_a_diverged_run_keeps_its_last_checkpoint(self):
        run = self.train("--epochs 1")
        with mock.patch("utils.DIVERGED", 1e-3), self.assertRaises(FloatingPointError):
            self.train("--epochs 2 --progress_bar")
        self.assertRegex(self.printed.getvalue(), "\repoch 2/2: +50%", "the bar starts at 0")
        self.assertEqual(checkpoint.load(run)["epoch"], 1, "diverged weights were saved")
