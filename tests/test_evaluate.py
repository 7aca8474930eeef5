import io
import json
import re
from argparse import ArgumentTypeError
from contextlib import redirect_stderr
from unittest import mock

import torch

import evaluate
from metrics import score
from tests.common import ALL_SCORES, NOISE, OwnGAN, RunTest, gray, noise_mnist
from train_torch import GAN
from utils import to_gray


class EvaluateTest(RunTest):
    def test_the_scores_of_a_run(self):
        run, pairs = self.train("--epochs 1"), self.directory / "pairs.png"
        flags = run, "--num_samples", 50, "--seed", 3, "--json", "--pairs", pairs
        with mock.patch("evaluate.mnist", noise_mnist), mock.patch("train_torch.score", score):
            scores = json.loads(self.output(evaluate.main, *flags))
        self.assertAlmostEqual(scores["purity"], 0.1, 5)
        samples = GAN.from_checkpoint(run).sample(50, torch.Generator().manual_seed(3))
        self.assertLessEqual(score(samples).items(), scores.items(), "not of these samples")
        x, y = (a.flatten(1).double() / 127.5 for a in (to_gray(samples), NOISE))
        differences = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        median, nearest = differences.amin(1).median().item(), scores["nearest_training_image"]
        self.assertAlmostEqual(nearest, median, 4, "not the median distance")
        first, known = divmod(differences.argmin().item(), 256)
        pair = torch.cat([to_gray(samples)[first, 0], NOISE[known, 0]])
        grid = gray(pairs)[1::3, 1::3]
        self.assertTrue(torch.equal(torch.cat([grid[2:30], grid[32:60]])[:, 2:30], pair), "pairs")

    def test_a_table_of_runs(self):
        for name, distance, flags in [
            ("one", 0.3, "--seed 1"),
            ("two", 0.5, "--seed 2 --save_every 9 --precision fp32"),
            ("two_again", 0.5, "--seed 2"),
            ("small", 0.2, "--z_dim 13"),
            ("other_data", 0.9, "--data_dir /x"),
            ("colors", 0, "--gan tests.test_train_torch:ColorGAN"),
            ("longer", 0.7, ""),
        ]:
            run = self.train(f"--epochs 1 {flags}", name)
            if distance:
                scores = json.loads((run / "scores.json").read_text())
                scores["frechet_distance"] = distance
                (run / "scores.json").write_text(json.dumps(scores))
        self.kill("utils.log_scores", 2, "--epochs 3", "longer")  # with 2 done, scores are of 1
        (self.directory / "file").touch()
        scored = mock.Mock(side_effect=lambda x: score(x) if x.shape[1] == 3 else ALL_SCORES)
        with redirect_stderr(io.StringIO()) as errors, mock.patch("train_torch.score", scored):
            printed = self.output(evaluate.main, self.directory / "*").splitlines()
        header, *rows = (re.split("  +", line.strip()) for line in printed)
        columns = "run seeds epochs z_dim data_dir distance precision recall confident purity"
        self.assertEqual(" ".join(header), columns, "other columns")
        cells = [" ".join(row[:3] + row[-5:-4]) for row in rows]
        expected = ["longer 1 2 0.100", "small 1 1 0.200", "one (+1) 2 1 0.400 ± 0.141"]
        self.assertEqual(cells, [*expected, "other_data 1 1 0.900"], "other rows, or not sorted")
        self.assertRegex(errors.getvalue(), r"skipped: .*file is corrupted")
        self.assertRegex(errors.getvalue(), r"skipped: [^\n]*\[1, 28, 28\], not \[3, 8, 8\]\n")
        flags = self.directory / "one", self.directory / "small", "--json"
        first, second = json.loads(self.output(evaluate.main, *flags))
        self.assertEqual((first["args"]["z_dim"], *second["runs"]), (13, "1"), "not a list of rows")
        self.assertEqual(second["runs"]["1"]["frechet_distance"], 0.3)
        for other in (["--seed", 5], ["--num_samples", 50]):  # which the runs have not written
            first, _ = json.loads(self.output(evaluate.main, *flags, *other))
            self.assertEqual([run["frechet_distance"] for run in first["runs"].values()], [0.1])
        self.assert_rejected("at least 20", evaluate.main, "--num_samples", 19)
        with self.assertRaisesRegex(ArgumentTypeError, "--pairs"):
            evaluate.main([*map(str, flags), "--pairs", "x.png"])

    def test_a_run_of_a_class_of_ones_own(self):
        run = self.train("--epochs 1 --gan tests.common:OwnGAN")
        self.assertIsInstance(GAN.from_checkpoint(run), OwnGAN)
        flags, data = [run, "--num_samples", 20, "--json"], ["--data_dir", "/x"]
        loader = mock.patch("evaluate.mnist", side_effect=noise_mnist)
        with loader as mnist, mock.patch("train_torch.score", score):
            scores = json.loads(self.output(evaluate.main, *flags, *data))
        mnist.assert_called_once_with(root="/x", download=False)
        white = score(torch.ones(20, 1, 28, 28))  # as it samples
        self.assertEqual(scores["frechet_distance"], white["frechet_distance"])
