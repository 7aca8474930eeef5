import unittest

import torch

from models import BatchStatistic, DiscriminatorMLP, GeneratorMLP
from tests.common import needs_shipped_models


@needs_shipped_models
class ModelsTest(unittest.TestCase):
    def test_other_images_and_no_hidden_layers(self):
        images = GeneratorMLP(4, [], (3, 5, 6))(torch.randn(9, 4))
        self.assertEqual(images.shape, (9, 3, 5, 6), "output_shape is ignored")
        logits = DiscriminatorMLP(90, [])(-torch.ones_like(images))
        self.assertFalse(logits.any(), "a black background contributes to the logit")

    def test_the_batch_statistic_is_the_standard_deviation_in_groups(self):
        discriminator = DiscriminatorMLP(4, [3], 0.0, batch_statistic=True).requires_grad_(False)
        for p in discriminator.parameters():
            p.fill_(p.dim() - 1)  # weights 1, biases 0: hidden units are the sum of (x + 1) / 2
        discriminator.layers[-1].weight[:, :-1] = 0
        x = torch.rand(8, 1, 2, 2)
        hidden = (x.sum((1, 2, 3)) + 4) / 2
        for count in (8, 6, 1):  # of which the last group is not full
            groups = hidden[torch.arange(8 if count > 4 else 4) % count].view(-1, 4)
            expected = groups.std(1, correction=0).repeat_interleave(4)[:count, None]
            torch.testing.assert_close(discriminator(x[:count]), expected, rtol=1e-3, atol=2e-4)
        x = torch.rand(4, 5)
        statistic, expected = BatchStatistic()(x)[:, -1], x.std(0, correction=0).mean().expand(4)
        torch.testing.assert_close(statistic, expected, msg="not the mean over the features")
        alike = torch.ones(4, 1, 2, 2, requires_grad=True)
        discriminator(alike).sum().backward()
        self.assertTrue(alike.grad.isfinite().all(), "no gradient where images are equal")
