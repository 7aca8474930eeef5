import contextlib
import os
import runpy
import sys
import types
from pathlib import Path
from unittest import mock

import torch

import checkpoint
import models
import train_torch
from tests.common import NOISE, RunTest, needs_shipped_models

HERE = Path(train_torch.__file__).parent


gradients = []  # one entry for each time that a gradient reaches the generator


class Generator(models.GeneratorMLP):
    """Notes when gradients reach it."""

    def forward(self, z):
        images = super().forward(z)
        if images.requires_grad:
            images.register_hook(gradients.append)
        return images


class FewBatches:
    """A loader of one batch an epoch, and of always the same random numbers after it."""

    dataset = None

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 1

    def __iter__(self):
        self.epoch += 1
        torch.manual_seed(self.epoch)
        yield NOISE[torch.randint(256, (32,))].double() / 127.5 - 1, None


@needs_shipped_models
class MinimalGANTest(RunTest):
    def setUp(self):
        super().setUp()
        torch.set_default_dtype(torch.float64)  # in float32, Adam enlarges rounding errors
        self.addCleanup(torch.set_default_dtype, torch.float32)

    def test_it_trains_as_train_torch_does(self):
        data = types.SimpleNamespace(mnist=lambda **_: FewBatches())
        train_torch.seed_everything(5)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        gradients.clear()
        noting = mock.patch("models.GeneratorMLP", Generator)
        with noting, mock.patch.dict(sys.modules, mnist=data), contextlib.redirect_stdout(None):
            minimal = runpy.run_path(str(HERE / "minimal_gan.py"))
        self.assertEqual(len(gradients), 50, "gradients reach G in D's step, too")
        self.assertTrue((self.directory / "minimal_gan.png").exists(), "no picture")
        flags = ["--seed=5", "--name=run", f"--log_dir={self.directory}", "--device=cpu"]
        with mock.patch("train_torch.mnist", data.mnist), contextlib.redirect_stdout(None):
            train_torch.main(train_torch.parse_args([*flags, "--precision=fp32"]))
        saved = checkpoint.load(self.directory / "run")
        for name, variable in [("generator", "G"), ("discriminator", "D"), ("averaged",) * 2]:
            found, expected = minimal[variable].state_dict(), saved[name]
            # (Losses of train_torch.py are float32; Adam enlarges the difference.)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4, msg=name)

    def test_the_readme_shows_it_to_the_letter(self):
        _, source = (HERE / "minimal_gan.py").read_text(encoding="utf-8").split('"""\n\n', 1)
        readme = (HERE / "README.md").read_text(encoding="utf-8")
        self.assertTrue(f"```python\n{source}```\n" in readme, "README.md shows something else")
