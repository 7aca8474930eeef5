"""Provokes the failures that README.md describes, and makes its pictures.

    python -m failures.provoke [NAME ...]        all of them: about ten minutes

Each is a real run, with flags or with a subclass of GAN. Its last samples and its curves go to
failures/<name>.png. Needs matplotlib.
"""

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.common import scalars
from metrics import SCORES
from mnist import mnist
from train_torch import GAN, main, parse_args
from utils import image_grid

PICTURES = Path(__file__).resolve().parent


class SaturatingGAN(GAN):
    """A GAN whose generator minimizes log(1 - D(G(z))), the original minimax loss."""

    def generator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss, log(1 - D(G(z)))."""
        logits = self.discriminator(self.generator(self.latents(len(x_real))))
        loss = F.logsigmoid(-logits).mean()
        return loss, {"loss": loss.detach()}


class LongAverageGAN(GAN):
    """A GAN whose average has its full window from the first step on."""

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the averaged weights as after very many steps."""
        for mean, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(new, 1 / (1 + self.ema))


test_images = functools.cache(lambda: mnist(train=False).dataset)


class WatchedGAN(GAN):
    """A GAN that logs, besides, the mean D(x) of MNIST's test images, 125 at each step."""

    def discriminator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss as ever, and one more value to log."""
        loss, values = super().discriminator_step(x_real)
        unseen, _ = test_images()[torch.arange(self.steps_done % 80, 10_000, 80)]
        with torch.no_grad():
            logits = self.discriminator(unseen.to(self.device))
        return loss, values | {"probability_test": logits.sigmoid().mean()}


class Failure(NamedTuple):
    flags: str
    raw: bool = False  # show the samples of the raw weights, too
    images: int | None = None  # of the training set; all, if it is not given


FAILURES = {
    "healthy": Failure("--epochs 5"),
    "discriminator_wins": Failure("--epochs 5 --lr 1e-5 --lr_disc 1e-2 --r1 0"),
    "saturating_loss": Failure("--epochs 5 --r1 0 --gan failures.provoke:SaturatingGAN"),
    "mode_collapse": Failure("--epochs 2 --betas 0.9 0.99 --categories 0"),
    "oscillation": Failure("--epochs 5 --lr 4e-3 --lr_disc 4e-3", raw=True),
    "over_regularization": Failure("--epochs 5 --r1 100"),
    "long_average": Failure(
        "--epochs 2 --ema 10000 --gan failures.provoke:LongAverageGAN", raw=True
    ),
    "memorization": Failure(
        "--epochs 600 --save_every 100 --decay_from 600 --gan failures.provoke:WatchedGAN",
        images=2000,
    ),
}


def write_images(count: int, folder: str) -> None:
    """Writes the first images of the training set and their labels, in MNIST's format."""
    raw = Path(folder, "MNIST", "raw")
    raw.mkdir(parents=True)
    dataset = mnist().dataset
    for name, values in [("images-idx3", dataset.images[:, 0]), ("labels-idx1", dataset.labels)]:
        values = values[:count].byte().numpy()
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
        (raw / f"train-{name}-ubyte").write_bytes(header + values.tobytes())


def provoke(failure: Failure, folder: str) -> Path:
    """Trains; returns the run directory."""
    flags = [*failure.flags.split(), "--log_dir", folder, "--name", "run"]
    if failure.images:
        write_images(failure.images, folder)
        flags += ["--data_dir", folder]
    main(parse_args(flags))
    return Path(folder, "run")


def samples(run: Path, raw: bool = False) -> Image.Image:
    """A grid of the first samples of those that a run saves."""
    model = GAN.from_checkpoint(run, raw)
    return image_grid(model.sample(64, torch.Generator().manual_seed(0))[:16], 4)


def plot(name: str, run: Path, raw: bool) -> None:
    """Plots the last samples beside the curves, and prints the scores."""
    import matplotlib.pyplot as plt  # not needed to train one of the classes above

    curves = scalars(run)
    grids = {"samples": samples(run)}
    if raw:
        grids["raw weights"] = samples(run, raw=True)
    columns = len(grids) + 2
    figure, axes = plt.subplots(1, columns, figsize=(4 * columns, 4), layout="constrained")
    *panels, probabilities, losses = axes
    for (title, grid), panel in zip(grids.items(), panels, strict=True):
        panel.imshow(grid, cmap="gray")
        panel.set(title=title, xticks=[], yticks=[])
    for panel, label, tag in [
        (probabilities, "D(x)", "discriminator/probability_real"),
        (probabilities, "D(G(z))", "discriminator/probability_fake"),
        (probabilities, "D(x), test", "discriminator/probability_test"),
        (losses, "D", "discriminator/loss"),
        (losses, "G", "generator/loss"),
    ]:
        if tag in curves:
            panel.plot(*zip(*curves[tag], strict=True), label=label)
    probabilities.set(title="D(x), D(G(z))", ylim=(-0.02, 1.02))
    losses.set(title="losses")
    for panel in (probabilities, losses):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(PICTURES / f"{name}.png", dpi=80)
    scores = json.loads((run / "scores.json").read_text())
    print(name, *(f"{key} {scores[key]:.3f}" for key in SCORES), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FAILURES)}; default: all")
    names = parser.parse_args().names or list(FAILURES)
    if unknown := set(names) - set(FAILURES):
        parser.error(f"there is no failure {', '.join(unknown)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            plot(name, provoke(FAILURES[name], folder), FAILURES[name].raw)
