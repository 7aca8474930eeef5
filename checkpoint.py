"""The run directory and the checkpoint file: written atomically, read without executing code."""

import argparse
import contextlib
import io
import itertools
import os
import secrets
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")  # relative to the run directory
FORMAT = 4  # increase it when other versions of this package could not read the contents


def make_run_dir(log_dir: str | Path, name: str | None = None, job_id: str | None = None) -> Path:
    """Creates `log_dir/<date_time>[_<n>][_<name>][_job<job_id>]`, a new directory every time."""
    date_time = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    suffix = (f"_{name}" if name else "") + (f"_job{job_id}" if job_id else "")
    for number in itertools.count(1):
        run_dir = Path(log_dir, date_time + (f"_{number}" if number > 1 else "") + suffix)
        try:
            run_dir.mkdir(parents=True)
            return run_dir
        except FileExistsError:
            if not run_dir.is_dir():  # a file, or a broken link, is in the way
                raise


class Checkpoint:
    """The checkpoint file of a run, replaced as a whole: at any moment it is complete.

    It has the `format`, how many epochs are done (`epoch`), the arguments of the run (`args`), the
    class of its `model`, the hash of its data (`data`), the `state_dict` of each of `parts`, the
    networks and the optimizers, and a random `token`, another one each time it is written.
    """

    def __init__(
        self,
        run_dir: Path,
        model: nn.Module,
        optimizer_gen: Optimizer,
        optimizer_disc: Optimizer,
        data: str | None = None,
    ):
        self.path, self.model, self.data = run_dir / CHECKPOINT, type(model).__name__, data
        self.parts = {"optimizer_gen": optimizer_gen, "optimizer_disc": optimizer_disc}
        self.parts |= dict(model.named_children())  # generator, discriminator, averaged
        self.token: str | None = None  # of the file that this process has read or written
        self.saved_at = time.monotonic()

    def load(self) -> int:
        """Restores all parts; returns how many epochs are done.

        Raises:
            OSError: as `load_checkpoint` and `load_parts` do, and for another class or other data.
        """
        saved = load_checkpoint(self.path)
        if saved.get("model", self.model) != self.model:  # older files do not say
            message = f"{self.path} is of a run of {saved['model']}, not {self.model}"
            raise OSError(f"{message}: resume it with the script that started it")
        if saved["data"] != self.data:
            raise OSError(f"{self.path} is of a run on other data; see its --data_dir")
        load_parts(saved, self.parts)
        self.token = saved["token"]
        return saved["epoch"]

    def save(self, epoch: int, args: argparse.Namespace) -> None:
        """Replaces the file.

        Raises:
            OSError: the file could not be written, or another process has replaced it since this
                one read or wrote it. The existing file is kept.
        """
        if self.token and load_checkpoint(self.path)["token"] != self.token:
            raise OSError(f"{self.path} was replaced by another process; is the run resumed twice?")
        self.token, buffer = secrets.token_hex(16), io.BytesIO()
        about = {"format": FORMAT, "epoch": epoch, "args": vars(args), "model": self.model}
        about |= {"data": self.data, "token": self.token}
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**about, **state}, buffer)
        replace_file(self.path, buffer.getvalue())
        self.saved_at = time.monotonic()


def load_checkpoint(run: str | Path) -> dict[str, Any]:
    """Reads the checkpoint of a run directory, or the file itself, without executing code in it.

    Returns:
        What was saved, all tensors on the CPU, and the `path` of the file.

    Raises:
        OSError: there is no such file, or it is not a checkpoint of this format; says which.
    """
    path = Path(os.path.expanduser(run)).absolute()
    path = path / CHECKPOINT if path.is_dir() else path
    try:
        content = io.BytesIO(path.read_bytes())
        saved = torch.load(content, map_location="cpu", weights_only=True)
    except OSError as error:
        message = f"{path}: {error.strerror}; a run directory is GAN_logs/<date_time>"
        raise OSError(message) from None
    except Exception:  # the unpickler can fail in any way on a file of another kind
        raise OSError(f"{path} is corrupted, not a checkpoint, or contains code") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise OSError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return {**saved, "path": path}


def load_parts(saved: dict[str, Any], parts: dict[str, Any]) -> None:
    """Loads the state of each network or optimizer from what `load_checkpoint` has read.

    Raises:
        OSError: they are not what was saved; says why.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except KeyError:
        raise OSError(f"{saved['path']} has averaged weights only") from None
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        message = f"{saved['path']} belongs to another models.py ({reason})"
        raise OSError(f"{message}: pass a run of this one, GAN_logs/<date_time>") from None


def replace_file(path: Path, content: bytes) -> None:
    """Writes a new file, which takes the place of `path` only when it is safely on disk.

    Links are followed and the mode of an existing file is kept; what is no regular file, such as a
    device or a pipe, is written to.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    # A random name, for two processes not to write into the same file.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error.strerror}); it is unchanged") from error
    for leftover in path.parent.glob(f"{path.name}.*.unfinished"):
        with contextlib.suppress(FileNotFoundError):
            if leftover.stat().st_mtime < time.time() - 60:  # of a process that was killed
                leftover.unlink()
