import json
from unittest import mock

import torch

import evaluate
from metrics import Reference, score
from tests.common import NOISE, RunTest, gray, noise_mnist
from train_torch import GAN
from utils import to_gray


class EvaluateTest(RunTest):
    def test_the_scores_of_a_run(self):
        run, pairs = self.train("--epochs 1"), self.directory / "pairs.png"
        flags = run, "--num_samples", 50, "--seed", 3, "--json", "--pairs", pairs
        with mock.patch("evaluate.mnist", noise_mnist):
            scores = json.loads(self.output(evaluate.main, *flags))
        samples = GAN.from_checkpoint(run).sample(50, torch.Generator().manual_seed(3))
        expected = score(samples, Reference.of(NOISE))
        self.assertLessEqual(expected.items(), scores.items(), "not the scores of these samples")
        x, y = (a.flatten(1).double() / 127.5 for a in (to_gray(samples), NOISE))
        differences = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        median, nearest = differences.amin(1).median().item(), scores["nearest_training_image"]
        self.assertAlmostEqual(nearest, median, 4, "not the median distance")
        of_test = scores["nearest_training_image_of_test"]
        self.assertEqual(of_test, 0, "not of the test images; they are the training images here")
        grid, (first, known) = gray(pairs)[1::3, 1::3], divmod(differences.argmin().item(), 256)
        pair = torch.cat([to_gray(samples)[first, 0], NOISE[known, 0]])
        self.assertTrue(torch.equal(torch.cat([grid[2:30], grid[32:60]])[:, 2:30], pair), "pairs")
        with mock.patch("train_torch.mnist", lambda root: None):
            self.assert_rejected("no test images", evaluate.main, run)
