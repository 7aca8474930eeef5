"""How a run survives: its folder, its checkpoint, its place in the data, the signals to stop.

The checkpoint holds all that a run needs to go on exactly, and is never half-written.
"""

import contextlib
import io
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")  # in the folder of a run
FORMAT = 1  # raise it when older programs could not read the contents any more


def make_run_dir(log_dir: str, job_id: str | None = None) -> Path:
    """Makes log_dir/<date_time>, with a number behind it if another run has just taken that.

    With a `job_id` the name ends in `_job<job_id>`, by which the job finds its run again.
    """
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    job = f"_job{job_id}" if job_id else ""
    for number in itertools.chain([""], (f"_{n}" for n in itertools.count(2))):
        run_dir = Path(log_dir, name + number + job)
        with contextlib.suppress(FileExistsError):
            run_dir.mkdir(parents=True)
            return run_dir


def write_arguments(path: Path, args: dict[str, Any], batches: "ResumableBatches") -> None:
    """Writes the arguments, and when and from which place each start of the run was, as JSON."""
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    time_of_day = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    place = {"epoch": batches.epoch, "step": batches.step, "epochs": args["epochs"]}
    content = {**args, "starts": [*starts, {"time": time_of_day, **place}]}
    replace_file(path, json.dumps(content, indent=2).encode())


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Writes the contents so that at every instant there is one complete checkpoint.

    Args:
        path: the checkpoint file.
        contents: tensors, numbers, strings, None, and lists and dicts of these.

    Raises:
        OSError: it could not be written; the old one is still there.
    """

    def plain(value: Any) -> Any:
        """The same without OrderedDicts and tuples, for any program to read."""
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    buffer = io.BytesIO()
    torch.save(plain({"format": FORMAT, **contents}), buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, all tensors onto the CPU, without running code that may be in the file.

    Raises:
        ValueError: there is no such file, or it is no checkpoint of this format; says which.
    """
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # in a foreign file the unpickler can stumble over anything
        raise ValueError(f"{path} is damaged or no checkpoint, or carries code") from None
    if not isinstance(contents, dict) or not isinstance(contents.get("format"), int):
        raise ValueError(f"{path} is no checkpoint of this program")
    if contents["format"] > FORMAT:
        raise ValueError(f"{path} has format {contents['format']}, this program reads {FORMAT}")
    return contents


def restore(state: dict[str, Any], saved: dict[str, Any], path: str) -> None:
    """Gives all parts of a training, by their names, the state that was saved at `path`.

    Raises:
        OSError: what was saved is of other networks or another program.
    """
    try:
        for name, part in state.items():
            part.load_state_dict(saved[name])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{path} does not fit models.py or mnist.py as they are: {reason}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Puts the content into a new file, and that, once it is safely on disk, in place of `path`.

    Raises:
        OSError: it could not be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"could not write {path} ({error.strerror}); it is as it was") from error


def random_state(loader_generator: torch.Generator | None = None) -> dict[str, Any]:
    """The state of everything that random numbers are drawn from, a loader's own included."""
    version, numbers, gauss = random.getstate()
    algorithm, key, *position = np.random.get_state()
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [algorithm, torch.from_numpy(key.astype(np.int64)), *position],
        "torch": torch.get_rng_state(),
    }
    if torch.accelerator.is_available():
        state["device"] = torch.get_device_module().get_rng_state()
    if loader_generator is not None:
        state["loader"] = loader_generator.get_state()
    return state


def set_random_state(
    state: dict[str, Any], loader_generator: torch.Generator | None = None
) -> None:
    """Sets everything that random numbers are drawn from to a state of `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    algorithm, key, *position = state["numpy"]
    np.random.set_state((algorithm, key.numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if "device" in state:
        torch.get_device_module().set_rng_state(state["device"])
    if loader_generator is not None and "loader" in state:
        loader_generator.set_state(state["loader"])


class ResumableBatches:
    """The batches of a loader, epoch after epoch, with a place in them to save and come back to.

    Each iteration goes on from that place to the end of its epoch, or ends after the step in
    which a signal has been noted.

    Attributes:
        epoch: the number of epochs that are done.
        step: the number of steps that are done in the epoch after these.
        seconds: the time that this epoch has taken, or if `step` is 0 the last one.
    """

    def __init__(self, loader: DataLoader, signals: "StopSignals"):
        self.loader, self.signals = loader, signals
        self.generator = getattr(loader, "generator", None)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.random_at_start: dict[str, Any] = {}  # of the epoch, which decides its order

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return len(self.loader) - self.step

    def __iter__(self) -> Iterator[Any]:
        now = random_state(self.generator)
        if self.step == 0:
            self.random_at_start, self.seconds = now, 0.0
        started = time.perf_counter() - self.seconds

        set_random_state(self.random_at_start, self.generator)
        batches = iter(self.loader)
        for _ in range(self.step):
            next(batches)
        if self.step > 0:
            set_random_state(now, self.generator)

        for batch in batches:
            yield batch
            self.step += 1
            if self.signals.signal:
                break
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # once an epoch, for the clock
        self.seconds = time.perf_counter() - started
        if self.step == len(self.loader):
            self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The place, and the random state there and at the start of its epoch."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "random": random_state(self.generator),
            "random_at_start": self.random_at_start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to the place of a `state_dict`, and sets all random states as they were."""
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.random_at_start = state["random_at_start"]
        set_random_state(state["random"], self.generator)


class StopSignals:
    """Within it, SIGTERM, SIGUSR1 and the first Ctrl-C are only noted: `signal` is their number.

    A second Ctrl-C stops the process at once.
    """

    def __enter__(self) -> "StopSignals":
        self.signal = 0
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        self.before = {number: signal.signal(number, self.note) for number in numbers}
        return self

    def note(self, number: int, frame: Any) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
