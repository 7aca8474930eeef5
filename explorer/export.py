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
from torch import Tensor, nn

import command_line
from metrics import CONFIDENT, classify
from train_torch import CATEGORY_LENGTH, GAN, PRETRAINED, category_digits
from utils import sample_grids, to_gray

TEMPLATE = Path(__file__).resolve().parent / "template.html"


def explorer(model: GAN, run: Path) -> str:
    """The page of a generator, and of the training if its `run` has sample grids.

    Raises:
        OSError: the page cannot compute this generator.
    """
    linear = [layer for layer in model.averaged.modules() if isinstance(layer, nn.Linear)]
    latents = model.latents(64, torch.Generator().manual_seed(0))
    with torch.no_grad(), contextlib.suppress(RuntimeError, IndexError):  # as the page does
        x = latents
        for layer in linear[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        x = linear[-1](x).tanh()
    images = model.generate(latents)
    fits = images.shape[1:] == (1, 28, 28) and model.z_dim > model.categories + 1
    fits = fits and all(layer.bias is not None for layer in linear)
    if not fits or not torch.equal(to_gray(x), to_gray(images).flatten(1)):
        layers = "linear layers, LeakyReLU(0.2) and tanh"
        raise OSError(f"the page can compute {layers} only, of 2 or more normal latent numbers")
    weights = [torch.cat([layer.weight.flatten(), layer.bias]).detach() for layer in linear]
    # float16 halves the page. The first layer is small, and its errors would be amplified most.
    weights = [weights[0].float(), *(layer.half() for layer in weights[1:])]
    # The latent directions that change the first layer most, within a category: of the pad the
    # first two.
    within = linear[0].weight.detach()[:, model.categories :]
    directions = F.pad(torch.linalg.svd(within).Vh[:8], (model.categories, 0))
    if model.categories:  # their names
        names = category_digits(model, 200, torch.Generator().manual_seed(0))[0].tolist()
    data = {
        "title": "the pretrained generator" if run == PRETRAINED else run.name,
        "sizes": [model.z_dim, *(len(layer.bias) for layer in linear)],
        "weights": [base64.b64encode(layer.numpy().tobytes()).decode() for layer in weights],
        "directions": rounded(directions),
        "latents": rounded(latents),
        "digits": [] if model.categories else digit_latents(model),
        "categories": names if model.categories else [],
        "length": CATEGORY_LENGTH,
        "training": [(epoch, data_url(path)) for epoch, path in sample_grids(run)],
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace("{{DATA}}", json.dumps(data).replace("<", "\\u003c"))


def rounded(vectors: Tensor) -> list[list[float]]:
    """Vectors as short numbers."""
    return vectors.double().round(decimals=4).tolist()


def digit_latents(model: GAN) -> list[list[list[float]]]:
    """For each digit the latents, 8 at most, that the classifier is most sure of, above 90 %."""
    latents = model.latents(2000, torch.Generator().manual_seed(0))
    _, probabilities = classify(model.generate(latents))
    best = probabilities.topk(8, dim=0)  # of each digit, a column
    columns = zip(best.values.T, best.indices.T, strict=True)
    return [rounded(latents[indices[values > CONFIDENT]]) for values, indices in columns]


def data_url(path: Path) -> str:
    """A sample grid as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page that the command line asks for, and prints its path."""
    parser = command_line.Parser(prog="explorer.export", description=__doc__.splitlines()[0])
    run = {"nargs": "?", "type": command_line.path, "default": PRETRAINED}
    parser.add_argument("run", help=command_line.RUN, **run)
    out = "output file (default: %(default)s)"
    parser.add_argument("--out", type=command_line.path, default="explorer.html", help=out)
    args = parser.parse_args(argv)
    page = explorer(GAN.from_checkpoint(args.run), Path(args.run))
    Path(args.out).write_text(page, encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    command_line.run(main)
