"""What the parts of the contract share: the tested file, messages that begin with it, hints."""

import importlib
import traceback
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

FILES = "mnist.py", "models.py", "train_torch.py"  # somebody's own ones
broken: dict[str, str] = {}  # files that are not to be imported, and why


class Mistake(Exception):
    """What is wrong with a file, in one line."""


def place(error: BaseException, file: str) -> str:
    """Where in somebody's own files an error was raised, "models.py:31"; else the `file`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.name in FILES and "site-packages" not in path.parts:
            return f"{path.name}:{frame.lineno}"
    return file


def imported(file: str) -> ModuleType:
    """The module of a file; raises a `Mistake` that says where and why it cannot be imported."""
    if file in broken:
        raise Mistake(broken[file])
    try:
        return importlib.import_module(file.removesuffix(".py"))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        what = f"cannot be imported: {type(error).__name__}: {error}"
        raise Mistake(f"{place(error, file)}: {file} {what}") from None


class Part(unittest.TestCase):
    """A part of the contract: the tests of one task, or of what is given.

    Nothing else imports the tested file, so a file that cannot be imported costs its own tasks.
    A failure is a `Mistake`, so that an `assert` in the file is an error like any other.
    """

    failureException = Mistake
    file = title = ""
    optional = False
    hints: list[str] = []  # noqa: RUF012  # of the part that is tested: what could be better

    @classmethod
    def setUpClass(cls) -> None:
        cls.tested = imported(cls.file)

    def setUp(self) -> None:
        torch.manual_seed(0)

    def check(self, holds: Any, mistake: str) -> None:
        if not holds:
            self.fail(f"{self.file}: {mistake}")

    def hint(self, text: str) -> None:
        self.hints.append(f"{self.file}: {text}")

    def attempt(self, what: str, function, *arguments, **options) -> Any:
        """What the function returns, or a message that says in which error it ends."""
        try:
            return function(*arguments, **options)
        except (NotImplementedError, Mistake):  # a piece is missing
            raise
        except Exception as error:
            ends = f"{what} ends in {type(error).__name__}: {error}{self.explained(error)}"
            self.fail(f"{place(error, self.file)}: {ends}")

    def explained(self, error: Exception) -> str:
        """What a message does not say by itself."""
        return ""
