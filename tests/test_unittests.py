"""The contract holds for other people's correct files, and names the mistakes in wrong ones."""

import functools
import shutil
import tempfile
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

import unittests

FOREIGN = Path(__file__).parent / "foreign"
ROOT = FOREIGN.parent.parent


def load(name: str, *texts: str) -> types.ModuleType:
    """A foreign file as a module, after replacements of texts: old, new, old, new, ..."""
    source = (FOREIGN / name).read_text(encoding="utf-8")
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        assert old in source, f"{name} has no {old!r}"
        source = source.replace(old, new)
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / name)  # where data/ is
    exec(compile(source, name, "exec"), vars(module))
    return module


def problems(file: str, module: types.ModuleType) -> str:
    """What the contract says about a module in place of `file`, one of the three."""
    part = {"models": "ModelsTest", "mnist": "MnistTest", "train_torch": "GANTest"}[file]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(unittests, part))
    result = unittest.TestResult()
    with mock.patch.object(unittests, file, module):
        suite.run(result)
    return "\n".join(text for _, text in [*result.failures, *result.errors])


def mistakes(name: str) -> Iterator[tuple[list[str], str]]:
    """Texts to replace in a foreign file, and the message that the contract should give."""
    sections = (FOREIGN / "mistakes.txt").read_text(encoding="utf-8").split("\n\n")
    (lines,) = (section.splitlines()[1:] for section in sections if section.startswith(name))
    for line in lines:
        *texts, message = line.split(" => ")
        yield texts, message


def quick_loader(dataset, batch_size, num_workers, shuffle=False, drop_last=False, sampler=None):
    """The same batches as of DataLoader(...), each made by one indexing operation."""
    sampler = sampler or (RandomSampler(dataset) if shuffle else SequentialSampler(dataset))
    return DataLoader(
        dataset, batch_size=None, sampler=BatchSampler(sampler, batch_size, drop_last)
    )


class CorrectFilesTest(unittest.TestCase):
    def test_models(self):
        for path in sorted(FOREIGN.glob("models_*.py")):
            self.assertEqual(problems("models", load(path.name)), "", path.name)

    def test_mnist(self):
        with tempfile.TemporaryDirectory() as folder:  # torchvision unpacks the archives there
            shutil.copytree(ROOT / "data" / "MNIST" / "raw", Path(folder, "MNIST", "raw"))
            for path in sorted(FOREIGN.glob("mnist_*.py")):
                module = load(path.name)
                module.mnist = functools.partial(module.mnist, root=folder)
                self.assertEqual(problems("mnist", module), "", path.name)

    def test_training(self):
        self.assertEqual(problems("train_torch", load("train_course.py")), "")

    def test_training_with_a_wrong_models_file(self):
        wrong = load("models_course.py", "return x.view(", "return 0 * x.view(")
        with mock.patch.object(unittests, "models", wrong):
            found = problems("train_torch", unittests.train_torch)
        self.assertEqual(found, "", "a mistake in models.py is blamed on train_torch.py")


class MistakesTest(unittest.TestCase):
    def check(self, file: str, name: str, **stand_ins) -> None:
        for texts, message in mistakes(name):
            with self.subTest(" => ".join(texts)):
                module = load(name, *texts)
                vars(module).update(stand_ins)
                expected = rf"(?m)^(AssertionError: {file}.py|TypeError): .*{message}"
                self.assertRegex(problems(file, module), expected)

    def test_models(self):
        self.check("models", "models_course.py")

    def test_mnist(self):
        read = functools.cache(load("mnist_template.py").read)
        self.check("mnist", "mnist_template.py", read=read, DataLoader=quick_loader)

    def test_training(self):
        self.check("train_torch", "train_course.py")
