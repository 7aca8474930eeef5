"""Runs minimal_gan.py with a seed, and scores its samples after 10 and 50 epochs.

    python -m benchmarks.minimal SEED DIRECTORY

Writes minimal-seed<seed>-epoch<epochs>.json, for the table of quality.py.
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks.common import REPOSITORY
from metrics import score


def main(seed: int, directory: Path) -> None:
    def report(text: str) -> None:
        """Stands in for print, which the script calls at the end of each epoch."""
        print(text, flush=True)
        epoch, averaged = script["epoch"], script["averaged"]
        if epoch in (10, 50):
            with torch.no_grad():
                samples = averaged(
                    torch.randn(10_000, 32, generator=torch.Generator().manual_seed(0))
                )
            path = directory / f"minimal-seed{seed}-epoch{epoch:03}.json"
            path.write_text(json.dumps({"epochs": epoch, **score(samples)}, indent=2))

    script = {"print": report}
    torch.manual_seed(seed)
    exec((REPOSITORY / "minimal_gan.py").read_text(encoding="utf-8"), script)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
