"""The run directory and the checkpoint file: replaced as a whole, loaded without executing code."""

import io
import os
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")  # relative to the run directory
FORMAT = 4  # increase it when other versions of this package could not read the contents


def make_run_dir(log_dir: str | Path, name: str | None = None) -> Path:
    """The directory `log_dir/name`; without a name a new one, of date and time."""
    run_dir = Path(log_dir, name or "")
    run_dir.mkdir(parents=True, exist_ok=True)
    while not name:
        try:
            run_dir = Path(log_dir, f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
            run_dir.mkdir()
            break
        except FileExistsError:
            time.sleep(0.1)  # another run has begun in this second
    return run_dir


def save_checkpoint(
    path: Path, epoch: int, args: dict[str, Any], parts: dict[str, Any], replace: bool = True
) -> None:
    """Saves how many epochs are done, the run's arguments and the states of its parts.

    The file takes its place only when it is safely on disk: at any moment there is a complete one.
    Its random name before keeps two processes from writing into the same file.

    Args:
        parts: the networks and optimizers by name.
        replace: whether a file that is there is replaced.

    Raises:
        OSError: the file could not be written; the one that is there is unchanged.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()  # on a full disk, torch.save into a file raises a RuntimeError
    torch.save({"format": FORMAT, "epoch": epoch, "args": args, **states}, buffer)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if replace or not path.exists():
            os.replace(unfinished, path)
    except OSError as error:
        raise OSError(f"could not write {path} ({error.strerror}); it is unchanged") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_checkpoint(run: str | Path) -> dict[str, Any]:
    """Reads the checkpoint of a run directory, or the file itself, all tensors on the CPU.

    Raises:
        OSError: there is no such file, or it is not a checkpoint of this format; says which.
    """
    path = Path(os.path.expanduser(run)).absolute()
    path = path / CHECKPOINT if path.is_dir() else path
    try:
        content = io.BytesIO(path.read_bytes())
        saved = torch.load(content, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}; a run directory is GAN_logs/<name>") from None
    except Exception:  # the unpickler can fail in any way on a file of another kind
        raise OSError(f"{path} is corrupted, not a checkpoint, or contains code") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise OSError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    saved["args"].setdefault("gan", "train_torch:GAN")  # earlier versions had no other
    return {**saved, "path": path}


def load_parts(saved: dict[str, Any], parts: dict[str, Any]) -> None:
    """Loads the state of each network or optimizer from what `load_checkpoint` has read.

    Raises an OSError that says why if they are not what was saved.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except KeyError:
        raise OSError(f"{saved['path']} has averaged weights only") from None
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise OSError(f"{saved['path']} belongs to another models.py ({reason})") from None
