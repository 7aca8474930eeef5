"""What the command lines of all scripts share: one-line errors, and types of arguments."""

import argparse
import contextlib
import math
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
share = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
weight = checked(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
name = checked(str, "letters, digits and ._- only", re.compile(r"[\w.-]+").fullmatch)


def directory(text: str) -> str:
    """An argument type: a directory, which need not exist yet."""
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


def supports_bf16(device: str) -> bool:
    """Whether the device has instructions for bfloat16 matmuls."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return torch.amp.is_autocast_available(kind)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions of torch
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def run(main: Callable[[], None], *errors: type[Exception]) -> None:
    """Runs a script: these errors are one line and exit status 1; Ctrl-C is 130 (128 + SIGINT)."""
    try:
        main()
    except errors as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted.", flush=True)
        sys.exit(130)
