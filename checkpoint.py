"""The checkpoint file: all that a run needs to go on, written so that it is never half there."""

import os
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Writes the contents to a new file, which takes the place of the old one when it is whole.

    Args:
        path: the checkpoint; its folder is made if it is not there.
        contents: tensors, numbers, strings, None, and lists and dicts of these.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        torch.save({"format": FORMAT, **contents}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
