"""Writes docs/distances.png: samples of one run at several distances, and real images.

python -m benchmarks.distances GAN_logs/<name>
"""

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.common import REPOSITORY, STEPS, scalars
from mnist import mnist
from utils import image_grid, load_grid, sample_grids

GOALS = 10, 1.2, 0.4, 0.17
COLUMNS, CELL, LABEL = 16, 30, 90  # images in a row, their width with border, that of the text
SCALE = 2


def row_of(grid: Image.Image) -> Image.Image:
    """The first two rows of a sample grid as one."""
    row = Image.new("L", (COLUMNS * CELL, CELL))
    for half in range(2):
        row.paste(
            grid.convert("L").crop((0, half * CELL, 8 * CELL, (half + 1) * CELL)),
            (half * 8 * CELL, 0),
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of the default command")
    run = parser.parse_args().run
    distances = {step // STEPS: d for step, d in scalars(run)["quality/frechet_distance"]}
    grids = {epoch: path for epoch, path in sample_grids(run) if epoch in distances}
    rows = []
    for goal in GOALS:
        epoch = min(grids, key=lambda epoch: abs(math.log(distances[epoch] / goal)))
        text = f"{distances[epoch]:.2g}\nepoch {epoch}"
        rows.append((text, row_of(load_grid(grids[epoch]))))
    real = image_grid(mnist(train=False).dataset.images[:64], 8)
    rows.append(("real", row_of(real)))
    picture = Image.new("L", (LABEL + COLUMNS * CELL, len(rows) * CELL), 255)
    for number, (text, row) in enumerate(rows):
        picture.paste(row, (LABEL, number * CELL))
        ImageDraw.Draw(picture).multiline_text((4, number * CELL + 2), text, fill=0)
    size = picture.width * SCALE, picture.height * SCALE
    path = REPOSITORY / "docs" / "distances.png"
    picture.resize(size, Image.NEAREST).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
