"""Generates images with a trained generator; without a run, with the repository's pretrained one.

python sample.py                                     samples.png: 64 digits
python sample.py GAN_logs/<date_time> --animate      animation.gif: a walk through latent space
python sample.py --arrays 60000                      samples.npz: images, latents, labels
python sample.py --digit 7                           sevens only, in each of these
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import command_line
from checkpoint import replace_file
from metrics import CONFIDENT, classify, load_classifier
from train_torch import GAN, PRETRAINED, slerp
from utils import gif, image_grid, png, to_gray

FRAMES, FRAME_SECONDS = 14, 0.05  # of an animation, from one latent to the next


class DigitGAN(GAN):
    """A GAN that generates one `digit` only, to be set after it was loaded."""

    digit: int

    def latents(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents `[B, z_dim]` whose images the classifier gives more than 90 % for this digit.

        Raises:
            OSError: there is none among a thousand.
        """
        found, classifier = torch.empty(0, self.z_dim), load_classifier()
        while len(found) < batch_size:
            z = super().latents(1000, generator)
            _, probabilities = classify(self.generate(z), classifier)
            confident = z[probabilities[:, self.digit] > CONFIDENT]
            if len(confident) == 0:
                raise OSError(f"no confident {self.digit} among 1,000 samples")
            found = torch.cat([found, confident])
        return found[:batch_size]


def animation(model: GAN, rows: int, columns: int, scale: int, rng: torch.Generator) -> bytes:
    """A looping GIF of a grid whose digits walk through latent space, back to where they began."""
    stops = [model.latents(rows * columns, rng) for _ in range(4)]
    frames = [
        image_grid(model.generate(slerp(start, end, step / FRAMES)), columns, scale)
        for start, end in zip(stops, [*stops[1:], stops[0]], strict=True)
        for step in range(FRAMES)
    ]
    return gif(frames, [FRAME_SECONDS] * len(frames))


def arrays(model: GAN, count: int, rng: torch.Generator) -> bytes:
    """A `.npz` file of samples, their latents and the labels that the classifier predicts.

    They are `images`, uint8 `[N, 28, 28]`, `latents`, float32 `[N, z_dim]`, and `labels`, uint8
    `[N]`.
    """
    latents = model.latents(count, rng)
    images = torch.cat([to_gray(model.generate(z)) for z in latents.split(1000)])
    _, probabilities = classify(images, load_classifier())
    labels = probabilities.argmax(1).byte()
    buffer = io.BytesIO()
    np.savez(buffer, images=images[:, 0].numpy(), latents=latents.numpy(), labels=labels.numpy())
    return buffer.getvalue()


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file that the command line asks for, and prints its path."""
    parser = command_line.Parser(
        description="Generates images with a trained generator.",
        epilog="Example: python sample.py GAN_logs/2026-01-31_12-00-00 --animate --grid 4 8",
    )
    run = "run directory or checkpoint file, if not the pretrained generator"
    parser.add_argument("run", nargs="?", default=PRETRAINED, help=run)
    what = parser.add_argument_group("what to write (a grid of samples if none is given)")
    what = what.add_mutually_exclusive_group().add_argument
    what("--interpolate", action="store_true", help="rows of interpolations, as a PNG")
    what("--animate", action="store_true", help="a walk through latent space, as a looping GIF")
    npz = "N images with latents and predicted labels, as a .npz file for numpy.load"
    count = command_line.checked(int, "an integer from 1 to 1000000", lambda n: 1 <= n <= 10**6)
    what("--arrays", type=count, metavar="N", help=npz)
    add = parser.add_argument_group("options for the output").add_argument
    add("--digit", type=int, choices=range(10), help="generate this digit only")
    size = {"type": command_line.positive, "nargs": 2, "metavar": ("ROWS", "COLUMNS")}
    add("--grid", default=[8, 8], help="size of the grid (default: 8 8)", **size)
    scale = "upscaling factor (default: %(default)s)"
    add("--scale", type=command_line.positive, default=3, help=scale)
    seed = "seed of the latents (default: %(default)s)"
    add("--seed", type=command_line.natural, default=0, help=seed)
    add("--raw", action="store_true", help="use the last weights, not the averaged ones")
    out = "output file (default: samples.png, ... in this directory)"
    add("--out", type=command_line.path, help=out)
    args = parser.parse_args(argv)
    try:
        gan = GAN if args.digit is None else DigitGAN
        model = gan.from_checkpoint(args.run, raw=args.raw)
    except OSError as error:
        parser.error(str(error))

    if isinstance(model, DigitGAN):
        model.digit = args.digit
    (rows, columns), rng = args.grid, torch.Generator().manual_seed(args.seed)
    if args.arrays:
        path, content = "samples.npz", arrays(model, args.arrays, rng)
    elif args.animate:
        path, content = "animation.gif", animation(model, rows, columns, args.scale, rng)
    elif args.interpolate:
        images = model.interpolate(rows, max(0, columns - 2), rng).flatten(0, 1)
        path, content = "interpolation.png", png(image_grid(images, max(2, columns), args.scale))
    else:
        images = model.sample(rows * columns, rng)
        path, content = "samples.png", png(image_grid(images, columns, args.scale))
    path = Path(args.out or path)
    replace_file(path, content)
    print(path)


if __name__ == "__main__":
    command_line.run(main, OSError)
