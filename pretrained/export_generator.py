"""Writes the generator of a finished run to pretrained/, with its scores.

    OMP_NUM_THREADS=1 python train_torch.py --seed 0
    python -m pretrained.export_generator GAN_logs/<name>

Writes generator.pt, a checkpoint with the averaged weights alone, and generator.json.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch

import checkpoint
from train_torch import PRETRAINED
from utils import git_commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="its run directory")
    run = parser.parse_args().run
    saved, commit = checkpoint.load(run), git_commit()
    args = checkpoint.hyperparameters(saved["args"])
    epoch, averaged = saved["epoch"], saved["averaged"]
    contents = {"format": checkpoint.FORMAT, "epoch": epoch, "args": args, "averaged": averaged}
    torch.save(contents, PRETRAINED)
    scores = json.loads((run / "scores.json").read_text())
    about = {
        "commit": commit,
        "sha256": hashlib.sha256(PRETRAINED.read_bytes()).hexdigest(),
        "epochs": scores.pop("epochs"),
        "args": args,
        "scores": scores,
    }
    path = PRETRAINED.with_suffix(".json")
    path.write_text(json.dumps(about, indent=2) + "\n")
    print(f"{PRETRAINED}: {PRETRAINED.stat().st_size / 1e6:.2f} MB\n{path}")


if __name__ == "__main__":
    main()
