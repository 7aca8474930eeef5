import unittest

import torch

from models import DiscriminatorMLP, GeneratorMLP
from tests.common import needs_shipped_models


@needs_shipped_models
class ModelsTest(unittest.TestCase):
    def test_other_images_and_no_hidden_layers(self):
        images = GeneratorMLP(4, [], (3, 5, 6))(torch.randn(9, 4))
        self.assertEqual(images.shape, (9, 3, 5, 6), "output_shape is ignored")
        logits = DiscriminatorMLP(90, [])(-torch.ones_like(images))
        self.assertFalse(logits.any(), "a black background contributes to the logit")

    def test_each_hidden_layer_has_dropout(self):
        for network in (GeneratorMLP(1, [1, 1], [1, 1, 1], 0.5), DiscriminatorMLP(1, [1, 1], 0.5)):
            for p in network.parameters():
                p.data.fill_(p.dim() - 1)  # weights 1, biases 0
            passed = (network(torch.ones(10_000, 1)) != 0).float().mean().item()
            self.assertAlmostEqual(passed, 0.5**2, delta=0.02, msg="not at both, or another rate")
