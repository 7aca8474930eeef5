import math
import unittest

import torch
import torch.nn.functional as F

from models import DiscriminatorMLP, GeneratorMLP
from tests.common import needs_shipped_models


@needs_shipped_models
class ModelsTest(unittest.TestCase):
    def test_outputs_are_those_of_the_formula_at_any_depth(self):
        z, images = torch.randn(9, 4), torch.rand(9, 3, 5, 6) * 2 - 1
        for widths in ([], [7, 5, 3]):
            for network, given, x in [
                (GeneratorMLP(4, widths, (3, 5, 6), dp_rate=0), z, z),
                (DiscriminatorMLP(90, widths, dp_rate=0), images, (images.flatten(1) + 1) / 2),
            ]:
                parameters = [p.data.normal_() for p in network.parameters()]
                for i in range(0, len(parameters), 2):
                    x = F.linear(F.leaky_relu(x, 0.2) if i else x, *parameters[i : i + 2])
                expected = x.tanh().view_as(images) if given is z else x
                torch.testing.assert_close(network(given), expected, msg="other layers or scale")

    def test_invalid_sizes_and_rates_are_rejected_by_name_and_value(self):
        for network, name, value in [
            (GeneratorMLP, "z_dim", 0),
            (GeneratorMLP, "hidden_dims", [-3]),
            (GeneratorMLP, "output_shape", [2.5]),
            (DiscriminatorMLP, "input_dims", 0),
            (DiscriminatorMLP, "dp_rate", 1.0),
            (DiscriminatorMLP, "dp_rate", math.nan),
        ]:
            with self.assertRaisesRegex(ValueError, f"{name} must.*{str(value).strip('[]')}"):
                network(**{name: value})
