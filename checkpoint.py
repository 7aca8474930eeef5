"""The run directory and its checkpoint: saving, loading, what a run that is resumed may change."""

import argparse
import io
import json
import os
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")  # relative to the run directory
FORMAT = 4  # increase it when other versions of this package could not read the contents
# Of the arguments, place and machine are not saved with a run. When it is resumed it may change
# those that hardly change the result. All others are hyperparameters.
NOT_SAVED = {"log_dir", "name", "device", "progress_bar"}
MAY_CHANGE = {"epochs", "data_dir", "num_workers", "save_every", "precision"}


def to_save(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that are saved with a run."""
    return {name: value for name, value in vars(args).items() if name not in NOT_SAVED}


def hyperparameters(args: dict[str, Any]) -> dict[str, Any]:
    """Those of the saved arguments that a run keeps."""
    return {name: value for name, value in args.items() if name not in MAY_CHANGE}


def saved_args(args: argparse.Namespace) -> dict[str, Any]:
    """The saved arguments of the run `args.name`, {} if there is none; raises as `load`."""
    run_dir = Path(args.log_dir, args.name or "")
    saved = load(run_dir)["args"] if args.name and (run_dir / CHECKPOINT).exists() else {}
    return {name: value for name, value in saved.items() if name in to_save(args)}


def start_or_resume(args: argparse.Namespace, parts: dict[str, Any]) -> tuple[Path, int]:
    """Loads the state of a run from its checkpoint, which is made if the run is new.

    Returns:
        The run directory, and how many epochs are done.

    Raises:
        OSError: the checkpoint cannot be written or read, or has other networks.
        argparse.ArgumentTypeError: the run has other hyperparameters, more epochs, or has lost
            its checkpoint.
    """
    run_dir = make_run_dir(args.log_dir, args.name)
    args_file, given = run_dir / "args.json", to_save(args)
    begun = args_file.exists()  # looked at first: another process may be about to begin this run
    if not (run_dir / CHECKPOINT).exists():
        if begun:
            lost = f"{run_dir} is a run without {CHECKPOINT}; another --name starts a new run"
            raise argparse.ArgumentTypeError(lost)
        save(run_dir, 0, args, parts)
    saved = load(run_dir)
    wrong = [
        f"--{name}: the run has {saved['args'][name]}, not {value}"
        for name, value in hyperparameters(given).items()
        if value != saved["args"].get(name, value)
    ]
    if args.epochs < saved["epoch"]:
        wrong.append(f"--epochs: {saved['epoch']} are done, more than {args.epochs}")
    if wrong:
        raise argparse.ArgumentTypeError(f"argument {wrong[0]}; another --name starts a new run")
    load_parts(saved, parts)
    if given != saved["args"]:  # such as a larger --epochs
        save(run_dir, saved["epoch"], args, parts)
    args_file.write_text(json.dumps(given, indent=2))
    return run_dir, saved["epoch"]


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


def save(run_dir: Path, epoch: int, args: argparse.Namespace, parts: dict[str, Any]) -> None:
    """Saves how many epochs are done, the run's arguments and the states of its parts.

    The file takes its place only when it is safely on disk: at any moment there is a complete one.
    Until then its name is a random one, so that two processes do not write into the same file.

    Args:
        parts: the networks and optimizers by name.

    Raises:
        OSError: the file could not be written; the one that is there is unchanged.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()  # on a full disk, torch.save into a file raises a RuntimeError
    torch.save({"format": FORMAT, "epoch": epoch, "args": to_save(args), **states}, buffer)
    path = run_dir / CHECKPOINT
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(f"could not write {path} ({error.strerror}); it is unchanged") from error
    finally:
        unfinished.unlink(missing_ok=True)


def load(run: str | Path) -> dict[str, Any]:
    """Reads the checkpoint of a run directory, or the file itself, all tensors on the CPU.

    Reading executes no code. `GAN.from_args` then imports the module that `args["gan"]` names.

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
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or "args" not in saved:
        raise OSError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    saved["args"].setdefault("categories", 0)  # an earlier version had none
    return {**saved, "path": path}


def load_parts(saved: dict[str, Any], parts: dict[str, Any]) -> None:
    """Loads the state of each network or optimizer from what `load` has read.

    Raises an OSError that says why if they are not what was saved.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except KeyError:
        raise OSError(f"{saved['path']} has averaged weights only") from None
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise OSError(f"{saved['path']} belongs to other networks ({reason})") from None
