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
    def test_distances_by_hand(self):
        x, y = normal(50, 6) @ normal(6, 6, seed=1), normal(40, 6, seed=2) + 1
        overlap = torch.linalg.eigvals(x.T.cov() @ y.T.cov()).real.sqrt().sum()
        means = (x.mean(0) - y.mean(0)).square().sum()
        expected = means + (x.T.cov() + y.T.cov()).trace() - 2 * overlap
        distance = metrics.frechet_distance(x, y)
        self.assertAlmostEqual(distance, expected.item(), 9, "wrong covariance, or wrong root")
        few = normal(5, 20)
        self.assertAlmostEqual(metrics.frechet_distance(few, few), 0, 5, "eigenvalues below 0")
        x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        expected = 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4  # without pairs of an image and itself
        self.assertEqual(metrics.kernel_distance(x, y), expected, "not the KID")

    def test_references_that_cannot_be_scored_against_are_named(self):
        for given, reason in [((5, 1, 28, 28), "6 or more"), ((9, 1, 28, 27), "28 x 28")]:
            with self.assertRaisesRegex(ValueError, reason, msg="accepted"):
                metrics.Reference.of(torch.zeros(given))

    def test_neighbor_scores_of_duplicates(self):
        copies = F.normalize(normal(20, 96)).repeat(6, 1)  # each has 5 others at a distance of 0
        scores = metrics.neighbor_scores(copies.flip(0) * (1 + 2e-7), copies)
        self.assertEqual([*scores.values()], [1, 1, 6 / 5, 1], "rounding separates equal features")


@needs_shipped_mnist
class ScoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images = mnist(train=False).dataset.images
        cls.reference = metrics.Reference.of(cls.images)

    @needs_shipped_models
    def test_the_pretrained_generator_scores_what_its_file_says(self):
        published = json.loads(PRETRAINED.with_suffix(".json").read_text())["scores"]
        checksum = hashlib.sha256(metrics.WEIGHTS.read_bytes()).hexdigest()
        expected = "a27a873c82546403b53a57958c0da7b098b9597b8a38e3ebb3192e44283c04c4"
        self.assertEqual(checksum, expected, "scores of another classifier")
        scores = score_samples(GAN.from_checkpoint(), self.reference, 10_000)
        for name, expected in published.items():
            delta = 0.0005 if name == "kid" else 0.01
            self.assertAlmostEqual(scores[name], expected, delta=delta, msg=f"another {name}")

    def test_a_digit_that_is_missing(self):
        _, probabilities = metrics.classify(self.images[:1200], self.reference.classifier)
        kept = self.images[:1200][probabilities.argmax(1) != 3]
        scores = metrics.score(kept, self.reference)
        missing = scores["missing_digits"], scores["smallest_share"], scores["share_3"]
        self.assertEqual(missing, (1, 0, 0), "only the 3 is missing")
        rounded = metrics.score(kept / 127.5 - 0.998, self.reference)
        self.assertEqual(rounded, scores, "sees more than the 256 gray levels")
        with self.assertRaisesRegex(ValueError, "NaN"):
            metrics.score(kept * math.nan, self.reference)
