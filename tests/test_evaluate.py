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
        flags = evaluate.main, run, "--num_samples", 50, "--seed", 3
        with mock.patch("evaluate.mnist", noise_mnist):
            scores = json.loads(self.output(*flags, "--json", "--pairs", pairs))
            lines = self.output(*flags)
        samples = GAN.from_checkpoint(run).sample(50, torch.Generator().manual_seed(3))
        expected = score(samples, Reference.of(NOISE, torch.arange(256) % 10))
        self.assertLessEqual(expected.items(), scores.items(), "not the scores of these samples")
        x, y = (a.flatten(1).double() / 127.5 for a in (to_gray(samples), NOISE))
        distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        nearest = scores["nearest_training_image"], scores["nearest_training_image_of_test"]
        self.assertAlmostEqual(nearest[0], distances.median().item(), 4, "not the median distance")
        self.assertEqual(
            nearest[1], 0, "not of the test images, which are the training images here"
        )
        closest = to_gray(samples[distances.argmin()])[0]
        self.assertTrue(torch.equal(gray(pairs)[7:91:3, 7:91:3], closest), "not the closest first")
        self.assertRegex(lines, r"(?m)^recall +[\d.]+$", "not one score per line")
        self.assert_rejected("at least 6", evaluate.main, run, "--num_samples", 5)
        with mock.patch("train_torch.mnist", lambda root: None):
            self.assert_rejected("no test images", evaluate.main, run)
