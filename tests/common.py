"""What the test files share: stand-ins for data and scores, and runs in a temporary directory."""

import io
import pkgutil
import tempfile
import time
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

import mnist
import models
import train_torch
from checkpoint import CHECKPOINT
from metrics import SCORES

torch.set_num_threads(1)  # the networks here are too small for more
needs_shipped_models = unittest.skipUnless(hasattr(models, "mlp"), "models.py was replaced")
needs_shipped_mnist = unittest.skipUnless(hasattr(mnist, "MNISTImages"), "mnist.py was replaced")
NOISE = torch.randint(256, (256, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
ALL_SCORES = dict.fromkeys([*SCORES, *(f"share_{digit}" for digit in range(10))], 0.1)


def noise_mnist(root="data", batch_size=64, num_workers=0, download=True):
    """Stands in for `mnist.mnist`: 256 images of noise."""
    dataset = TensorDataset(NOISE / 127.5 - 1, torch.arange(256) % 10)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers)


class OwnGAN(train_torch.GAN):
    """Own networks, with batch normalization, an own loss and an own way of sampling."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        layers = nn.BatchNorm1d(self.z_dim), nn.Linear(self.z_dim, 784), nn.Dropout(0.1), nn.Tanh()
        self.generator = nn.Sequential(*layers, nn.Unflatten(1, (1, 28, 28)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))

    def sample(self, batch_size, generator=None):
        return torch.ones(batch_size, 1, 28, 28)

    def generator_step(self, x_real):
        loss = -self.discriminator(self.generator(self.latents(len(x_real)))).mean()
        return loss, {"loss": loss.detach()}


def gray(image: Path | io.BytesIO) -> torch.Tensor:
    """The gray levels `[H, W]` of an image file."""
    return pil_to_tensor(Image.open(image).convert("L"))[0]


class TemporaryDirectoryTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def output(self, command, *flags) -> str:
        """What a command prints."""
        with redirect_stdout(io.StringIO()) as output:
            command([*map(str, flags)])
        return output.getvalue()

    def assert_rejected(self, reason: str, command, *flags) -> None:
        """A command has to reject its flags in one line, with exit status 2."""
        with redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as stop:
            command([*map(str, flags)])
        self.assertEqual(stop.exception.code, 2, f"exit status for {flags}")
        self.assertRegex(errors.getvalue(), rf"^[^\n]*{reason}[^\n]*\n$", f"{flags}: not one line")


class RunTest(TemporaryDirectoryTest):
    """Runs of small networks on 256 images: 4 steps an epoch, if nothing else is given."""

    def setUp(self):
        super().setUp()
        score = mock.Mock(side_effect=lambda images: ALL_SCORES | {"coverage": len(images)})
        digits = mock.Mock(return_value=(torch.arange(10), torch.full((10,), 0.1)))
        stand_ins = {"mnist": noise_mnist, "score": score, "category_digits": digits}
        mock.patch.multiple(train_torch, **stand_ins).start()
        self.addCleanup(mock.patch.stopall)

    def train(self, flags: str | list[str] = "", name: str = "run") -> Path:
        """Starts a run, or resumes it, printing to `self.printed`; its directory."""
        run = self.directory / name
        given = ["--log_dir", str(self.directory), "--name", name, "--device=cpu"]
        if (run / CHECKPOINT).exists():
            # TensorBoard reads event files by their names, which begin with the second.
            time.sleep(1 - time.time() % 1)
        else:
            given += ["--hidden_dims_gen=32", "--hidden_dims_disc=24", "--batch_size=64"]
        with redirect_stdout(io.StringIO()) as self.printed, redirect_stderr(self.printed):
            given += flags.split() if isinstance(flags, str) else flags
            train_torch.main(train_torch.parse_args(given))
        return run

    def kill(self, function: str, call: int, flags: str = "", name: str = "run") -> Path:
        """The same, killed when this function is called for the n-th time."""

        def die(*given, **options):
            if killed.call_count == call:
                raise KeyboardInterrupt
            return original(*given, **options)

        original = pkgutil.resolve_name(function)
        with mock.patch(function, autospec=True, side_effect=die) as killed:
            self.assertRaises(KeyboardInterrupt, self.train, flags, name)
        return self.directory / name
