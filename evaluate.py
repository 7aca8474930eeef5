"""Scores the samples of a trained generator. What the scores are: metrics.py.

    python evaluate.py GAN_logs/<date_time>      under a minute on 2 cores
    python evaluate.py                           the pretrained generator

Scores depend on the number of samples: compare those of the same number.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import command_line as check
from checkpoint import replace_file
from metrics import Reference, nearest_images, score
from mnist import mnist
from train_torch import DATA_DIR, GAN, PRETRAINED
from utils import image_grid, png

NEIGHBORS, PAIRS = 1000, 10  # images whose nearest training image is searched; pairs shown


def memorization(samples: Tensor, data_dir: str | Path) -> tuple[dict[str, float], Tensor]:
    """How close samples come to training images, compared with test images.

    Args:
        samples: `[N, 1, 28, 28]` in [-1, 1].
        data_dir: see `mnist`.

    Returns:
        The medians of both distances, L2 over pixels in [-1, 1]; a generator that memorizes has
        the smaller one. And the closest pairs, at most `PAIRS`, `[2 * n, 1, 28, 28]` in [-1, 1]:
        samples, then their training images.
    """
    training = mnist(data_dir).dataset.images
    test = mnist(data_dir, train=False).dataset.images
    distances, neighbors = nearest_images(samples[:NEIGHBORS], training)
    test_distances, _ = nearest_images(test[:NEIGHBORS], training)
    closest = distances.argsort()[:PAIRS]
    pairs = torch.cat([samples[closest], training[neighbors[closest]].float() / 127.5 - 1])
    return {
        "nearest_training_image": distances.median().item(),
        "nearest_training_image_of_test": test_distances.median().item(),
    }, pairs


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the scores of a run directory or a checkpoint file, one per line or as JSON."""
    parser = check.Parser(
        "Scores the samples of a trained generator.",
        example="python evaluate.py GAN_logs/2026-01-31_12-00-00 --pairs closest.png",
    )
    parser.add_argument(
        "run", nargs="?", help="run directory or checkpoint file, if not the pretrained generator"
    )
    parser.add_argument(
        "--num_samples", type=check.num_samples, default=10_000, help="samples to score"
    )
    parser.add_argument("--seed", type=check.seed, default=0, help="seed of the latents")
    parser.add_argument("--data_dir", type=check.directory, help="as for train_torch.py")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_argument(
        "--pairs", metavar="PNG", help="save the samples closest to training images"
    )
    args = parser.parse_args(argv)
    args.run = args.run or PRETRAINED
    data_dir = args.data_dir or DATA_DIR
    try:
        model = GAN.from_checkpoint(args.run)
        test = mnist(data_dir, train=False, download=False).dataset
    except (ValueError, OSError) as error:
        parser.error(str(error))

    samples = model.sample(args.num_samples, torch.Generator().manual_seed(args.seed))
    scores = score(samples, Reference.of(test.images, test.labels))
    distances, pairs = memorization(samples, data_dir)
    scores |= distances
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, value in scores.items():
            print(f"{name:32}{value:10.4g}")
    if args.pairs:
        replace_file(Path(args.pairs), png(image_grid(pairs, len(pairs) // 2, scale=3)))


if __name__ == "__main__":
    check.run(main, OSError)
