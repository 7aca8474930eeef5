"""Runs parts of the contract, and reports what is wrong, task by task."""

import unittest
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contract.data import MnistTest
from contract.extras import AverageTest, OptimizersTest, PenaltyTest
from contract.learning import LearningTest
from contract.networks import DiscriminatorTest, GeneratorTest
from contract.part import Part, place
from contract.sampling import GANTest, InterpolateTest, SampleTest
from contract.steps import DiscriminatorStepTest, GeneratorStepTest
from contract.training import TrainGANTest

PARTS = (
    *(MnistTest, GANTest, GeneratorTest, DiscriminatorTest, SampleTest, InterpolateTest),
    *(DiscriminatorStepTest, GeneratorStepTest, TrainGANTest),
    *(OptimizersTest, PenaltyTest, AverageTest),
)
LEARNED = PARTS[2:9]  # the tasks 1 to 7: if all are right, training has to generate digits


class Row(NamedTuple):
    """A part: what is wrong with it, and what could be better."""

    title: str
    state: str  # "done", "missing" or "wrong"
    optional: bool
    messages: list[str]
    hints: list[str]


class Messages(unittest.TestResult):
    """What is wrong; of messages that differ in numbers alone, the first."""

    def __init__(self, part: type[Part]):
        super().__init__()
        self.part, self.messages, self.written = part, {}, False

    def add(self, message: str) -> None:
        message = " ".join(message.split())
        self.messages.setdefault("".join(c for c in message if not c.isdigit()), message)

    def addFailure(self, _, error) -> None:
        self.written = True
        self.add(str(error[1]))

    def addError(self, test, error) -> None:
        kind, value, _ = error
        if issubclass(kind, self.part.failureException):  # of setUpClass
            self.addFailure(test, error)
        elif issubclass(kind, NotImplementedError):
            self.add(f"{place(value, self.part.file)}: {str(value) or 'is not written yet'}")
        else:
            self.written = True
            self.add(f"{place(value, self.part.file)}: {kind.__name__}: {value}")

    def addSkip(self, test, reason) -> None:
        self.written = True
        self.add(f"{self.part.file}: raises unittest.SkipTest: {reason}")


def tested(part: type[Part]) -> Row:
    """Runs the tests of a part."""
    Part.hints.clear()
    result = Messages(part)
    unittest.defaultTestLoader.loadTestsFromTestCase(part).run(result)
    state = "missing" if part.optional or not result.written else "wrong"
    messages, hints = [*result.messages.values()], [*dict.fromkeys(Part.hints)]
    return Row(part.title, state if messages else "done", part.optional, messages, hints)


def rows(parts: Sequence[type[Part]] = PARTS, learning: bool = True) -> Iterator[Row]:
    """The row of each part, as soon as it was tested; with `learning`, a short training, too."""
    known: dict[type[Part], Row] = {}
    for part in parts:
        row = known[part] = tested(part)
        if part is TrainGANTest and learning:
            others = (known.get(task) or tested(task) for task in LEARNED)
            if not any(task.messages for task in others):
                learned = tested(LearningTest)
                row = row._replace(state=learned.state, messages=learned.messages)
        yield row


def number(part: type[Part]) -> str:
    """The number of the task; of what is given, the first word of the title."""
    return part.title.removeprefix("task ").replace(",", "").split()[0]


def chosen(names: Sequence[str]) -> list[type[Part]]:
    """The parts of these numbers of tasks or names of classes; all if none is given.

    Raises:
        ValueError: there is no such part.
    """
    found = []
    for name in names:
        of = [part for part in PARTS if name in (part.__name__, number(part))]
        if not of:
            known = ", ".join(part.__name__ for part in PARTS)
            raise ValueError(f"there is no task or part {name!r}; parts are {known}")
        found += of
    return found or [*PARTS]
