import base64
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from checkpoint import CHECKPOINT
from explorer import export
from tests.common import TemporaryDirectoryTest, needs_shipped_models
from train_torch import GAN, PRETRAINED


@needs_shipped_models
class ExplorerTest(TemporaryDirectoryTest):
    def test_the_ready_page_and_that_of_a_run_hold_the_generator(self):
        run, page = self.directory / "run", self.directory / "page.html"
        (run / CHECKPOINT).parent.mkdir(parents=True)
        (run / CHECKPOINT).write_bytes(PRETRAINED.read_bytes())
        (run / "progress.gif").write_bytes(b"a film")
        printed = self.output(export.main, run, "--out", page)
        self.assertEqual(printed, f"{page}\n", "does not say what it has written")
        before, after = export.TEMPLATE.read_text(encoding="utf-8").split("{{DATA}}")
        parameters = [p.flatten() for p in GAN.from_checkpoint().averaged.parameters()]
        for path in (export.TEMPLATE.with_name("explorer.html"), page):
            text = path.read_text(encoding="utf-8")
            self.assertNotRegex(text.replace("data:image", ""), "https?:|src=[^d]", "not offline")
            self.assertTrue(text.startswith(before) and text.endswith(after), "another template")
            data = json.loads(text.removeprefix(before).removesuffix(after))
            weights = np.frombuffer(base64.b64decode(data["weights"]), np.float16)
            same = np.array_equal(weights, torch.cat(parameters).half().numpy())
            self.assertTrue(same, "another generator")
        film = "data:image/gif;base64," + base64.b64encode(b"a film").decode()
        self.assertEqual((data["title"], data["film"]), ("run", film), "another title or film")

    def test_generators_that_the_page_cannot_compute_are_rejected(self):
        other = GAN.from_checkpoint()
        other.averaged.layers[2] = nn.LeakyReLU(0.1)
        large = GAN([8, 2000], [8], 0.0, 0.0, 8)
        for model, reason in [(other, "linear layers"), (large, "MB, more than 2")]:
            with self.assertRaisesRegex(OSError, reason, msg="a page without its digits"):
                export.explorer(model, "", Path("none"))
