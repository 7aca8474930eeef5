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

import command_line
from checkpoint import replace_file
from metrics import nearest_images, score
from mnist import mnist
from train_torch import GAN, PRETRAINED, load_reference
from utils import image_grid, png, to_gray

NEIGHBORS, PAIRS = 1000, 10  # images whose nearest training image is searched; pairs shown


def memorization(
    samples: Tensor, training: Tensor, test: Tensor
) -> tuple[dict[str, float], Tensor]:
    """How close samples come to training images, compared with test images.

    Args:
        samples, training, test: `[N, 1, 28, 28]` each, floating point in [-1, 1] or uint8.

    Returns:
        The medians of both distances, L2 over pixels in [-1, 1]; a generator that memorizes has
        the smaller one. And the closest pairs, at most `PAIRS`, uint8 `[2 * n, 1, 28, 28]`:
        samples, then their training images.
    """
    distances, neighbors = nearest_images(samples[:NEIGHBORS], training)
    test_distances, _ = nearest_images(test[:NEIGHBORS], training)
    closest = distances.argsort()[:PAIRS]
    pairs = torch.cat([to_gray(samples[closest]), to_gray(training[neighbors[closest]])])
    return {
        "nearest_training_image": distances.median().item(),
        "nearest_training_image_of_test": test_distances.median().item(),
    }, pairs


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the scores of a run directory or a checkpoint file, one per line or as JSON."""
    parser = command_line.Parser(
        description="Scores the samples of a trained generator.",
        epilog="Example: python evaluate.py GAN_logs/2026-01-31_12-00-00 --pairs closest.png",
    )
    add = parser.add_argument
    run = "run directory or checkpoint file, if not the pretrained generator"
    add("run", nargs="?", default=PRETRAINED, help=run)
    number = command_line.checked(int, "an integer of at least 6", lambda n: n >= 6)
    count = "samples to score (default: %(default)s)"
    add("--num_samples", type=number, default=10_000, help=count)
    seed = "seed of the latents (default: %(default)s)"
    add("--seed", type=command_line.natural, default=0, help=seed)
    add("--data_dir", type=command_line.directory, help="as for train_torch.py")
    add("--json", action="store_true", help="print the scores as JSON")
    closest = "save the samples closest to training images"
    add("--pairs", type=command_line.path, metavar="PNG", help=closest)
    args = parser.parse_args(argv)
    data = {"root": args.data_dir} if args.data_dir else {}
    try:
        model = GAN.from_checkpoint(args.run)
        reference = load_reference(**data)
    except OSError as error:
        parser.error(str(error))

    samples = model.sample(args.num_samples, torch.Generator().manual_seed(args.seed))
    scores = score(samples, reference)
    training = mnist(**data).dataset.images
    distances, pairs = memorization(samples, training, reference.images)
    scores |= distances
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, value in scores.items():
            print(f"{name:32}{value:10.4g}")
    if args.pairs:
        replace_file(Path(args.pairs), png(image_grid(pairs, len(pairs) // 2, scale=3)))


if __name__ == "__main__":
    command_line.run(main, OSError)
