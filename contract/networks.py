"""Tasks 1 and 2: the networks."""

import numpy as np
import torch
from torch import nn

from contract.part import Part


class NetworkTest(Part):
    """What holds for both networks."""

    file = "models.py"
    name, outputs = "", 0

    def network(self, **arguments) -> nn.Module:
        network = self.attempt(self.name, getattr(self.tested, self.name), **arguments)
        self.check("_modules" in vars(network), f"{self.name}: super().__init__() is missing")
        found = any(True for _ in network.parameters())
        self.check(found, f"{self.name} has no parameters: layers are in a plain list")
        return network

    def output(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        of = "[B, 1, 28, 28] (is flatten(1) missing?)" if x.ndim > 2 else f"[B, {x.shape[1]}]"
        return self.attempt(f"{self.name} of {of}", network, x)

    def is_mlp(self, network: nn.Module) -> bool:
        mlp = all(p.ndim <= 2 for p in network.parameters())
        if not mlp:
            self.hint(f"{self.name} is no MLP: widths, dropout and flat images are not checked")
        return mlp

    def saturated(self, network: nn.Module, x: torch.Tensor, reached) -> torch.Tensor:
        """The output after weights were doubled until it is large: initial ones may be small."""
        for _ in range(15):
            y = self.output(network, 1000 * x)
            if reached(y):
                break
            for p in network.parameters():
                p.data *= 2
        return y

    def is_odd(self, network: nn.Module, x: torch.Tensor) -> bool:
        """Whether the output is negated with the last layer, as far as that can be told."""
        before, layers = self.output(network, x), network.modules()
        last = [m for m in layers if type(m) is nn.Linear and m.out_features == self.outputs]
        if len(last) != 1:
            return True
        for p in last[0].parameters():
            p.data.neg_()
        return torch.allclose(self.output(network, x), -before, atol=1e-4)

    def test_arguments(self):
        dims, why = [8, 128, 16], "an argument is ignored, or some layers are in a plain list"
        for arguments, widths in self.widths(dims):
            network = self.network(**arguments)
            if self.is_mlp(network):
                least = np.dot(widths[1:], widths[:-1])
                count = sum(p.numel() for p in network.parameters() if p.ndim > 1)
                call = f"{self.name}(**{arguments}) has {count} weights, but {widths} need {least}"
                self.check(least <= count < 3 * least, f"{call}: {why}")
            self.check(dims == [8, 128, 16], f"{self.name} changes the list hidden_dims")

    def test_activations(self):
        network = self.make().eval()
        for name, p in network.named_parameters():
            if name.endswith("bias"):  # else small weights would never reach the bend
                p.data.zero_()
        start, end = self.x.split(25)
        y = self.output(network, torch.cat([start, (start + end) / 2, end])).double()
        if self.name == "GeneratorMLP":  # without Tanh
            y = y.clamp(-0.9999, 0.9999).atanh()
        start, middle, end = y.split(25)
        bend = (middle - (start + end) / 2).std() / middle.std()
        self.check(bend > 1e-3, f"{self.name} is linear: no activation between its layers")

    def test_dropout(self):
        name, noisy, quiet = self.name, self.make(0.5), self.make(0.0).train()
        left, all_ = ((self.output(noisy.train(on), self.x) != 0).sum() for on in (True, False))
        self.check(left > 0.9 * all_, f"{name}: dropout at the end")
        same = torch.allclose(self.output(noisy.eval(), self.x), self.output(noisy, self.x))
        self.check(same, f"{name}: dropout in eval mode: F.dropout needs self.training")
        if self.is_mlp(noisy.train()):
            none, much = ((n(self.x) - n(self.x)).abs().mean() for n in (quiet, noisy))
            self.check(much > 10 * none, f"{name}: dp_rate is ignored, or there is no dropout")


class GeneratorTest(NetworkTest):
    title, name, outputs = "task 1, the generator", "GeneratorMLP", 784

    def make(self, dp_rate: float = 0.0) -> nn.Module:
        self.x = torch.randn(50, 4)
        return self.network(z_dim=4, hidden_dims=[64, 32], dp_rate=dp_rate)

    def widths(self, dims: list[int]) -> list[tuple[dict, list[int]]]:
        yield {}, [32, 128, 256, 512, 1024, 784]
        yield {"z_dim": 500, "hidden_dims": dims}, [500, *dims, 784]

    def test_images(self):
        generator = self.make().eval()
        shape = [*self.output(generator, self.x).shape]
        right = "GeneratorMLP must return images [B, 1, 28, 28] from -1 to 1"
        self.check(shape == [50, 1, 28, 28], f"{right}, but the shape of 50 is {shape}")
        images = self.saturated(generator, self.x, lambda x: x.min() < -0.5 and x.max() > 0.5)
        low, high = images.min().item(), images.max().item()
        self.check(high <= 1, f"{right}, but they reach {high:.3g}: no Tanh at the end")
        right += f", not from {low:.3g} to {high:.3g}: a sigmoid instead of Tanh, or rescaled?"
        self.check(-1 <= low < -0.5 and high > 0.5, right)
        odd = self.is_odd(self.make().eval(), self.x)
        self.check(odd, "GeneratorMLP: an activation after the last layer, before Tanh")

    def test_device(self):
        generator = self.make()
        for device in ("cpu", "meta"):
            found = str(getattr(generator.to(device), "device", "missing"))
            self.check(found == device, f"GeneratorMLP.device must be a property: {found}")


class DiscriminatorTest(NetworkTest):
    title, name, outputs = "task 2, the discriminator", "DiscriminatorMLP", 1

    def make(self, dp_rate: float = 0.0) -> nn.Module:
        self.x = torch.rand(50, 1, 28, 28) * 2 - 1
        return self.network(input_dims=784, hidden_dims=[64, 32], dp_rate=dp_rate)

    def widths(self, dims: list[int]) -> list[tuple[dict, list[int]]]:
        yield {}, [784, 512, 256, 1]
        yield {"hidden_dims": dims}, [784, *dims, 1]

    def test_logits(self):
        discriminator, right = self.make().eval(), "DiscriminatorMLP must return [B, 1]"
        for x in (self.x, self.x.flatten(1))[: 1 + self.is_mlp(discriminator)]:
            shape = [*self.output(discriminator, x).shape]
            self.check(shape == [50, 1], f"{right}, but the shape of 50 is {shape}")
        logits = self.saturated(discriminator, self.x, lambda y: y.abs().max() > 1)
        low, high = logits.min(), logits.max()
        right = "DiscriminatorMLP must return logits, any numbers"
        why = "binary_cross_entropy_with_logits applies it once more"
        self.check(not 0 <= low <= high <= 1, f"a sigmoid at the end of DiscriminatorMLP: {why}")
        self.check(high > 1 or low < -1, f"{right}, not from -1 to 1: a Tanh at the end")
        odd, below = self.is_odd(self.make().eval(), self.x), "ReLU, LeakyReLU or logsigmoid"
        self.check(odd, f"{right}: an activation after the last layer, such as {below}")
