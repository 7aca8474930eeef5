"""The contract holds for other people's correct files, and names the mistakes in wrong ones."""

import functools
import io
import shutil
import tempfile
import types
import unittest
from contextlib import redirect_stdout
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
    file = "train_torch" if name.startswith("train") else name.split("_")[0]
    module.__file__ = str(ROOT / f"{file}.py")  # where data/ is
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def findings(module: types.ModuleType, *parts: type) -> tuple[dict[str, list[str]], list[str]]:
    """What the contract says is wrong with a module in place of ours, by part; and its hints."""
    file = Path(module.__file__)
    parts = parts or [part for part in unittests.CONTRACT if part.file == file.name]
    with mock.patch.object(unittests, file.stem, module):
        rows = list(unittests.contract(parts))
    wrong = {title: messages for title, messages, _ in rows if messages}
    return wrong, [hint for *_, hints in rows for hint in hints]


def mistakes() -> list[tuple[str, str, list[str], str]]:
    """Foreign file, class that names the mistake, texts to replace, message."""
    found = []
    for section in (FOREIGN / "mistakes.txt").read_text(encoding="utf-8").split("\n\n")[1:]:
        header, *lines = section.splitlines()
        for line in lines:
            *texts, message = line.split(" => ")
            found.append((*header.split(), texts, message))
    return found


def quick_loader(dataset, batch_size, num_workers, shuffle=False, drop_last=False, sampler=None):
    """The same batches as of DataLoader(...), each made by one indexing operation."""
    sampler = sampler or (RandomSampler(dataset) if shuffle else SequentialSampler(dataset))
    return DataLoader(
        dataset, batch_size=None, sampler=BatchSampler(sampler, batch_size, drop_last)
    )


class CorrectFilesTest(unittest.TestCase):
    def test_our_own_files(self):
        with redirect_stdout(io.StringIO()) as printed:
            unittests.main()
        lines = [*printed.getvalue().splitlines()]
        self.assertEqual([line for line in lines[:-1] if not line.endswith(": done")], [])
        self.assertEqual(lines[-1], "next: python train_torch.py --progress_bar")

    def test_models(self):
        small = "[nn.init.normal_(x.weight, 0, 1e-4) for x in self.layers[::3]]; self.model ="
        modules = [load(path.name) for path in sorted(FOREIGN.glob("models_*.py"))]
        for module in [*modules, load("models_course.py", "self.model =", small)]:
            self.assertEqual(findings(module), ({}, []), module.__name__)

    def test_mnist(self):
        with tempfile.TemporaryDirectory() as folder:  # torchvision unpacks the archives there
            shutil.copytree(ROOT / "data" / "MNIST" / "raw", Path(folder, "MNIST", "raw"))
            for path in sorted(FOREIGN.glob("mnist_*.py")):
                module = load(path.name)
                module.mnist = functools.partial(module.mnist, root=folder)
                self.assertEqual(findings(module), ({}, []), path.name)

    def test_training(self):
        log = 'logger_disc.summary_writer.add_scalar("discriminator/loss", loss, global_step=1)'
        off, saved = ["self.generator.eval()", "pass"], ["samples = model", "images = model"]
        for line in saved:  # eval() only where images are saved
            off += [line, f"model.eval(); {line}"]
        for texts, hint in [
            ([], "^$"),
            (
                ["self.generator(z).detach()", "self.generator(z)"],
                "^train_torch.py: discriminator_",
            ),
            (["logger_disc.add_values(logging_dict)", log], "^$"),
            (off, "^$"),
        ]:
            wrong, hints = findings(load("train_course.py", *texts))
            self.assertEqual(wrong, {}, texts)
            self.assertRegex("".join(hints), hint, texts)

    def test_training_with_a_wrong_models_file(self):
        wrong = load("models_course.py", "return x.view(", "return 0 * x.view(")
        with mock.patch.object(unittests, "models", wrong):
            found = findings(unittests.train_torch)
        self.assertEqual(found, ({}, []), "a mistake in models.py is blamed on train_torch.py")


class MistakesTest(unittest.TestCase):
    def test_mistakes_are_named(self):
        read = functools.cache(load("mnist_template.py").read)
        for name, part, texts, message in mistakes():
            with self.subTest(" => ".join(texts)):
                module = load(name, *texts)
                if name == "mnist_template.py":
                    vars(module).update(read=read, DataLoader=quick_loader)
                part = getattr(unittests, part)
                wrong, _ = findings(module, part)
                expected = rf"(?m)({message}|^mnist.py: {message})"
                self.assertRegex("\n".join(wrong.get(part.title, [])), expected)
