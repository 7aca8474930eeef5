"""Trains the digit classifier whose features and predictions metrics.py scores samples with.

    python -m pretrained.train_classifier [--seed 0] [--out pretrained/classifier.pt]

The weights in pretrained/ came from this command with its defaults. On the same machine and
with the same PyTorch it gives the same weights again, bit for bit. Scores of different
classifiers cannot be compared: new weights mean a new reference (pretrained.make_reference), and
that every published score is measured again.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics import CLASSIFIER, DigitClassifier
from mnist import MNISTImages, mnist

EPOCHS, BATCH_SIZE, PEAK_RATE = 12, 128, 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CLASSIFIER)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the weights, depend on it
    torch.manual_seed(args.seed)

    classifier = DigitClassifier().to(memory_format=torch.channels_last)
    training, test = mnist().dataset, mnist(train=False).dataset
    rng = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))  # of the order
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=EPOCHS * math.ceil(len(training) / BATCH_SIZE)
    )
    for epoch in range(EPOCHS):
        classifier.train()
        for images, labels in shuffled(training, rng):
            optimizer.zero_grad()
            F.cross_entropy(classifier(distorted(images)), labels).backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{EPOCHS}: test accuracy {test_accuracy(classifier, test):.2%}")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(classifier.to(memory_format=torch.contiguous_format).state_dict(), args.out)
    print(f"wrote {args.out}")


def shuffled(dataset: MNISTImages, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of an epoch, in the order in which a `DataLoader` with this RNG gives them."""
    torch.empty((), dtype=torch.int64).random_(generator=rng)  # a DataLoader seeds its workers
    for indices in torch.randperm(len(dataset), generator=rng).split(BATCH_SIZE):
        yield dataset[indices]


def distorted(images: Tensor) -> Tensor:
    """Each image turned by up to 12 degrees, scaled by up to 10 % and shifted by up to 2 pixels."""
    angle, scale, right, down = torch.rand(4, len(images)).mul(2).sub(1)
    angle, scale = angle * math.radians(12), 1 + 0.1 * scale
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 2 / 14  # the grid's coordinates go from -1 to 1, half an image's 28 pixels each way
    rows = [torch.stack([cos, -sin, shift * right], 1), torch.stack([sin, cos, shift * down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Outside the image the sampler gives 0, so black must be 0 while it runs.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


@torch.inference_mode()
def test_accuracy(classifier: DigitClassifier, test: MNISTImages) -> float:
    classifier.eval()
    images, labels = test[torch.arange(len(test))]
    predictions = torch.cat([classifier(part).argmax(1) for part in images.split(250)])
    return (predictions == labels).float().mean().item()


if __name__ == "__main__":
    main()
