"""Runs minimal_gan.py with a seed, and scores its samples after 10 and 50 epochs.

    python -m benchmarks.minimal SEED DIRECTORY

Writes minimal-seed<seed>-epoch<epochs>.json, for the table of quality.py.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.common import REPOSITORY
from metrics import score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()

    def report(text: str) -> None:
        """Stands in for print, which the script calls at the end of each epoch."""
        print(text, flush=True)
        epoch = script["epoch"]
        if epoch in (10, 50):
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(0)
                samples = script["averaged"](script["latents"](10_000))
            path = args.directory / f"minimal-seed{args.seed}-epoch{epoch:03}.json"
            path.write_text(json.dumps({"epochs": epoch, **score(samples)}, indent=2))

    script = {"print": report}
    torch.manual_seed(args.seed)
    exec((REPOSITORY / "minimal_gan.py").read_text(encoding="utf-8"), script)


if __name__ == "__main__":
    main()
