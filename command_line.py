"""What the command lines of all scripts share: a parser, types of arguments, one-line errors."""

import argparse
import contextlib
import math
import os
import re
import sys
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
seed = checked(int, "an integer from 0 to 2^64 - 1", lambda n: 0 <= n < 2**64)  # as torch takes
share = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
weight = checked(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
name = checked(str, "letters, digits, _, -, . (not first)", re.compile(r"[\w-][\w.-]*").fullmatch)


def path(text: str) -> str:
    """An argument type: an absolute path; `~` is the home directory."""
    return str(Path(os.path.expanduser(text)).absolute())


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


def run(main: Callable[[], None]) -> None:
    """Runs a script. Errors that a user can cause are one line; Ctrl-C ends it with status 130.

    The exit status is 2 for an invalid argument (`argparse.ArgumentTypeError`) and 1 for an
    `OSError`, a training that has diverged (`FloatingPointError`) and what is not implemented.
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
