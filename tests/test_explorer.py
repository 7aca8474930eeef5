import base64
import io
import json
from pathlib import Path

import torch
from torch import nn

from checkpoint import CHECKPOINT
from explorer import export
from metrics import classify
from tests.common import NOISE, TemporaryDirectoryTest, gray, needs_shipped_models
from train_torch import CATEGORY_LENGTH, GAN, PRETRAINED, category_digits
from utils import image_grid

READY = export.TEMPLATE.with_name("explorer.html")


@needs_shipped_models
class ExplorerTest(TemporaryDirectoryTest):
    def data(self, page: Path) -> dict:
        """What is in a page besides the template."""
        before, after = export.TEMPLATE.read_text(encoding="utf-8").split("{{DATA}}")
        text = page.read_text(encoding="utf-8")
        self.assertNotRegex(text.replace("data:image", ""), "https?:|src=[^d]", "not offline")
        self.assertTrue(text.startswith(before) and text.endswith(after), "another template")
        data = text.removeprefix(before).removesuffix(after)
        self.assertFalse("<" in data, "the data may end the script that holds them")
        return json.loads(data)

    def test_the_page_of_a_run_is_like_the_ready_one(self):  # which explorer/check.py checks
        run, path = self.directory / "a <run>", self.directory / "page"
        (run / CHECKPOINT).parent.mkdir(parents=True)
        (run / CHECKPOINT).write_bytes(PRETRAINED.read_bytes())
        epochs = [0, 5, 9995, 10000]
        for epoch in epochs:
            grid = image_grid(NOISE[epoch % 7 :][:100], 10)
            grid.save(run / f"samples_epoch_{epoch:04d}.png")
        printed = self.output(export.main, run, "--out", path)
        self.assertEqual(printed, f"{path}\n", "does not say what it has written")
        self.assertLess(READY.stat().st_size, 2e6, "too large")
        ready, data = self.data(READY), self.data(path)
        for name in ("sizes", "weights", "latents"):
            self.assertEqual(ready[name], data[name], f"explorer.html has other {name}")
        self.assertEqual((ready["training"], data["title"]), ([], "a <run>"), "another run")
        directions = torch.tensor(data["directions"])
        self.assertTrue((directions[:, :10] == 0).all(), "directions leave the category")
        self.assertEqual(data["length"], CATEGORY_LENGTH)
        shown = [epoch for epoch, _ in data["training"]]
        self.assertEqual(shown, epochs, "not all grids, or in another order")
        for epoch, url in data["training"]:
            image = io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))
            expected = gray(run / f"samples_epoch_{epoch:04d}.png")
            self.assertTrue(gray(image).equal(expected), f"not the grid of epoch {epoch}")

    def test_buttons_are_categories_or_show_confident_digits(self):
        model = GAN.from_checkpoint()
        names, _ = category_digits(model, 1000, torch.Generator().manual_seed(1))
        self.assertEqual(self.data(READY)["categories"], names.tolist(), "other names")
        digits = export.digit_latents(model)  # which a generator without categories has
        self.assertEqual([len(latents) for latents in digits], [8] * 10, "not 8 per digit")
        _, probabilities = classify(model.generate(torch.tensor(digits).flatten(0, 1)))
        confident = probabilities.unflatten(0, (10, 8)).diagonal(dim1=0, dim2=2)
        self.assertGreater(confident.min().item(), 0.9, "another digit, or none")

    def test_a_digit_that_is_not_generated_has_no_latents(self):
        model = GAN.from_checkpoint()
        latent = torch.tensor(export.digit_latents(model)[7][0])
        with torch.no_grad():  # all images are that of one latent, a 7
            first = model.averaged.layers[0]
            first.bias += first.weight @ latent
            first.weight.zero_()
        counts = [len(latents) for latents in export.digit_latents(model)]
        self.assertEqual(counts, [0, 0, 0, 0, 0, 0, 0, 8, 0, 0], "not only sevens")

    def test_generators_that_the_page_cannot_compute_are_rejected(self):
        other, broken = GAN.from_checkpoint(), GAN([8], [8], 0.0, 0.0, 8)
        other.averaged.layers[2] = nn.LeakyReLU(0.1)
        nn.init.constant_(broken.averaged.layers[0].bias, torch.nan)
        self.assertRaisesRegex(OSError, "linear", export.explorer, other, PRETRAINED)
        self.assertRaisesRegex(FloatingPointError, "NaN", export.explorer, broken, PRETRAINED)
