"""What the command lines of all scripts share: one-line errors, and types of arguments."""

import argparse
import contextlib
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are one line."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def checked(kind: type, expected: str, holds: Callable[[Any], Any]) -> Callable[[str], Any]:
    """An argument type: a `kind` for which `holds` is true, else an error that says `expected`."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


natural = checked(int, "an integer of at least 0", lambda n: n >= 0)
positive = checked(int, "an integer of at least 1", lambda n: n >= 1)
share = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
weight = checked(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
name = checked(str, "letters, digits and ._- only", re.compile(r"[\w.-]+").fullmatch)


def path(text: str) -> str:
    """An argument type: an absolute path; `~` is the home directory."""
    return str(Path(os.path.expanduser(text)).absolute())


def directory(text: str, write: bool = False) -> str:
    """An argument type: the path of a directory, or of one that could be created.

    If it exists, it must be possible to read from it, or to `write` into it.
    """
    wanted = Path(path(text))
    existing = next((p for p in (wanted, *wanted.parents) if os.path.lexists(p)), wanted)
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"{existing} is not a directory, got {text!r}")
    if not os.access(existing, os.W_OK if write or existing != wanted else os.R_OK):
        raise argparse.ArgumentTypeError(f"no permission for {existing}, got {text!r}")
    return str(wanted)


def device(text: str) -> str:
    """An argument type: a device that exists; "auto" is the accelerator if there is one."""
    if text == "auto":
        available = torch.accelerator.is_available()
        return str(torch.accelerator.current_accelerator()) if available else "cpu"
    try:
        empty = torch.empty(0, device=text)
        empty.cpu()  # fails on "meta", which holds no values
        return str(empty.device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise argparse.ArgumentTypeError(f"there is no device {text!r} here") from None


def supports_bf16(device: str) -> bool:
    """Whether the device has instructions for bfloat16 matmuls."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu" and not hasattr(torch.cpu, "get_capabilities"):  # an older version of torch
        return torch.cpu._is_avx512_bf16_supported()
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if not torch.amp.is_autocast_available(kind):
        return False
    with warnings.catch_warnings(record=True) as refused:  # torch would train in float32
        warnings.simplefilter("always")
        torch.autocast(kind, torch.bfloat16)
    return not refused


def run(main: Callable[[], None], *errors: type[Exception]) -> None:
    """Runs a script: these errors are one line and exit status 1.

    Ctrl-C ends the process at once, with exit status 130 (128 + SIGINT): an exception could be
    raised where it is ignored.
    """

    def interrupt(*_: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(1, b"\nInterrupted.\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is not, under nohup
        signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        # A path may hold what the terminal's encoding has not; a job's log is a file.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        main()
    except (*errors, RuntimeError) as error:
        # Of RuntimeErrors, only a loader's worker that was killed or hangs is not a bug.
        if not isinstance(error, errors) and not str(error).startswith("DataLoader"):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
