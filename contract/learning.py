"""Task 7, once more: whether the training learns."""

import itertools

import torch

import metrics
from contract.part import imported
from contract.training import TrainGANTest, Trains


class LearningTest(Trains):
    """A short training with one's own networks, steps and loop, when the tasks 1 to 7 are right.

    The distance of samples falls to at most 0.45 of that of noise with each of the correct files in
    tests/foreign and each of 20 seeds; where one of six mistakes leaves noise, it stays above 0.88.
    """

    title = TrainGANTest.title

    def samples(self) -> tuple[torch.Tensor, float]:
        """Samples of the same latents each time, and their Fréchet distance from MNIST."""
        torch.manual_seed(1)
        images = self.model.sample(500)
        return images, metrics.score(images)["frechet_distance"]

    def test_digits_appear(self):
        self.model = self.tested.GAN([64, 128], [128, 64], 0.0, 0.0, 16)
        networks = {self.model.generator: 2e-3, self.model.discriminator: 1e-3}
        adams = [torch.optim.Adam(n.parameters(), lr, (0.0, 0.99)) for n, lr in networks.items()]
        loader = imported("mnist.py").mnist(batch_size=64, num_workers=0)
        images, before = self.samples()
        self.train([*itertools.islice(loader, 300)], adams, window=50)
        trained, after = self.samples()
        why = "generate uses self.averaged, which train_gan is to move by update_average"
        same = torch.equal(images, trained)
        self.check(not same, f"samples stay what they were before training: {why}")
        what = f"after 300 steps of a small GAN the distance of its samples is {after:.0f}"
        why = f"where it was {before:.0f}: one would see noise. What do the networks learn from?"
        self.check(after < 0.6 * before, f"{what}, {why}")
