from argparse import ArgumentTypeError
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageSequence
from torchvision.transforms.functional import pil_to_tensor

import checkpoint
import sample
from metrics import classify
from tests.common import RunTest, gray, needs_shipped_models
from train_torch import GAN
from utils import to_gray


class SampleTest(RunTest):
    def setUp(self):
        super().setUp()
        self.run_dir, self.path = self.train("--epochs 1"), self.directory / "out"

    def sample(self, *flags) -> Path:
        """The file that sample.py writes about the run."""
        printed = self.output(sample.main, self.run_dir, *flags, "--out", self.path)
        self.assertEqual(printed, f"{self.path}\n", "does not say what it has written")
        return self.path

    def test_grids(self):
        for name, *flags in [("samples",), ("interpolation", "--interpolate", "--grid", 16, 7)]:
            grid, trained = gray(self.sample(*flags)), gray(self.run_dir / f"{name}_epoch_0001.png")
            self.assertTrue(torch.equal(grid[1::3, 1::3], trained), f"{name}: not those of the run")
        grid = gray(self.sample("--raw", "--grid", 2, 3, "--scale", 1, "--seed", 1))
        self.assertEqual(grid.shape, (2 * 30 + 2, 3 * 30 + 2), "--grid is not ROWS COLUMNS")
        models = [GAN.from_checkpoint(self.run_dir, raw) for raw in (True, False)]
        for name, weights in models[1].named_children():
            saved = checkpoint.load(self.run_dir)[name]
            torch.testing.assert_close(dict(weights.state_dict()), saved, msg=f"{name} is another")
        raw, averaged = (to_gray(x.sample(6, torch.Generator().manual_seed(1)))[1] for x in models)
        self.assertTrue(torch.equal(grid[2:30, 32:60], raw[0]), "not of --seed and --raw")
        self.assertFalse(torch.equal(raw, averaged), "raw and averaged weights are the same")

    def test_a_row_for_each_category(self):
        grid = gray(self.sample("--categories", "--scale", 1, "--grid", 1, 4, "--seed", 1))
        self.assertEqual(grid.shape, (10 * 30 + 2, 4 * 30 + 2), "other rows or columns")
        model, rng = GAN.from_checkpoint(self.run_dir), torch.Generator().manual_seed(1)
        z = model.in_category(model.latents(4, rng), 7)
        row = grid[7 * 30 + 2 :][:28, 2:].unfold(1, 28, 30).movedim(1, 0)
        self.assertTrue(torch.equal(row, to_gray(model.generate(z))[:, 0]), "of other latents")
        run = self.train("--epochs 1 --categories 0", "without")
        reason = "argument --categories: this generator has none"
        self.assertRaisesRegex(ArgumentTypeError, reason, sample.main, [str(run), "--categories"])
        with self.assertRaisesRegex(ArgumentTypeError, "--digit: not allowed with --categories"):
            sample.main(["--categories", "--digit", "7"])

    def test_animation_is_a_closed_walk(self):
        walk, generate = [], GAN.generate
        spy = mock.patch.object(
            GAN, "generate", lambda self, z: walk.append(z) or generate(self, z)
        )
        with spy:
            path = self.sample("--animate", "--grid", 2, 3, "--scale", 1, "--seed", 1)
        model, rng = GAN.from_checkpoint(self.run_dir), torch.Generator().manual_seed(1)
        torch.testing.assert_close(walk[0], model.latents(6, rng), msg="does not begin at --seed")
        categories = torch.stack(walk)[..., :10].argmax(2).unique(dim=0)
        self.assertEqual(len(categories), 1, "digits leave their categories")
        with Image.open(path) as film:
            self.assertEqual((film.info["loop"], film.size), (0, (92, 62)), "no loop, other size")
            frames = [pil_to_tensor(x.convert("L")).float() for x in ImageSequence.Iterator(film)]
        steps = [(a - b).abs().mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
        self.assertTrue(0 < steps[-1] < 2 * max(steps[:-1]), "stands still, or jumps at the start")

    def test_arrays(self):
        with np.load(self.sample("--arrays", 1010, "--seed", 3)) as arrays:
            latents, images, labels = (arrays[name] for name in ("latents", "images", "labels"))
        model, rng = GAN.from_checkpoint(self.run_dir), torch.Generator().manual_seed(3)
        self.assertTrue(np.array_equal(latents, model.latents(1010, rng)), "not those of --seed")
        generated, images = model.generate(torch.from_numpy(latents)), torch.from_numpy(images)
        difference = to_gray(generated)[:, 0].int() - images
        self.assertLessEqual(difference.abs().max(), 1, "images are not those of the latents")
        predicted = classify(images[:, None])[1].argmax(1)
        self.assertTrue(np.array_equal(labels, predicted), "labels are not those of the images")

    @needs_shipped_models
    def test_one_digit(self):
        for flags in ([], ["--interpolate"]):
            flags = [*flags, "--digit", 7, "--grid", 4, 2, "--scale", 1, "--out", self.path]
            self.output(sample.main, *flags)
            images = gray(self.path)[2:, 2:].unfold(0, 28, 30).unfold(1, 28, 30).reshape(-1, 28, 28)
            confidence = classify(images[:, None])[1][:, 7]
            self.assertTrue(len(images) == 8 and confidence.min() > 0.9, f"not all 7: {flags}")
        model, own = GAN.from_checkpoint(), torch.randn(100, 32)
        model.latents = lambda batch_size, generator=None: own.repeat(10, 1)
        sample.only_digit(model, 7)
        found = model.latents(20)
        self.assertTrue((found[:, None] == own).all(2).any(1).all(), "not of the model's latents")
        never = {"return_value": (None, torch.zeros(1000, 10))}
        with mock.patch("sample.classify", **never), self.assertRaisesRegex(OSError, "confident 7"):
            sample.main(["--digit", "7", "--out", str(self.path)])

    def test_what_cannot_be_generated_is_rejected(self):
        with self.assertRaisesRegex(OSError, "checkpoint.pt: No such file"):
            sample.main([str(self.directory)])
        reason = "(averaged weights only|belongs to other networks)"  # the pretrained generator
        self.assertRaisesRegex(OSError, reason, sample.main, ["--raw"])
        self.sample("--seed", 2**64 - 1)
