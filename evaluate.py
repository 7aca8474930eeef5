"""Scores the samples of a trained generator, always against MNIST's test images; see metrics.py.

    python evaluate.py GAN_logs/<name>      under a minute on 2 cores
    python evaluate.py                      the pretrained generator

Scores depend on the number of samples: compare those of the same number.
"""

import json
from collections.abc import Sequence

import torch

import command_line
from metrics import REFERENCE, nearest_images, score
from mnist import mnist
from train_torch import GAN, PRETRAINED
from utils import image_grid, to_gray

NEIGHBORS, PAIRS = 1000, 10  # samples whose nearest training image is searched; pairs shown


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the scores of a run directory or a checkpoint file, one per line or as JSON.

    The medians of the distances from samples and from test images to their nearest training image,
    L2 over pixels in [-1, 1], tell memorization: samples would have the smaller one.
    """
    parser = command_line.Parser(
        description="Scores the samples of a trained generator against MNIST's test images.",
        epilog="Example: python evaluate.py GAN_logs/2026-01-31_12-00-00 --pairs closest.png",
    )
    add = parser.add_argument
    run = "run directory or checkpoint file, if not the pretrained generator"
    add("run", nargs="?", default=PRETRAINED, help=run)
    number = command_line.checked(int, "an integer of at least 6", lambda n: n >= 6)
    count = "samples to score (default: %(default)s)"
    add("--num_samples", type=number, default=10_000, help=count)
    seed = "seed of the latents (default: %(default)s)"
    add("--seed", type=command_line.seed, default=0, help=seed)
    add("--data_dir", type=command_line.path, help="as for train_torch.py")
    add("--json", action="store_true", help="print the scores as JSON")
    closest = "save the samples closest to training images, above these images"
    add("--pairs", type=command_line.path, metavar="PNG", help=closest)
    args = parser.parse_args(argv)

    model = GAN.from_checkpoint(args.run)
    samples = model.sample(args.num_samples, torch.Generator().manual_seed(args.seed))
    scores = score(samples)
    loader = mnist(root=args.data_dir) if args.data_dir else mnist()
    training = torch.cat([to_gray(images) for images, _ in loader])
    distances, neighbors = nearest_images(samples[:NEIGHBORS], training)
    scores["nearest_training_image"] = distances.median().item()
    of_test = torch.load(REFERENCE, weights_only=True)["nearest_training_image"]
    scores["nearest_training_image_of_test"] = of_test.item()
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, value in scores.items():
            print(f"{name:32}{value:10.4g}")
    if args.pairs:
        closest = distances.argsort()[:PAIRS]
        pairs = torch.cat([to_gray(samples[closest]), training[neighbors[closest]]])
        image_grid(pairs, len(closest), scale=3).save(args.pairs, "PNG")


if __name__ == "__main__":
    command_line.run(main)
