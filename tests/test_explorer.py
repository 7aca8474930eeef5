import json
from pathlib import Path

from torch import nn

from checkpoint import CHECKPOINT
from explorer import export
from tests.common import TemporaryDirectoryTest, needs_shipped_models
from train_torch import GAN, PRETRAINED


@needs_shipped_models
class ExplorerTest(TemporaryDirectoryTest):
    def test_the_page_of_a_run_is_like_the_ready_one(self):  # which explorer/check.py checks
        run, page = self.directory / "run", self.directory / "page.html"
        (run / CHECKPOINT).parent.mkdir(parents=True)
        (run / CHECKPOINT).write_bytes(PRETRAINED.read_bytes())
        (run / "progress.gif").write_bytes(b"a film")
        printed = self.output(export.main, run, "--out", page)
        self.assertEqual(printed, f"{page}\n", "does not say what it has written")
        before, after = export.TEMPLATE.read_text(encoding="utf-8").split("{{DATA}}")
        data = []
        for path in (export.TEMPLATE.with_name("explorer.html"), page):
            text = path.read_text(encoding="utf-8")
            self.assertNotRegex(text.replace("data:image", ""), "https?:|src=[^d]", "not offline")
            self.assertTrue(text.startswith(before) and text.endswith(after), "another template")
            data.append(json.loads(text.removeprefix(before).removesuffix(after)))
        for name in ("sizes", "weights", "latents"):
            self.assertEqual(data[0][name], data[1][name], f"explorer.html has other {name}")
        shown = data[1]["title"], data[1]["film"]
        self.assertEqual(shown, ("run", "data:image/gif;base64,YSBmaWxt"), "another title or film")

    def test_generators_that_the_page_cannot_compute_are_rejected(self):
        other, large = GAN.from_checkpoint(), GAN([8, 2000], [8], 0.0, 0.0, 8)
        other.averaged.layers[2] = nn.LeakyReLU(0.1)
        for model, reason in [(other, "linear layers"), (large, "MB, more than 2")]:
            self.assertRaisesRegex(OSError, reason, export.explorer, model, "", Path("none"))
