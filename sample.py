"""Generates images with a trained generator; without a run, with the repository's pretrained one.

python sample.py                                     samples.png: 64 digits
python sample.py GAN_logs/<date_time> --animate      animation.gif: a walk through latent space
python sample.py --explorer                          explorer.html: a page to explore them
"""

import base64
import contextlib
import json
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import command_line as check
from checkpoint import replace_file
from metrics import classify, load_classifier
from train_torch import GAN, PRETRAINED
from utils import PROGRESS, gif, image_grid, png, to_gray

PAGE = Path(__file__).resolve().parent / "explorer_template.html"
FRAMES, FRAME_SECONDS = 14, 0.05  # of an animation, from one latent to the next
BATCH = 1000
MAX_PAGE = 2_000_000  # bytes


def slerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Spherical interpolation of latents `[..., z_dim]`, from `start` at 0 to `end` at 1.

    Latents of a normal distribution all have nearly the same length, which the points on a
    straight line between them do not have (White, 2016, arXiv:1609.04468).
    """
    cosine = F.cosine_similarity(start, end, dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = cosine.acos().clamp(min=1e-4)
    return (((1 - weight) * angle).sin() * start + (weight * angle).sin() * end) / angle.sin()


def animation(model: GAN, rows: int, columns: int, scale: int, rng: torch.Generator) -> bytes:
    """A looping GIF of a grid whose digits walk through latent space, back to where they began."""
    stops = [model.latents(rows * columns, rng) for _ in range(4)]
    frames = [
        image_grid(model.generate(slerp(start, end, step / FRAMES)), columns, scale)
        for start, end in zip(stops, [*stops[1:], stops[0]], strict=True)
        for step in range(FRAMES)
    ]
    return gif(frames, [FRAME_SECONDS] * len(frames))


def save_arrays(model: GAN, count: int, seed: int, path: Path) -> None:
    """Writes images, latents and the classifier's labels to a `.npz` file, in constant memory.

    The arrays are `images`, uint8 `[N, 28, 28]`, `latents`, float32 `[N, z_dim]`, and `labels`,
    uint8 `[N]`.

    Raises:
        OSError: the file could not be written.
    """
    classifier = load_classifier()

    def latents(name: str) -> Iterator[Tensor]:
        """The same latents each time, in batches."""
        rng = torch.Generator().manual_seed(seed)
        for start in tqdm(range(0, count, BATCH), name, disable=count < 50 * BATCH):
            yield model.latents(min(BATCH, count - start), rng)

    def images(name: str) -> Iterator[Tensor]:
        return (to_gray(model.generate(z)) for z in latents(name))

    labels = (classify(x, classifier)[1].argmax(1).byte() for x in images("labels"))
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(unfinished, "w") as archive:
            write_array(archive, "images", (count, 28, 28), images("images"))
            write_array(archive, "latents", (count, model.z_dim), latents("latents"))
            write_array(archive, "labels", (count,), labels)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], parts: Iterable[Tensor]
) -> None:
    """Writes one array of a `.npz` file part by part; `np.savez` would need all of it in memory."""
    parts = iter(parts)
    part = next(parts).numpy()
    header = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
        file.write(part.tobytes())
        for part in parts:
            file.write(part.numpy().tobytes())


def explorer(model: GAN, run: str | Path, rng: torch.Generator) -> bytes:
    """A self-contained HTML page that computes digits in the browser.

    It holds the generator's weights in float16, and the film of the run's progress if there is one
    and the page stays below 2 MB. The template is `explorer_template.html`.

    Raises:
        ValueError: the page cannot compute this generator, or would be too large.
    """
    linear = [m for m in model.averaged.module.modules() if isinstance(m, nn.Linear)]
    latents = model.latents(64, rng)
    with torch.no_grad(), contextlib.suppress(RuntimeError, IndexError):  # as the page does
        x = latents
        for layer in linear[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        x = linear[-1](x).tanh()
    images = model.generate(latents)
    fits = images.shape[1:] == (1, 28, 28) and model.z_dim > 1
    fits = fits and all(layer.bias is not None for layer in linear)
    if not fits or not torch.equal(to_gray(x), to_gray(images).flatten(1)):
        raise ValueError("the page can compute linear layers, LeakyReLU(0.2) and tanh only")
    run = Path(run).resolve()
    run_dir = run if run.is_dir() else run.parent.parent
    weights = torch.cat([p.detach().flatten() for layer in linear for p in layer.parameters()])
    # The page's pad moves along the latent directions that change the first layer most.
    directions = torch.linalg.svd(linear[0].weight.detach()).Vh[:2]
    data = {
        "title": "the pretrained generator" if run == PRETRAINED else run_dir.name,
        "sizes": [model.z_dim, *(layer.out_features for layer in linear)],
        "weights": base64.b64encode(weights.half().numpy().tobytes()).decode(),
        "directions": directions.tolist(),
        "latents": latents.tolist(),
        "film": "",
    }
    page, film = PAGE.read_text(encoding="utf-8"), run_dir / PROGRESS
    if film.is_file():
        encoded = base64.b64encode(film.read_bytes()).decode()
        if len(page) + len(json.dumps(data)) + len(encoded) < MAX_PAGE:
            data["film"] = f"data:image/gif;base64,{encoded}"
    # "</" would end the page's script.
    content = page.replace("{{DATA}}", json.dumps(data).replace("</", "<\\/")).encode()
    if len(content) > MAX_PAGE:
        raise ValueError(f"the page would be {len(content) / 1e6:.1f} MB, more than 2")
    return content


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file that the command line asks for, and prints its path."""
    parser = check.Parser(
        "Generates images with a trained generator.",
        example="python sample.py GAN_logs/2026-01-31_12-00-00 --animate --grid 4 8",
    )
    parser.add_argument(
        "run", nargs="?", help="run directory or checkpoint file, if not the pretrained generator"
    )
    what = parser.add_argument_group("what to write (a grid of samples if none is given)")
    what = what.add_mutually_exclusive_group().add_argument
    what("--interpolate", action="store_true", help="rows of interpolations, as a PNG")
    what("--animate", action="store_true", help="a walk through latent space, as a looping GIF")
    what(
        "--arrays",
        type=check.positive_int,
        metavar="N",
        help="N images with latents and predicted labels, as a .npz file for numpy.load",
    )
    what("--explorer", action="store_true", help="a page to explore the digits, as one HTML file")
    add = parser.add_argument_group("options for the output").add_argument
    add(
        "--grid",
        type=check.grid_size,
        nargs=2,
        default=[8, 8],
        metavar=("ROWS", "COLUMNS"),
        help="size of the grid",
    )
    add("--scale", type=check.scale, default=3, help="upscaling factor")
    add("--seed", type=check.seed, default=0, help="seed of the latents")
    add("--raw", action="store_true", help="use the last weights, not the averaged ones")
    add("--out", type=Path, help="output file (default: samples.png, ... in this directory)")
    args = parser.parse_args(argv)
    args.run = args.run or PRETRAINED
    try:
        model = GAN.from_checkpoint(args.run, raw=args.raw)
    except ValueError as error:
        parser.error(str(error))

    (rows, columns), rng = args.grid, torch.Generator().manual_seed(args.seed)
    if args.arrays:
        path = args.out or Path("samples.npz")
        save_arrays(model, args.arrays, args.seed, path)
    elif args.animate:
        path = args.out or Path("animation.gif")
        replace_file(path, animation(model, rows, columns, args.scale, rng))
    elif args.explorer:
        path = args.out or Path("explorer.html")
        replace_file(path, explorer(model, args.run, rng))
    elif args.interpolate:
        path, columns = args.out or Path("interpolation.png"), max(2, columns)
        images = model.interpolate(rows, columns - 2, rng).flatten(0, 1)
        replace_file(path, png(image_grid(images, columns, args.scale)))
    else:
        path = args.out or Path("samples.png")
        images = model.sample(rows * columns, rng)
        replace_file(path, png(image_grid(images, columns, args.scale)))
    print(path)


if __name__ == "__main__":
    check.run(main, OSError, ValueError)
