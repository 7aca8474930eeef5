"""Writes a page to explore the digits of a generator: one HTML file that needs no network.

    python -m explorer.export [RUN]                          explorer.html, in this directory
    python -m explorer.export --out explorer/explorer.html   the ready page in the repository

The page holds the weights of the generator, and computes digits in the browser.
"""

import base64
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import command_line
from checkpoint import replace_file
from train_torch import GAN, PRETRAINED
from utils import FILM, to_gray

TEMPLATE = Path(__file__).resolve().parent / "template.html"
MAX_PAGE = 2_000_000  # bytes


def explorer(model: GAN, title: str, film: Path) -> bytes:
    """The page of a generator.

    Args:
        title: what the page calls the generator.
        film: a GIF of its training, which is shown if there is one and there is room for it.

    Raises:
        OSError: the page cannot compute this generator, or would be too large.
    """
    linear = [layer for layer in model.averaged.modules() if isinstance(layer, nn.Linear)]
    latents = model.latents(64, torch.Generator().manual_seed(0))
    with torch.no_grad(), contextlib.suppress(RuntimeError, IndexError):  # as the page does
        x = latents
        for layer in linear[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        x = linear[-1](x).tanh()
    images = model.generate(latents)
    fits = images.shape[1:] == (1, 28, 28) and model.z_dim > 1
    fits = fits and all(layer.bias is not None for layer in linear)
    if not fits or not torch.equal(to_gray(x), to_gray(images).flatten(1)):
        raise OSError("the page can compute linear layers, LeakyReLU(0.2) and tanh only")
    weights = torch.cat([p.flatten() for layer in linear for p in (layer.weight, layer.bias)])
    # The page's pad moves along the latent directions that change the first layer most.
    directions = torch.linalg.svd(linear[0].weight).Vh[:2]
    data = {
        "title": title,
        "sizes": [model.z_dim, *(layer.out_features for layer in linear)],
        "weights": base64.b64encode(weights.half().cpu().numpy().tobytes()).decode(),
        "directions": directions.tolist(),
        "latents": latents.tolist(),
        "film": "",
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    if film.is_file():
        encoded = base64.b64encode(film.read_bytes()).decode()
        if len(template) + len(json.dumps(data)) + len(encoded) < MAX_PAGE:
            data["film"] = f"data:image/gif;base64,{encoded}"
    # "</" would end the page's script.
    page = template.replace("{{DATA}}", json.dumps(data).replace("</", "<\\/")).encode()
    if len(page) > MAX_PAGE:
        raise OSError(f"the page would be {len(page) / 1e6:.1f} MB, more than 2")
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page that the command line asks for, and prints its path."""
    parser = command_line.Parser(prog="explorer.export", description=__doc__.splitlines()[0])
    run = "run directory or checkpoint file, if not the pretrained generator"
    parser.add_argument("run", nargs="?", type=command_line.path, default=PRETRAINED, help=run)
    out = "output file (default: %(default)s)"
    parser.add_argument("--out", type=command_line.path, default="explorer.html", help=out)
    args = parser.parse_args(argv)
    run = Path(args.run)
    run_dir = run if run.is_dir() else run.parents[1]
    title = "the pretrained generator" if run == PRETRAINED else run_dir.name
    replace_file(Path(args.out), explorer(GAN.from_checkpoint(run), title, run_dir / FILM))
    print(args.out)


if __name__ == "__main__":
    command_line.run(main, OSError)
