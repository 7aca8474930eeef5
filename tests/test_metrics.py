import hashlib
import json
import math
import unittest

import torch
import torch.nn.functional as F

import metrics
from mnist import mnist
from tests.common import needs_shipped_mnist, needs_shipped_models
from train_torch import GAN, PRETRAINED, score_samples


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


class DistancesTest(unittest.TestCase):
    def test_frechet_distance_by_hand(self):
        x, y = normal(50, 6) @ normal(6, 6, seed=1), normal(40, 6, seed=2) + 1
        overlap = torch.linalg.eigvals(x.T.cov() @ y.T.cov()).real.sqrt().sum()
        means = (x.mean(0) - y.mean(0)).square().sum()
        expected = means + (x.T.cov() + y.T.cov()).trace() - 2 * overlap
        distance = metrics.frechet_distance(x, y)
        self.assertAlmostEqual(distance, expected.item(), 9, "wrong covariance, or wrong root")
        few = normal(5, 20)
        self.assertAlmostEqual(metrics.frechet_distance(few, few), 0, 5, "eigenvalues below 0")

    def test_neighbor_scores_by_hand(self):
        real = torch.arange(6.0)[:, None]  # the balls around them reach 5, 4, 3, 3, 4 and 5 far
        radii = metrics.radii(real)
        torch.testing.assert_close(radii, torch.tensor([5, 4, 3, 3, 4, 5]).double() + 1e-6)
        generated = torch.tensor([[-4.5], [-4.9], [-6.0], [-6.5], [-7.0], [-8.0]])
        scores = metrics.neighbor_scores(generated, real, radii)
        # -4.5 and -4.9 are in the ball around 0, and only it has samples in it. The balls around
        # the samples reach 3.5, 3.1, 2, 2, 2.5 and 3.5 far, to -1 at most.
        self.assertEqual(scores, {"precision": 2 / 6, "recall": 0, "coverage": 1 / 6})

    def test_neighbor_scores_of_duplicates(self):
        copies = F.normalize(normal(20, 96)).repeat(6, 1)  # each has 5 others at a distance of 0
        others = copies.flip(0) * (1 + 2e-7)
        scores = metrics.neighbor_scores(others, copies, metrics.radii(copies))
        self.assertEqual([*scores.values()], [1, 1, 1], "rounding separates equal features")


@needs_shipped_mnist
class ScoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.test = mnist(train=False).dataset.images

    def test_the_reference_is_that_of_the_test_images(self):
        reference, features = torch.load(metrics.REFERENCE), metrics.classify(self.test)[0]
        torch.testing.assert_close(reference["features"].double(), features, rtol=1e-3, atol=1e-4)
        radii = metrics.radii(F.normalize(features))
        torch.testing.assert_close(reference["radii"], radii, rtol=3e-3, atol=0)
        scores = metrics.score(self.test)
        self.assertLess(scores["frechet_distance"], 1e-5)
        self.assertEqual((scores["precision"], scores["coverage"]), (1, 1))

    @needs_shipped_models
    def test_the_pretrained_generator_scores_what_its_file_says(self):
        published = json.loads(PRETRAINED.with_suffix(".json").read_text())["scores"]
        checksum = hashlib.sha256(metrics.CLASSIFIER.read_bytes()).hexdigest()
        expected = "a27a873c82546403b53a57958c0da7b098b9597b8a38e3ebb3192e44283c04c4"
        self.assertEqual(checksum, expected, "scores of another classifier")
        scores = score_samples(GAN.from_checkpoint(), 10_000)
        for name in metrics.SCORES:
            self.assertAlmostEqual(scores[name], published[name], delta=0.01, msg=name)

    def test_a_digit_that_is_missing(self):
        kept = self.test[metrics.classify(self.test)[1].argmax(1) != 3][:1000]
        scores = metrics.score(kept)
        self.assertEqual((scores["smallest_share"], scores["share_3"]), (0, 0), "the 3 is missing")
        self.assertGreater(scores["share_8"], 0.05, "another digit is missing, too")
        rounded = metrics.score(kept / 127.5 - 0.998)
        self.assertEqual(rounded, scores, "sees more than the 256 gray levels")
        with self.assertRaisesRegex(FloatingPointError, "NaN"):
            metrics.score(kept * math.nan)
