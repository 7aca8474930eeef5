"""Generates images with a trained generator; without a run, with the repository's pretrained one.

python sample.py                                     samples.png: 64 digits
python sample.py GAN_logs/<name> --animate           animation.gif: a walk through latent space
python sample.py --categories                        categories.png: a row for each category
python sample.py --arrays 60000                      samples.npz: images, latents, labels
python sample.py --digit 7                           sevens only, in each of these but categories
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import command_line
from metrics import CONFIDENT, classify
from train_torch import GAN, PRETRAINED, slerp
from utils import image_grid, save_gif, to_gray

FRAMES = 24  # of an animation, from one latent to the next
FRAME_SECONDS = 0.06


def only_digit(model: GAN, digit: int) -> None:
    """From now on, the model draws only latents whose images the classifier is sure are the digit.

    It gives them more than 90 % for it. If there is none among a thousand, an OSError says so.
    """
    draw = model.latents

    def latents(batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        found: list[Tensor] = []
        while len(found) < batch_size:
            z = draw(1000, generator)
            _, probabilities = classify(model.generate(z))
            right = z[probabilities[:, digit] > CONFIDENT]
            if len(right) == 0:
                raise OSError(f"no confident {digit} among 1,000 samples")
            found.extend(right)
        return torch.stack(found[:batch_size])

    model.latents = latents


def save_animation(
    path: Path, model: GAN, rows: int, columns: int, scale: int, rng: torch.Generator
) -> None:
    """A looping GIF of a grid whose digits walk through latent space, back to where they began."""
    stops = [model.latents(rows * columns, rng) for _ in range(4)]
    if model.categories:  # which each digit keeps: between two there are images that are none
        category = stops[0][:, : model.categories].argmax(1)
        stops = [model.in_category(z, category) for z in stops]
    frames = (
        image_grid(model.generate(slerp(start, end, step / FRAMES)), columns, scale)
        for start, end in zip(stops, [*stops[1:], stops[0]], strict=True)
        for step in range(FRAMES)
    )
    save_gif(path, frames, [FRAME_SECONDS] * len(stops) * FRAMES)


def save_arrays(path: Path, model: GAN, count: int, rng: torch.Generator) -> None:
    """A `.npz` file of samples, their latents and the labels that the classifier predicts.

    They are `images`, uint8 `[N, 28, 28]`, `latents`, float32 `[N, z_dim]`, and `labels`, uint8
    `[N]`.
    """
    z = model.latents(count, rng)
    images = to_gray(model.generate(z))
    labels = classify(images)[1].argmax(1).byte()
    with open(path, "wb") as file:  # numpy would append .npz to a path
        np.savez(file, images=images[:, 0].numpy(), latents=z.numpy(), labels=labels.numpy())


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file that the command line asks for, and prints its path."""
    parser = command_line.Parser(
        description="Generates images with a trained generator.",
        epilog="Example: python sample.py GAN_logs/2026-01-31_12-00-00 --animate --grid 4 8",
    )
    parser.add_argument("run", nargs="?", default=PRETRAINED, help=command_line.RUN)
    what = parser.add_argument_group("what to write (a grid of samples if none is given)")
    what = what.add_mutually_exclusive_group().add_argument
    what("--categories", action="store_true", help="a row of samples for each category, as a PNG")
    what("--interpolate", action="store_true", help="rows of interpolations, as a PNG")
    what("--animate", action="store_true", help="a walk through latent space, as a looping GIF")
    what(
        "--arrays",
        type=command_line.positive,
        metavar="N",
        help="N images with latents and predicted labels, as a .npz file for numpy.load",
    )
    add = parser.add_argument_group("options for the output").add_argument
    add("--digit", type=int, choices=range(10), help="generate this digit only")
    size = {"type": command_line.positive, "nargs": 2, "metavar": ("ROWS", "COLUMNS")}
    add("--grid", default=[8, 8], help="size of the grid (default: 8 8)", **size)
    add("--scale", type=command_line.positive, default=3, help="upscaling factor (default: 3)")
    add("--seed", type=command_line.seed, default=0, help="seed of the latents (default: 0)")
    add("--raw", action="store_true", help="use the last weights, not the averaged ones")
    add("--out", type=command_line.path, help="output file (default: samples.png, ... here)")
    args = parser.parse_args(argv)

    model = GAN.from_checkpoint(args.run, raw=args.raw)
    if args.digit is not None:
        only_digit(model, args.digit)
    (rows, columns), rng = args.grid, torch.Generator().manual_seed(args.seed)
    if args.arrays:
        path = Path(args.out or "samples.npz")
        save_arrays(path, model, args.arrays, rng)
    elif args.categories:
        if args.digit is not None:
            raise argparse.ArgumentTypeError("argument --digit: not allowed with --categories")
        if not model.categories:
            raise argparse.ArgumentTypeError("argument --categories: this generator has none")
        path = Path(args.out or "categories.png")
        image_grid(model.sample_categories(columns, rng), columns, args.scale).save(path, "PNG")
    elif args.animate:
        path = Path(args.out or "animation.gif")
        save_animation(path, model, rows, columns, args.scale, rng)
    elif args.interpolate:
        path = Path(args.out or "interpolation.png")
        images = model.interpolate(rows, max(0, columns - 2), rng).flatten(0, 1)
        image_grid(images, max(2, columns), args.scale).save(path, "PNG")
    else:
        path = Path(args.out or "samples.png")
        image_grid(model.sample(rows * columns, rng), columns, args.scale).save(path, "PNG")
    print(path)


if __name__ == "__main__":
    command_line.run(main)
