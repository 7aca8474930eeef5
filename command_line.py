"""What the command lines of all scripts share: argument types and one-line errors."""

import argparse
import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows informative defaults, not None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults in its help and prints errors without the usage."""

    def __init__(self, description: str, example: str):
        super().__init__(
            description=description,
            epilog=f"Example: {example}",
            formatter_class=HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_resumed(
        self, argv: Sequence[str] | None, saved: Mapping[str, Any], fixed: Iterable[str]
    ) -> argparse.Namespace:
        """Parses again, with a saved run's arguments as defaults; the fixed ones have to agree."""
        self.set_defaults(**saved)
        args = self.parse_args(argv)
        for name in fixed:
            if getattr(args, name) != saved[name]:
                self.error(
                    f"argument --{name}: the run has {saved[name]}, not {getattr(args, name)}"
                )
        return args


def checked(kind: type, expected: str, holds: Callable[[Any], bool]) -> Callable[[str], Any]:
    """An argument type: a `kind` for which `holds` is true, else an error that says `expected`."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


positive_int = checked(int, "an integer from 1 to 1000000", lambda n: 1 <= n <= 10**6)
width = checked(int, "an integer from 1 to 16384", lambda n: 1 <= n <= 2**14)
widths = checked(int, "integers from 1 to 16384, separated by spaces", lambda n: 1 <= n <= 2**14)
fraction = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
steps = checked(int, "an integer from 0 to 1000000", lambda n: 0 <= n <= 10**6)
weight = checked(float, "a number from 0 to 1000", lambda x: 0 <= x <= 1000)
learning_rate = checked(float, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
num_samples = checked(int, "an integer from 6 to 1000000", lambda n: 6 <= n <= 10**6)
scale = checked(int, "an integer from 1 to 10", lambda n: 1 <= n <= 10)
grid_size = checked(int, "an integer from 1 to 100", lambda n: 1 <= n <= 100)
seed = checked(int, "an integer from 0 to 4294967295", lambda n: 0 <= n < 2**32)
workers = checked(int, "an integer from 0 to 256", lambda n: 0 <= n <= 256)
name = checked(str, "letters, digits and ._- only", lambda text: re.fullmatch(r"[\w.-]+", text))


def directory(text: str) -> str:
    """An argument type: a directory, which need not exist yet but must be possible to create."""
    existing = next(path for path in (Path(text), *Path(text).absolute().parents) if path.exists())
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"{existing} is not a directory, got {text!r}")
    return text


def device(text: str) -> str:
    """An argument type: a device that exists; "auto" is the accelerator if there is one."""
    if text == "auto":
        available = torch.accelerator.is_available()
        return str(torch.accelerator.current_accelerator()) if available else "cpu"
    try:
        empty = torch.empty(0, device=text)
        empty.cpu()  # fails on "meta", which holds no values
        return str(empty.device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise argparse.ArgumentTypeError(f"there is no device {text!r} here") from None


def run(main: Callable[[], None], *errors: type[Exception]) -> None:
    """Runs a script: these errors are one line and exit status 1; Ctrl-C is 130 (128 + SIGINT)."""
    try:
        main()
    except errors as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted.", flush=True)
        sys.exit(130)


@contextlib.contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Turns Ctrl-C into one line that says how to resume, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["python", sys.argv[0], "--resume", run_dir.as_posix()])
        print(f"\nInterrupted. To resume: {command}", flush=True)
        sys.exit(130)


def print_thread_hint(device: str) -> None:
    """Prints the faster command if other processes may hold some of this machine's cores.

    Threads that have to share cores spend most of their time waiting for each other.
    """
    if device != "cpu" or not hasattr(os, "getloadavg"):  # Windows has no load average
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    free = max(1, cores - round(load))
    if free < torch.get_num_threads():
        faster = f"OMP_NUM_THREADS={free} {shlex.join(['python', *sys.argv])}"
        print(f"Load {load:.1f} on {cores} cores. Faster if others use them: {faster}", flush=True)


def supports_bf16(device: str) -> bool:
    """Whether the device has instructions for bfloat16 matmuls."""
    kind = torch.device(device).type
    if kind == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # in older versions of torch
            return False
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.amp.is_autocast_available(kind)
