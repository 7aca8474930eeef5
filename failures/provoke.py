"""Provokes the failures of docs/failures.md and makes its figures.

    python benchmarks/failures.py [NAME ...]        all of them: about six minutes

Each is a real run of a copy of the package, with flags or with one line changed. Its last sample
grid and its curves go to docs/failures/<name>.png. Needs matplotlib.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from kill_and_resume import scalars

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURES = REPOSITORY / "docs" / "failures"


class Failure(NamedTuple):
    flags: str
    line: str = ""  # of train_torch.py
    instead: str = ""
    raw: bool = False  # show the samples of the raw weights, too


FAILURES = {
    "healthy": Failure("--epochs 5"),
    "discriminator_wins": Failure("--epochs 5 --lr 1e-5 --lr_disc 1e-2 --r1 0"),
    "saturating_loss": Failure(
        "--epochs 5 --r1 0",
        "loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))",
        "loss = -F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))",
    ),
    "mode_collapse": Failure("--epochs 2 --betas 0.9 0.99"),
    "oscillation": Failure("--epochs 5 --lr 4e-3 --lr_disc 4e-3", raw=True),
    "over_regularization": Failure("--epochs 5 --r1 100"),
    "long_average": Failure(
        "--epochs 2 --ema 10000",
        "mean.lerp(new, 1 / (1 + (n / 5).clamp(max=ema)))",
        "mean.lerp(new, 1 / (1 + ema))",
        raw=True,
    ),
}


def provoke(failure: Failure, copy: Path) -> Path:
    """Trains in a copy of the package; returns the run directory."""
    for path in REPOSITORY.glob("*.py"):
        shutil.copy(path, copy)
    shutil.copytree(REPOSITORY / "pretrained", copy / "pretrained")
    source = (copy / "train_torch.py").read_text()
    if failure.line not in source:
        raise ValueError(f"train_torch.py has no line {failure.line!r}")
    if failure.line:
        (copy / "train_torch.py").write_text(source.replace(failure.line, failure.instead))
    flags = [*failure.flags.split(), "--data_dir", REPOSITORY / "data", "--log_dir", copy / "logs"]
    subprocess.run([sys.executable, "train_torch.py", *flags], cwd=copy, check=True)
    (run,) = (copy / "logs").iterdir()
    if failure.raw:
        flags = ["--raw", "--scale", "1", "--out", run / "raw.png"]
        subprocess.run([sys.executable, "sample.py", run, *flags], cwd=copy, check=True)
    return run


def plot(name: str, run: Path) -> None:
    """Plots the last sample grid beside the curves, and prints the score."""
    curves = scalars(run)
    grids = {"samples": max(run.glob("samples_epoch_*.png")), "raw weights": run / "raw.png"}
    grids = {title: path for title, path in grids.items() if path.exists()}
    figure, axes = plt.subplots(
        1, len(grids) + 2, figsize=(3.4 * (len(grids) + 2), 3.4), layout="constrained"
    )
    for (title, path), panel in zip(grids.items(), axes, strict=False):
        panel.imshow(plt.imread(path), cmap="gray")
        panel.set(title=title, xticks=[], yticks=[])
    for panel, title, tags in [
        (axes[-2], "D(x), D(G(z))", ("probability_real", "probability_fake")),
        (axes[-1], "losses", ("loss",)),
    ]:
        for tag in tags:
            label = {"probability_real": "D(x)", "probability_fake": "D(G(z))"}.get(tag, "D")
            panel.plot(*zip(*curves[f"discriminator/{tag}"], strict=True), label=label)
        if tags == ("loss",):
            panel.plot(*zip(*curves["generator/loss"], strict=True), label="G")
        panel.set(title=title, xlabel="step")
        if len(tags) == 2:
            panel.set_ylim(-0.02, 1.02)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(PICTURES / f"{name}.png", dpi=80)
    scores = json.loads((run / "scores.json").read_text())
    shown = (
        "frechet_distance",
        "precision",
        "recall",
        "coverage",
        "smallest_share",
        "missing_digits",
    )
    print(name, *(f"{key} {scores[key]:.3f}" for key in shown), flush=True)


def main(names: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    for name in names or FAILURES:
        with tempfile.TemporaryDirectory() as copy:
            plot(name, provoke(FAILURES[name], Path(copy)))


if __name__ == "__main__":
    main(sys.argv[1:])
