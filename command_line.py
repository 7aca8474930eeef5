"""What the scripts' command lines have in common: values that are checked, errors of one line."""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch


class Parser(argparse.ArgumentParser):
    """Shows the defaults in its help, and says what was wrong without the whole usage before it."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def checked(kind: type, expected: str, holds: Callable[[Any], bool]) -> Callable[[str], Any]:
    """A type for argparse: a `kind` for which `holds` is true, else an error says `expected`."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


width = checked(int, "a whole number from 1 to 16384", lambda n: 1 <= n <= 2**14)
count = checked(int, "a whole number from 1 to 1000000", lambda n: 1 <= n <= 10**6)
dropout_rate = checked(float, "a number of at least 0 and below 1", lambda x: 0 <= x < 1)
learning_rate = checked(float, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
seed = checked(int, "a whole number from 0 to 4294967295", lambda n: 0 <= n < 2**32)
workers = checked(int, "a whole number from 0 to 256", lambda n: 0 <= n <= 256)


def device(name: str) -> str:
    """A type for argparse: the device's full name; "auto" is the accelerator if there is one."""
    if name == "auto":
        is_there = torch.accelerator.is_available()
        return str(torch.accelerator.current_accelerator()) if is_there else "cpu"
    try:
        empty = torch.empty(0, device=name)
        empty.cpu()  # fails on "meta", which holds no values
        return str(empty.device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise argparse.ArgumentTypeError(f"there is no device {name!r} here") from None


def multiplies_bf16(device: str) -> bool:
    """Whether the device has instructions for products of bfloat16 matrices."""
    kind = torch.device(device).type
    if kind == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # as in older versions of torch
            return False
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.amp.is_autocast_available(kind)
