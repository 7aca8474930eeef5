import copy
import io
import json
import os
import random
import runpy
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

import train_torch
import utils
from benchmarks.common import scalars
from checkpoint import CHECKPOINT, load_checkpoint
from tests.common import RunTest, gray, noise_mnist
from train_torch import GAN, parse_args, seed_everything, slerp

DIFFERENT = "args", "data", "model", "path", "token"  # in the checkpoints of equal runs
HERE, STEP = Path(train_torch.__file__).parent, "train_torch.GAN.update_average"


class OwnGAN(GAN):
    """Own networks, with batch normalization, and an own way of sampling."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        layers = nn.BatchNorm1d(self.z_dim), nn.Linear(self.z_dim, 784), nn.Dropout(0.1), nn.Tanh()
        self.generator = nn.Sequential(*layers, nn.Unflatten(1, (1, 28, 28)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
        self.averaged = copy.deepcopy(self.generator)

    def sample(self, batch_size, generator=None):
        return torch.ones(batch_size, 1, 28, 28)


class GANTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model, self.x_real = OwnGAN([8], [8], 0.0, 0.0, 3), torch.rand(6, 1, 28, 28)

    def train(self, steps: int, epochs: int = 1, **options) -> list[mock.Mock]:
        """Trains on the same batch, after 9 steps; returns stand-ins of the two loggers."""
        networks = self.model.generator, self.model.discriminator
        optimizers = [torch.optim.SGD(network.parameters(), lr=1.0) for network in networks]
        loggers, loader = [mock.Mock(step=9), mock.Mock(step=9)], [(self.x_real, None)] * steps
        for logger in loggers:
            logger.add_values.side_effect = lambda _, own=logger: setattr(own, "step", own.step + 1)
        for _ in range(epochs):
            train_torch.train_gan(self.model, loader, *loggers, *optimizers, **options)
        return loggers

    def test_average(self):
        new, average = self.model.generator.state_dict(), self.model.averaged.state_dict()
        for ema, steps_done, weight in [(99, 0, 1), (99, 20, 1 / 5), (3, 100, 1 / 4), (0, 7, 1)]:
            self.model.ema = ema
            for name in new:
                new[name].fill_(1)
                average[name].zero_()
            self.model.update_average(steps_done)
            for name, value in average.items():
                expected = weight if value.is_floating_point() else 1
                self.assertAlmostEqual(value.flatten()[0].item(), expected, 5, f"{name} {ema=}")
        for ema, steps, weight in [(99, 1, 1 / (1 + 9 / 5)), (0, 2, 1)]:
            self.model.ema, average["1.bias"][:] = ema, 0
            self.train(steps)
            expected = weight * new["1.bias"]
            torch.testing.assert_close(average["1.bias"], expected, msg="not of every step so far")

    def test_gradient_penalty(self):
        weight, bias = self.model.discriminator[1].parameters()
        penalty = self.model.gradient_penalty(self.x_real)
        self.assertAlmostEqual(penalty.item(), weight.square().sum().item(), 5, "not R1")
        penalty.backward()
        torch.testing.assert_close(weight.grad, 2 * weight.detach(), msg="does not train D")
        self.model.discriminator_step = lambda x: (0 * bias.sum(), {})
        self.model.gradient_penalty = lambda x: bias.sum() / self.model.r1
        for r1, moved in [(0.5, 2 * 8 / 2), (0, 0)]:
            self.model.r1, before = r1, bias.item()
            self.train(4, epochs=5)  # the steps 9 to 28
            message = f"with r1={r1} not r1 / 2, 8 times at every 8th step of the run"
            self.assertAlmostEqual(before - bias.item(), moved, 4, message)

    def test_discriminator_probabilities(self):
        self.model.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Dropout(0.9))
        nn.init.constant_(self.model.discriminator[1].weight, 1 / 784)  # the mean, and no dropout
        nn.init.zeros_(self.model.discriminator[1].bias)
        black = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
        means = train_torch.discriminator_probabilities(self.model, black, torch.ones(2, 1, 28, 28))
        expected = {"training": 0.268941, "test": 0.731059, "samples": 0.731059}
        self.assertEqual({k: round(v, 6) for k, v in means.items()}, expected)

    def test_bf16_is_for_matmuls_alone(self):
        dtypes, backward = [], []
        layer = self.model.discriminator[1]
        layer.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
        layer.weight.register_hook(lambda _: backward.append(torch.is_autocast_enabled("cpu")))
        loggers = self.train(2, bf16=True)
        self.assertEqual({*dtypes}, {torch.bfloat16}, "autocast is not on")
        self.assertEqual({*backward}, {False}, "autocast is around backward, too")
        for logger in loggers:
            losses = {call.args[0]["loss"].dtype for call in logger.add_values.mock_calls}
            self.assertEqual(losses, {torch.float32}, "losses are rounded to 8 bits")

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


class RunsTest(RunTest):
    def test_what_a_run_leaves_and_prints(self):
        run = self.train("--epochs 7 --save_every 4 --name first --lr_disc 0.004 --betas 0.5 0.9")
        for tag, shape in [("samples", (242, 242)), ("interpolation", (482, 212))]:
            files = [f"{tag}_epoch_000{epoch}.png" for epoch in (0, 1, 2, 3, 4, 5, 7)]
            self.assertEqual(sorted(p.name for p in run.glob(f"{tag}*")), files, "other grids")
            self.assertEqual(gray(run / files[-1]).shape, shape, f"{tag}: other rows or columns")
        saved, curves, printed = load_checkpoint(run), scalars(run), self.printed.getvalue()
        keys = "format epoch args generator discriminator averaged optimizer_gen optimizer_disc"
        keys += " model data token"
        self.assertEqual({*saved}, {*keys.split(), "path"}, "another schema")
        args = json.loads((run / "args.json").read_text())
        self.assertEqual(saved["args"], args, "args.json and the checkpoint differ")
        for name, lr in [("optimizer_gen", 0.002), ("optimizer_disc", 0.004)]:
            (group,), states = saved[name]["param_groups"], saved[name]["state"]
            found = group["lr"], *group["betas"], states[0]["step"].item()
            self.assertEqual(found, (lr, 0.5, 0.9, 7 * 4), f"{name}: other rates or steps")
        steps = [step for step, _ in curves["generator/loss"]]
        self.assertEqual(steps, [4, 8, 12, 16, 20, 24, 28], "not a mean per epoch of 4 steps")
        self.assertGreater(curves["seconds_per_epoch"][0][1], 0)
        images = curves["quality/kid"][0][1], curves["final/kid"][0][1]
        self.assertEqual(images, (2000, 10_000), "scores of other numbers of images")
        training, test, samples = (
            curves[f"probability/{name}"] for name in ("training", "test", "samples")
        )
        self.assertEqual(training, test, "D(x) of other images: both have the same ones here")
        self.assertNotEqual(test, samples, "D(x) of samples is that of real images")
        self.assertEqual([s for s, _ in test], [s for s, _ in curves["quality/kid"]], "other steps")
        gen, disc = (curves[f"{name}/loss"][-1][1] for name in ("generator", "discriminator"))
        for text in (
            rf"\nepoch   7/7: G {gen:.3f} D {disc:.3f}, .* s/epoch, 0:00:00 left\n",
            rf"(?s)--samples_per_plugin images=.* --resume {run.as_posix()}\n",
            rf"(?s)\nfrechet_distance .*_first.checkpoints.{CHECKPOINT.name}\n$",
        ):
            self.assertRegex(printed, text, "not printed")

    def test_flags_reach_networks_and_data(self):
        flags = "--z_dim 3 --hidden_dims_gen 5 6 --hidden_dims_disc 7 --ema 7 --r1 0.7"
        flags += f" --dp_rate_gen 0.2 --dp_rate_disc 0.4 --data_dir {self.directory}"
        model = GAN.from_args(parse_args(flags.split()))
        found = str(model), model.z_dim, model.ema, model.r1
        self.assertEqual(found, (str(GAN([5, 6], [7], 0.2, 0.4, 3)), 3, 7, 0.7), "other arguments")
        ordinary = mock.Mock(side_effect=lambda root, batch_size, **_: noise_mnist())
        with mock.patch("train_torch.mnist", ordinary):
            self.train(f"{flags} --epochs 1 --num_workers 2")
        given = {"root": str(self.directory), "batch_size": 64, "num_workers": 2}
        given["download"] = True
        self.assertEqual(ordinary.call_args.kwargs, given, "other data, batches or workers")
        self.assertIn("Scores:      none (", self.printed.getvalue(), "no test images, not said")

    def test_curves_reach_as_far_as_the_checkpoint(self):
        calls = mock.Mock()
        flush = mock.patch("train_torch.SummaryWriter.flush", calls.flush)
        with flush, mock.patch("train_torch.Checkpoint.save", calls.save):
            self.train("--epochs 1")
        names = [call[0] for call in calls.mock_calls]
        self.assertEqual(names[names.index("save") :][:3], ["save", "flush", "save"])

    def test_progress_bars_show_both_losses_in_80_columns(self):
        with mock.patch.dict(os.environ, {"COLUMNS": "81", "LINES": "9"}):
            self.train("--progress_bar --epochs 2 --batch_size 4")
        printed = self.printed.getvalue()
        self.assertRegex(printed, r"\rsteps: .*/64 .*G \d+\.\d{3} D \d+\.\d{3}( \(D has won\))?\]")
        self.assertRegex(printed, r"\repochs: 100%.* 2/2 [^\r]*\]\n[^\r]*Film:", "full, closed")
        self.assertNotIn("s/epoch", printed, "lines would tear the bars apart")
        gen, disc = mock.Mock(means={"loss": 11.9}), mock.Mock(means={"loss": 0.004})
        self.assertIn("D has won", train_torch.loss_text(gen, disc), "D's victory is not named")

    def test_a_run_that_fails_ends_with_one_line(self):
        flags = ["train_torch.py", f"--log_dir={self.directory}/logs"]
        no_data = mock.patch("mnist.mnist", side_effect=OSError("no data"))
        with no_data, mock.patch("sys.argv", flags), self.assertRaises(SystemExit) as stop:
            runpy.run_path(str(HERE / "train_torch.py"), run_name="__main__")
        self.assertEqual(stop.exception.code, "train_torch.py: no data", "not one line")
        self.assertEqual([*self.directory.iterdir()], [], "a run directory was created")

    def test_openmp_is_told_not_to_spin_before_torch_is_loaded(self):
        code = "import os, sys; sys.modules['torch'] = None\ntry: import train_torch\n"
        code += "except ImportError: print(os.environ['GOMP_SPINCOUNT'])"
        for given, expected in [({}, b"20000"), ({"GOMP_SPINCOUNT": "7"}, b"7")]:
            env = {"PATH": os.environ["PATH"]} | given
            printed = subprocess.check_output([sys.executable, "-c", code], cwd=HERE, env=env)
            self.assertEqual(printed.strip(), expected, "not set before the import, or overwritten")

    def test_trains_without_what_only_posix_has(self):
        code = """if True:
            import os, sys, unittest
            sys.modules.update(dict.fromkeys(("resource", "fcntl", "pwd", "grp", "termios")))
            vars(os).pop("sched_getaffinity", None), vars(os).pop("getloadavg", None)
            test = "RunsTest.test_what_a_run_leaves_and_prints"
            unittest.main("tests.test_train_torch", argv=["", test])"""
        done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True)
        self.assertEqual(done.returncode, 0, f"does not run on Windows: {done.stderr}")


class ResumeTest(RunTest):
    """Runs that are killed and resumed. Real processes: benchmarks/kill_and_resume.py."""

    def assert_same_end(self, resumed: Path, straight: Path, why: str) -> None:
        """All that the runs leave has to be equal, bit for bit."""
        ends = []
        for run in (resumed, straight):
            curves = {tag: x for tag, x in scalars(run).items() if "_per_" not in tag}
            files = [*run.glob("*.png"), run / "progress.gif", run / "scores.json"]
            files = {path.name: np.fromfile(path, np.uint8) for path in files}
            ends.append(load_checkpoint(run) | curves | files | dict.fromkeys(DIFFERENT, 0))
        torch.testing.assert_close(*ends, rtol=0, atol=0, msg=lambda text: f"{why}: {text}")

    def test_seed_and_precision_decide_the_weights(self):
        with mock.patch("command_line.supports_bf16", return_value=True):
            flags = "", "--seed 1", "--precision fp32", "--precision bf16"
            auto, seed, fp32, bf16 = (self.train(f"--epochs 3 {x}") for x in flags)
        for epoch, run, other in [(0, auto, seed), (3, auto, fp32)]:
            a, b = (gray(of / f"samples_epoch_000{epoch}.png") for of in (run, other))
            self.assertFalse(torch.equal(a, b), "--seed or --precision has no effect")
        a, b = (gray(run / "samples_epoch_0003.png") for run in (auto, bf16))
        self.assertTrue(torch.equal(a, b), "auto is not bf16 where it is supported")

    def test_precision_is_chosen_again(self):
        run = self.train("--epochs 1 --precision fp32")
        args = "--resume", str(run), "--epochs", "2", "--device", "cpu"
        with mock.patch("command_line.supports_bf16", return_value=True):
            self.assertEqual(self.output(parse_args, *args), "", "fp32 was asked for, and is kept")
            self.assertIn("Precision:", self.output(parse_args, *args, "--precision", "auto"))

    @mock.patch("train_torch.CHECKPOINT_SECONDS", 0)
    def test_a_killed_run_ends_as_one_that_was_not(self):
        flags = "--epochs 5 --save_every 9 --batch_size 16"  # 16 steps an epoch
        straight = self.train(flags)
        for function, call, epoch in [
            (STEP, 1, 0),
            (STEP, 75, 4),
            ("checkpoint.Checkpoint.save", 3, 1),
            ("utils.save_scores", 1, 5),
            ("utils.save_film", 1, 5),
        ]:
            run = self.kill(function, call, flags)
            self.assertEqual(load_checkpoint(run)["epoch"], epoch, "a checkpoint of another time")
            self.assertEqual(self.train(resumed=run), run, "resumed in another directory")
            self.assert_same_end(run, straight, f"after a kill in call {call} of {function}")

    def test_a_run_can_be_extended_with_any_networks_and_in_a_worker(self):
        flags = "--decay_from 2 --num_workers 1"
        for gan in (GAN, OwnGAN):
            straight = self.train(f"--epochs 4 {flags}", gan=gan)
            run = self.train(f"--epochs 1 {flags}", gan=gan)
            self.kill(STEP, 2, "--epochs 4", run, gan)
            self.train(resumed=run, gan=gan)  # to the 4 epochs of before
            self.assertIn("after epoch 1", self.printed.getvalue(), "does not say where it goes on")
            self.assert_same_end(run, straight, f"with {gan.__name__} and {flags}")
        saved = load_checkpoint(run)
        rates = [saved[f"optimizer_{x}"]["param_groups"][0]["lr"] for x in ("gen", "disc")]
        self.assertEqual(rates, [0.001, 0.0005], "other learning rates in epoch 4")
        corner = gray(run / "samples_epoch_0004.png")[2:30, 2:30]
        self.assertEqual(corner.min(), 255, "sample grids are not of the model's own sampling")
        self.assertRaisesRegex(OSError, "run of OwnGAN", self.train, "--epochs 5", run)

    def test_only_what_changes_the_result_must_agree(self):
        path = self.train("--epochs 1") / CHECKPOINT
        for flag in ("--lr=0.1", "--seed=1", "--z_dim=3", "--dp_rate_gen=0.5", "--name=other"):
            reason = f"argument {flag.replace('=', ': the run has .*, not ')}"
            self.assert_rejected(reason, parse_args, "--resume", path, flag)
        contents = torch.load(path, weights_only=True)
        contents["args"] |= {"device": "cuda:0", "progress_bar": True, "num_workers": 7}
        torch.save(contents, path)
        args = parse_args(f"--resume {path} --epochs=2 --lr 2e-3 --num_workers 1".split())
        found = args.epochs, args.num_workers, *args.hidden_dims_gen, args.progress_bar, args.resume
        self.assertEqual(
            found, (2, 1, 32, False, str(path.parents[1])), "flags or arguments are lost"
        )
        self.assertNotEqual(args.device, "cuda:0", "cannot be resumed on another machine")
        path = path.rename(self.directory / "other.pt")
        self.assert_rejected("not in a run directory", parse_args, "--resume", path)

    def test_a_finished_run_its_job_and_a_diverged_one(self):
        run = self.train("--epochs 1 --job_id 7 --name x")
        reason = "finished 1 epochs.*--epochs.* new run.*"
        self.assert_rejected(reason, parse_args, f"--log_dir={run.parent}", "--job_id=7")
        named = self.train("--epochs 1 --name lr_job8")
        named.rename(run.parent / named.name)
        flags = [f"--log_dir={run.parent}", "--epochs", "2", "--job_id"]
        self.assertEqual(parse_args([*flags, "7"]).resume, str(run), "does not resume its own run")
        for job in ("17", "8"):
            self.assertIsNone(parse_args([*flags, job]).resume, "a new job took another's run")
        other = run.parent / "a_job8" / CHECKPOINT
        other.parent.mkdir(parents=True)
        other.touch()
        self.assert_rejected("corrupted", parse_args, *flags, "8")
        run = self.train("--epochs 1")
        with self.assertRaises(SystemExit) as stop:
            self.train(resumed=run)
        self.assertRegex(self.printed.getvalue(), "finished 1 epochs.*--epochs", "how to go on?")
        self.assertEqual(stop.exception.code, 0, "resuming a finished run is not a failure")
        with mock.patch("utils.DIVERGED", 1e-3), self.assertRaises(FloatingPointError):
            self.train("--epochs 2 --progress_bar", run)
        self.assertRegex(self.printed.getvalue(), "epochs: +50%.* 1/2 ", "the bar starts at 0")
        self.assertEqual(load_checkpoint(run)["epoch"], 1, "diverged weights were saved")

    def test_other_data_are_rejected_and_nothing_is_downloaded(self):
        def other_mnist(root=None, download=True, **options):
            self.assertFalse(download, "a resumed run downloads")
            loader = noise_mnist(**options)
            loader.dataset.images = loader.dataset.images.flip(0)
            return loader

        run = self.train("--epochs 1")
        other = mock.patch("train_torch.mnist", other_mnist)
        with other, self.assertRaisesRegex(OSError, "^[^\n]*run on other data[^\n]*$"):
            self.train("--epochs 2", run)
        self.addCleanup(os.chdir, HERE)
        for directory, resumed in [(run, "."), (run / "checkpoints", "model_checkpoint.pt")]:
            os.chdir(directory)
            found = parse_args(["--resume", resumed, "--epochs=2"]).resume
            self.assertEqual(found, str(run), f"--resume {resumed} in {directory}")

    def test_what_fails_after_training_costs_nothing(self):
        def few(train=True, **options):
            loader = noise_mnist(**options)
            if not train:
                loader.dataset.images = loader.dataset.images[:5]
            return loader

        with mock.patch("train_torch.mnist", few):
            run = self.train("--epochs 1")
        self.assertIn("Scores:      none (test", self.printed.getvalue(), "5 test images: not said")
        (run / utils.FILM).unlink()
        (run / "samples_epoch_0000.png").write_bytes(b"cut short")
        with self.assertRaisesRegex(OSError, "is corrupted"):
            self.train(resumed=run)
        (run / "samples_epoch_0000.png").unlink()
        self.train(resumed=run)
        self.assertTrue((run / utils.FILM).exists(), "the film of a finished run is not made")

        def broken(train, download):
            raise TypeError("a bug")

        def listed(train, **options):
            loader = noise_mnist(**options)
            loader.dataset.images = [*loader.dataset.images]
            return loader

        with mock.patch("train_torch.mnist", listed):
            self.assertRaisesRegex(OSError, "no tensor `images`", train_torch.load_reference)
        with (
            mock.patch("train_torch.mnist", broken),
            self.assertRaisesRegex(TypeError, "a bug", msg="hides a bug of mnist.py"),
        ):
            train_torch.load_reference()

    def test_closed_streams(self):
        flags = f"--log_dir {self.directory} --epochs 1 --progress_bar --device cpu"
        with mock.patch.multiple(sys, stdout=None, stderr=None):
            train_torch.main(parse_args(flags.split()))
        self.assertTrue((self.last_run() / utils.FILM).exists(), "did not come to its end")

    def test_a_model_can_be_pickled(self):
        model = copy.deepcopy(train_torch.GAN([8], [8], 0.0, 0.0, 3))
        torch.save(model, buffer := io.BytesIO())
        self.assertGreater(len(buffer.getvalue()), 1000)
