"""Trains the default recipe, and shows its samples at several distances above real images.

    python -m benchmarks.distances        as long as a run of 50 epochs

Writes docs/distances.png. All rows of samples are of the same latents.
"""

import argparse

import torch
from PIL import Image, ImageDraw

from benchmarks import common
from mnist import mnist
from train_torch import GAN, parse_args, score_samples
from utils import image_grid

EPOCHS = 1, 5, 15, 50  # with distances of about 9, 1.2, 0.4 and 0.15
COLUMNS, SCALE, LABEL = 16, 2, 180  # images in a row, pixels for each of theirs, for the text


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    saved = common.train_timed(seed=42, epochs=max(EPOCHS))
    model, labels, images = GAN.from_args(parse_args([])), [], []
    for epoch in EPOCHS:
        model.averaged.load_state_dict(saved[epoch - 1][1])
        distance = score_samples(model, 10_000)["frechet_distance"]
        labels.append(f"{distance:.2g}\nepoch {epoch}")
        images.append(model.sample(COLUMNS, torch.Generator().manual_seed(0)))
    real, _ = mnist(train=False).dataset[torch.arange(COLUMNS)]
    grid = image_grid(torch.cat([*images, real]), COLUMNS, SCALE)
    picture = Image.new("L", (LABEL + grid.width, grid.height), 255)
    picture.paste(grid, (LABEL, 0))
    for row, label in enumerate([*labels, "real images"]):
        place = 8, row * grid.height // (len(EPOCHS) + 1) + 6
        ImageDraw.Draw(picture).multiline_text(place, label, fill=0, font_size=18)
    path = common.REPOSITORY / "docs" / "distances.png"
    picture.save(path, optimize=True)
    print(path, *labels)


if __name__ == "__main__":
    main()
