import json
from unittest import mock

import torch

import evaluate
from metrics import score
from tests.common import NOISE, OwnGAN, RunTest, gray, noise_mnist
from train_torch import GAN
from utils import to_gray


class EvaluateTest(RunTest):
    def test_the_scores_of_a_run(self):
        run, pairs = self.train("--epochs 1"), self.directory / "pairs.png"
        flags = run, "--num_samples", 50, "--seed", 3, "--json", "--pairs", pairs
        with mock.patch("evaluate.mnist", noise_mnist):
            scores = json.loads(self.output(evaluate.main, *flags))
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

    def test_a_run_of_a_class_of_ones_own(self):
        run = self.train("--epochs 1 --gan tests.common:OwnGAN")
        self.assertIsInstance(GAN.from_checkpoint(run), OwnGAN)
        with mock.patch("evaluate.mnist", noise_mnist):
            scores = json.loads(self.output(evaluate.main, run, "--num_samples", 9, "--json"))
        white = score(torch.ones(9, 1, 28, 28))  # as it samples
        self.assertEqual(scores["frechet_distance"], white["frechet_distance"])
