"""Writes the generator of a finished run to pretrained/, with its scores.

    OMP_NUM_THREADS=1 python train_torch.py
    python benchmarks/export_generator.py GAN_logs/<date_time>

Writes generator.pt, the averaged weights alone, and generator.json.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from checkpoint import FORMAT, load_checkpoint  # noqa: E402
from train_torch import HYPERPARAMETERS, PRETRAINED  # noqa: E402


def main(run: str) -> None:
    saved = load_checkpoint(run)
    args = {name: saved["args"][name] for name in HYPERPARAMETERS}
    prefix = "averaged.module."
    weights = {k.removeprefix(prefix): v for k, v in saved["model"].items() if prefix in k}
    contents = {"format": FORMAT, "epoch": saved["epoch"], "args": args, "generator": weights}
    torch.save(contents, PRETRAINED)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    about = {
        "commit": commit.stdout.strip(),
        "sha256": hashlib.sha256(PRETRAINED.read_bytes()).hexdigest(),
        "epochs": saved["epoch"],
        "args": args,
        "scores": json.loads(Path(run, "scores.json").read_text()),
    }
    path = PRETRAINED.with_suffix(".json")
    path.write_text(json.dumps(about, indent=2) + "\n")
    print(f"{PRETRAINED}: {PRETRAINED.stat().st_size / 1e6:.2f} MB\n{path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
