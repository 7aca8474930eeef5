import math
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

    def test_invalid_sizes_and_rates_are_rejected_by_name_and_value(self):
        generator = {"z_dim": 0, "hidden_dims": [-3], "output_shape": [2.5], "dp_rate": 1.0}
        discriminator = {"input_dims": 0, "hidden_dims": [0], "dp_rate": math.nan}
        for network, invalid in [(GeneratorMLP, generator), (DiscriminatorMLP, discriminator)]:
            for name, value in invalid.items():
                with self.assertRaisesRegex(ValueError, f"{name} must.*{str(value).strip('[]')}"):
                    network(**{name: value})
