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

    def test_the_batch_statistic_is_the_difference_from_the_image_before(self):
        discriminator = DiscriminatorMLP(4, [3], 0.0, batch_statistic=True).requires_grad_(False)
        for p in discriminator.parameters():
            p.fill_(p.dim() - 1)  # weights 1, biases 0: hidden units are the sum of (x + 1) / 2
        discriminator.layers[-1].weight[:, :-1] = 0
        x = torch.tensor([1.0, 3.0, 0.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
        hidden = 2 * (x[:, 0, 0, :1] + 1)
        difference = (hidden - hidden[[2, 0, 1]]).abs()
        torch.testing.assert_close(discriminator(x), difference)
        self.assertEqual(discriminator(x[:1]).item(), 0, "a batch of one differs from itself")
