"""The contract holds for other people's correct files, and names the mistakes in wrong ones."""

import functools
import io
import shutil
import sys
import tempfile
import types
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

import unittests
from contract import report

FOREIGN = Path(__file__).parent / "foreign"
ROOT = FOREIGN.parent.parent
torch.set_num_threads(1)  # the networks here are too small for more


def load(name: str, *texts: str) -> types.ModuleType:
    """A foreign file as a module, after replacements of texts: old, new, old, new, ..."""
    path = ROOT / name if name == "train_torch.py" else FOREIGN / name
    source = path.read_text(encoding="utf-8")
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        assert old in source, f"{name} has no {old!r}"
        source = source.replace(old, new)
    file = "train_torch" if name.startswith("train") else name.split("_")[0]
    module = types.ModuleType(file)
    module.__file__ = str(ROOT / f"{file}.py")  # where data/ is
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def rows(module: types.ModuleType, *parts: type) -> list[report.Row]:
    """What the contract says of a module in place of ours."""
    file = Path(module.__file__).name
    with mock.patch.dict(sys.modules, {module.__name__: module}):
        return [*report.rows(parts or [part for part in report.PARTS if part.file == file])]


def findings(module: types.ModuleType, *parts: type) -> tuple[dict[str, list[str]], list[str]]:
    """What is wrong with a module, by part; and the hints."""
    found = rows(module, *parts)
    wrong = {row.title: row.messages for row in found if row.messages}
    return wrong, [hint for row in found for hint in row.hints]


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
        with redirect_stdout(io.StringIO()) as printed, mock.patch("sys.argv", ["unittests.py"]):
            unittests.main()
        *lines, last = printed.getvalue().splitlines()
        self.assertEqual([line for line in lines if not line.endswith(": done")], [])
        self.assertEqual(last, "next: python train_torch.py --progress_bar")

    def test_models(self):
        small = "[nn.init.normal_(x.weight, 0, 1e-4) for x in self.layers[::3]]; self.model ="
        names = [path.name for path in FOREIGN.glob("models_*.py") if "conv" not in path.name]
        for module in [*map(load, names), load("models_course.py", "self.model =", small)]:
            self.assertEqual(findings(module), ({}, []), module.__name__)

    def test_models_of_another_kind(self):
        wrong, hints = findings(load("models_conv.py"))
        self.assertEqual(wrong, {})
        self.assertRegex("\n".join(hints), "GeneratorMLP is no MLP: .*\n.*DiscriminatorMLP is no")

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
        detached = "self.generator(z).detach()", "self.generator(z)"
        for texts, hint in [
            ([], "^$"),
            (detached, "^train_torch.py: discriminator_"),
            (["logger_disc.add_values(logging_dict)", log], "^$"),
            (off, "^$"),
        ]:
            wrong, hints = findings(load("train_course.py", *texts))
            self.assertEqual(wrong, {}, texts)
            self.assertRegex("".join(hints), hint, texts)

    def test_steps_that_ask_their_generator(self):
        texts = "len(x_real), self.z_dim", "len(x_real), self.generator.z_dim"
        steps = report.chosen(["5", "6"])
        self.assertEqual(findings(load("train_course.py", *texts), *steps), ({}, []))

    def test_training_with_a_wrong_models_file(self):
        wrong = load("models_course.py", "return x.view(", "return 0 * x.view(")
        with mock.patch.dict(sys.modules, models=wrong):
            found, _ = findings(sys.modules["train_torch"])
        self.assertEqual(found, {}, "a mistake in models.py is blamed on train_torch.py")


class MistakesTest(unittest.TestCase):
    def test_mistakes_are_named(self):
        read = functools.cache(load("mnist_template.py").read)
        for name, part, texts, message in mistakes():
            with self.subTest(" => ".join(texts)):
                module = load(name, *texts)
                if name == "mnist_template.py":
                    vars(module).update(read=read, DataLoader=quick_loader)
                (part,) = report.chosen([part])
                found = "\n".join(rows(module, part)[0].messages)
                self.assertRegex(found, rf"(?m)({message}|^mnist.py: {message})")

    def test_what_cannot_be_imported_is_one_message_of_its_own_tasks(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, text, reason in [
                ("models", "x = (", "models.py:1: models.py cannot be imported: SyntaxError"),
                ("train_torch", "exit()", "train_torch.py:1: .* cannot be imported: SystemExit"),
            ]:
                Path(folder, f"{name}.py").write_text(text)
                path = mock.patch.object(sys, "path", [folder, *sys.path])
                with mock.patch.dict(sys.modules), path:
                    for module in ("models", "train_torch"):
                        sys.modules.pop(module, None)
                    for row in report.rows(report.PARTS[2:6]):
                        own = row.title.startswith(("task 1", "task 2")) == (name == "models")
                        self.assertRegex(" ".join(row.messages), reason if own else "^$", row.title)
                Path(folder, f"{name}.py").unlink()

    def test_training_that_does_not_learn(self):
        one_pixel = "x = x.view(x.shape[0], -1) * torch.eye(784)[0]"
        texts = "import torch.nn as nn", "import torch; import torch.nn as nn"
        blind = load("models_course.py", *texts, "x = x.view(x.shape[0], -1)", one_pixel)
        course = load("train_course.py")
        vars(course).update(
            GeneratorMLP=blind.GeneratorMLP, DiscriminatorMLP=blind.DiscriminatorMLP
        )
        with mock.patch.dict(sys.modules, models=blind):
            found, _ = findings(course)
        message = found.pop("task 7, train_gan")
        self.assertEqual(found, {})
        self.assertRegex(message[0], "after 300 steps .* distance .* noise")

    def test_parts_are_chosen_by_task_or_name(self):
        names = [part.__name__ for part in report.chosen(["5", "GeneratorTest"])]
        self.assertEqual(names, ["DiscriminatorStepTest", "GeneratorTest"])
        for name in ("11", ".py"):
            self.assertRaisesRegex(ValueError, f"no task or part '{name}'", report.chosen, [name])
