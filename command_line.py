"""What the command lines of all scripts share: a parser, types of arguments, one-line errors."""

import argparse
import contextlib
import glob
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
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
seed = checked(int, "an integer from 0 to 2^64 - 1", lambda n: 0 <= n < 2**64)  # as torch takes
share = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
rate = checked(float, "a number above 0 and below 1", lambda x: 0 < x < 1)
weight = checked(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
reference = checked(str, "MODULE:CLASS", re.compile(r"[\w.]+:[\w.]+").fullmatch)
name = checked(str, "letters, digits, _, -, . (not first)", re.compile(r"[\w-][\w.-]*").fullmatch)


RUN = "run directory or checkpoint file, if not the pretrained generator"  # help of an argument


def path(text: str) -> str:
    """An argument type: an absolute path; `~` is the home directory."""
    return str(Path(os.path.expanduser(text)).absolute())


def expanded(paths: Sequence[str]) -> list[str]:
    """The paths, a pattern replaced by those that fit: Windows' shells do not expand `*`."""
    return [path for text in paths for path in sorted(glob.glob(text)) or [text]]


def device(text: str) -> str:
    """An argument type: a device that can compute; "auto" is the accelerator if there is one."""
    if text == "auto":
        available = torch.accelerator.is_available()
        text = str(torch.accelerator.current_accelerator()) if available else "cpu"
    try:
        one = torch.ones(1, device=text)
        (one + one).cpu()  # fails on "meta", and on a GPU that is too old or full
        return str(one.device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        message = f"no device {text!r} can be used here ({reason}); try --device cpu"
        raise argparse.ArgumentTypeError(message) from None


def run(main: Callable[[], None]) -> None:
    """Runs a script. Errors that a user can cause are one line; Ctrl-C ends it with status 130.

    The exit status is 2 for an invalid argument (`argparse.ArgumentTypeError`) and 1 for an
    `OSError`, a training that has diverged (`FloatingPointError`), what is not implemented, and a
    GPU that fails.
    """
    invalid = argparse.ArgumentTypeError
    if hasattr(sys.stdout, "reconfigure"):  # a job's log by lines; paths that no encoding has
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        main()
    except KeyboardInterrupt:
        print()
        sys.exit(130)  # 128 + SIGINT, as a shell counts
    except (OSError, FloatingPointError, NotImplementedError, invalid) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, invalid) else 1)
    except RuntimeError as error:  # for which older versions of torch have no class of their own
        if not re.search("CUDA|HIP|MPS|XPU", str(error)):
            raise
        reason = str(error).splitlines()[0]
        print(f"{Path(sys.argv[0]).name}: {reason}; try --device cpu", file=sys.stderr)
        sys.exit(1)
