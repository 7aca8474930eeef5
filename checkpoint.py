"""The run directory and the checkpoint file: written atomically, read without executing code."""

import contextlib
import io
import itertools
import os
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")  # relative to the run directory
FORMAT = 3  # increase it when other versions of this package could not read the contents


def make_run_dir(log_dir: str | Path, name: str | None = None, job_id: str | None = None) -> Path:
    """Creates `log_dir/<date_time>[_<n>][_<name>][_job<job_id>]`, a new directory every time."""
    date_time = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    suffix = (f"_{name}" if name else "") + (f"_job{job_id}" if job_id else "")
    for number in itertools.count(1):
        run_dir = Path(log_dir, date_time + (f"_{number}" if number > 1 else "") + suffix)
        with contextlib.suppress(FileExistsError):
            run_dir.mkdir(parents=True)
            return run_dir


class Checkpoint:
    """The checkpoint file of a run, replaced as a whole: at any moment it is complete.

    `state` are the model and the optimizers by name. They are restored from `saved`, what
    `load_checkpoint` has read from the file; OSError is raised if other networks were saved.
    """

    def __init__(self, run_dir: Path, state: dict[str, Any], saved: dict | None = None):
        self.path, self.state = run_dir / CHECKPOINT, state
        self.version = saved["version"] if saved else None
        self.saved_at = time.monotonic()
        try:
            for name, part in state.items() if saved else ():
                part.load_state_dict(saved[name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise OSError(f"{self.path} does not fit models.py: {reason}") from error

    def save(self, **values: Any) -> None:
        """Replaces the file by one with the current state and these values.

        Raises:
            OSError: the file could not be written, or another process has replaced it since this
                one read or wrote it. The existing file is kept.
        """
        contents = {name: part.state_dict() for name, part in self.state.items()}
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **values, **contents}, buffer)
        if file_version(self.path) != self.version:
            raise OSError(f"{self.path} was replaced by another process; is the run resumed twice?")
        replace_file(self.path, buffer.getvalue())
        self.version, self.saved_at = file_version(self.path), time.monotonic()


def load_checkpoint(run: str | Path) -> dict[str, Any]:
    """Reads the checkpoint of a run directory, or the file itself, without executing code in it.

    Returns:
        What was saved, all tensors on the CPU; also the file's `version` and its `run_dir`, None if
        the file is not where a run has it.

    Raises:
        ValueError: there is no such file, or it is not a checkpoint of this format; says which.
    """
    path = Path(run, CHECKPOINT) if Path(run).is_dir() else Path(run)
    try:
        version, content = file_version(path), io.BytesIO(path.read_bytes())
        contents = torch.load(content, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except Exception:  # the unpickler can fail in any way on a file of another kind
        raise ValueError(f"{path} is corrupted, not a checkpoint, or contains code") from None
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    run_dir = path.parent.parent if path.parts[-2:] == CHECKPOINT.parts else None
    return {**contents, "version": version, "run_dir": run_dir}


def file_version(path: Path) -> tuple[int, int] | None:
    """Inode and time of modification; None if there is no file."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns


def replace_file(path: Path, content: bytes) -> None:
    """Writes a new file, which takes the place of `path` only when it is safely on disk."""
    # A random name, for two processes not to write into the same file.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error.strerror}); it is unchanged") from error
    for leftover in path.parent.glob(f"{path.name}.*.unfinished"):  # of processes that were killed
        leftover.unlink(missing_ok=True)
