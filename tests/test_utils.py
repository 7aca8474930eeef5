import io
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import utils
from benchmarks.common import scalars
from tests.common import ALL_SCORES, TemporaryDirectoryTest, gray


class UtilsTest(TemporaryDirectoryTest):
    def setUp(self):
        super().setUp()
        self.writer = utils.SummaryWriter(self.directory)
        self.addCleanup(self.writer.close)

    def test_tensorflow_is_not_imported(self):  # beside which torch.optim.Adam may crash
        (self.directory / "tensorflow.py").write_text("raise SystemExit('imported')")
        code = f"import utils; utils.SummaryWriter({str(self.directory)!r}).add_scalar('x', 1, 1)"
        paths = os.pathsep.join([str(self.directory), str(Path(utils.__file__).parent)])
        env = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_logger_writes_the_mean_of_each_window_at_its_last_step(self):
        logger = utils.TensorBoardLogger(self.writer, avg_window=4, name="net", step=20)
        for step in range(1, 11):
            logger.add_values({"loss": torch.tensor(float(step)), "twice": 2.0 * step})
        logger.flush()
        logger.flush()
        utils.TensorBoardLogger(self.writer, avg_window=1).add_values({"loss": 1.0})
        self.writer.flush()
        means, twice = [(24, 2.5), (28, 6.5), (30, 9.5)], [(24, 5), (28, 13), (30, 19)]
        expected = {"net/loss": means, "net/twice": twice, "loss": [(1, 1)]}
        self.assertEqual(scalars(self.directory), expected, "wrong name, mean or step; a lost rest")
        self.assertEqual(logger.means, {"loss": 9.5, "twice": 19}, "means are not the last ones")

    def test_logger_reads_back_only_when_it_writes_and_names_a_diverged_run(self):
        logger = utils.TensorBoardLogger(self.writer, avg_window=3)
        value = torch.empty((), device="meta", requires_grad=True) * 2  # cannot be read back
        logger.add_values({"loss": value})
        self.assertFalse(logger.window["loss"][0].requires_grad, "graphs are kept in memory")
        for key, bad in [("loss", math.nan), ("loss", -1.8e6), ("count", math.inf)]:
            logger = utils.TensorBoardLogger(self.writer, avg_window=1, name="net")
            logger.add_values({"count": 1e6})  # not a loss
            with self.assertRaisesRegex(FloatingPointError, f"diverged: net/{key} .* step 2.*lr"):
                logger.add_values({key: bad})

    def test_grids_are_filled_row_by_row_and_make_a_film(self):
        images = torch.tensor([-1.0, 1.0, 0.0, -2.0, 3.0]).view(5, 1, 1, 1).expand(5, 1, 4, 6)
        for epoch in (5000, 20):
            utils.save_images(images * (epoch == 20), 2, "samples", epoch, self.writer, 9 * epoch)
        path = self.directory / "samples_epoch_0020.png"
        grid = gray(path)
        self.assertEqual(grid.shape, (3 * (4 + 2) + 2, 2 * (6 + 2) + 2), "columns are ignored")
        self.assertEqual(utils.image_grid(images, 9).width, 5 * (6 + 2) + 2, "empty columns")
        levels = grid[3::6, 3::8].tolist()
        self.assertEqual(levels, [[0, 255], [128, 0], [255, 0]], "other gray levels, or by columns")
        path.rename(path.with_name("samples_epoch_10000.png"))  # "10000" is before "5000"
        path.with_name("samples_epoch_0020 (copy).png").touch()
        self.writer.flush()
        *_, event = EventAccumulator(str(self.directory)).Reload().Images("samples")
        shown = gray(io.BytesIO(event.encoded_image_string))
        self.assertTrue(event.step == 180 and shown.equal(grid), "TensorBoard: another step, image")
        utils.save_film(self.directory)
        with Image.open(self.directory / utils.FILM) as film:
            self.assertEqual((film.n_frames, film.info.get("loop")), (2, 0), "not a looping film")
            film.seek(1)
            self.assertEqual(film.info["duration"], 3000, "the last grid is not shown for longer")
            film.convert("L").crop((0, 0, 36, 40)).resize((18, 20), Image.NEAREST).save(path)
        self.assertLess((gray(path).int() - grid.int()).abs().max(), 10, "not the last grid last")
        grids = mock.patch("utils.sample_grids", return_value=[(5, path), (6, path), (7, path)])
        with grids, mock.patch("utils.save_gif") as gif:
            utils.save_film(self.directory)
        self.assertEqual(gif.call_args.args[2], [1, 0.5, 3], "not slow at first and in the end")

    def test_a_film_reads_one_grid_at_a_time(self):
        alive, most = [], []

        def frames():
            for shade in range(40):
                frame = Image.new("L", (100, 100), 5 * shade)
                alive.append(weakref.ref(frame))
                most.append(sum(ref() is not None for ref in alive))
                yield frame

        utils.save_gif(self.directory / "film", frames(), [0.1] * 40)
        self.assertLess(max(most), 5, "all frames are in memory")

    def test_a_corrupted_grid_is_one_line_and_removed_ones_are_no_error(self):
        utils.save_film(self.directory)
        self.assertFalse((self.directory / utils.FILM).exists(), "a film of no grids")
        utils.save_images(torch.zeros(4, 1, 28, 28), 2, "samples", 3, self.writer, 9)
        path = self.directory / "samples_epoch_0003.png"
        content = path.read_bytes()
        path.write_bytes(content[:50] + bytes(len(content) - 50))
        with self.assertRaisesRegex(OSError, "^[^\n]*samples_epoch_0003.png is corrupted[^\n]*$"):
            utils.save_film(self.directory)

    def test_what_tensorboard_shows_of_a_run(self):
        with mock.patch("subprocess.run", side_effect=FileNotFoundError("git")):
            utils.log_run(self.writer, {"lr": 0.003, "betas": [0.0, 0.9]})
        scores = ALL_SCORES | {"share_3": 0.375, "share_4": 0, "purity": 0.9}
        utils.log_scores(self.writer, scores, 8)
        self.writer.flush()
        events = EventAccumulator(str(self.directory)).Reload()
        self.assertEqual(events.Scalars("quality/recall")[0].step, 8, "scores of another step")
        self.assertNotIn("quality/share_3", events.Tags()["scalars"], "a curve for each digit")
        digits = events.Histograms("digits_of_1000")[0].histogram_value.bucket[-10:]
        self.assertEqual(digits, [100] * 3 + [375, 0] + [100] * 5, "not the digits' shares")
        tags = events.summary_metadata
        values = HParamsPluginData.FromString(
            tags["_hparams_/session_start_info"].plugin_data.content
        )
        values = values.session_start_info.hparams
        logged = values["lr"].number_value, values["betas"].string_value
        self.assertEqual(logged, (0.003, "[0.0, 0.9]"), "not a number, or lost, in HPARAMS")
        self.assertLessEqual({"custom_scalars__config__", "this run/text_summary"}, tags.keys())
        charts = [tag for group in utils.CHARTS.values() for tags in group.values() for tag in tags]
        quality = {tag for tag in charts if tag.startswith("quality/")}
        self.assertLessEqual(quality, set(events.Tags()["scalars"]), "charts of what is not logged")
