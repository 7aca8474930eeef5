import csv
import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from assignment import grade, make
from tests.common import TemporaryDirectoryTest, needs_shipped_models

SOLUTION, FOREIGN = make.HERE.parent, Path(__file__).parent / "foreign"
MODELS, TRAINING = (
    (FOREIGN / name).read_text() for name in ("models_course.py", "train_course.py")
)
EMPTY = (
    "import torch\nclass GAN(torch.nn.Module):\n    def __init__(self, *_): super().__init__()\n"
)
EMPTY += "class GeneratorMLP(GAN): pass\nclass DiscriminatorMLP(GAN): pass\n"


@needs_shipped_models
class MakeTest(TemporaryDirectoryTest):
    def test_tasks_become_done_in_their_order(self):
        make.make(template := self.directory / "template")

        def states(first: int) -> list[str]:
            make.make(folder := self.directory / str(first), first)
            marks = grade.grade(folder, template, seconds=300)[1:]
            return [" ".join(mark.messages) for mark in marks]

        with ThreadPoolExecutor(2) as pool:
            for first, found in zip((1, 6, 9), pool.map(states, (1, 6, 9)), strict=True):
                for number, messages in enumerate(found, 1):
                    expected = r"^$" if number < first else rf"^\S+:\d+: task {number}, .* written$"
                    if number > 8:  # which does something else until it is written
                        expected = r"^train_torch.py: (gradient_penalty|update_average): .* not "
                    self.assertRegex(messages, expected, f"the first task to be done is {first}")

    def test_pieces_are_taken_out_and_all_else_is_to_the_letter(self):
        make.make(folder := self.directory / "folder")
        make.make(complete := self.directory / "complete", 11)
        everything = "".join(
            path.read_text() for path in folder.rglob("*") if path.suffix in (".py", ".md")
        )
        until = [piece.until for piece in make.read_pieces()]
        for name in ("models.py", "train_torch.py"):
            solution, template = ((of / name).read_text() for of in (SOLUTION, folder))
            self.assertEqual((complete / name).read_text(), solution, "no piece, and yet changed")
            solution, template = solution.splitlines(), template.splitlines()
            new = [line.strip() for line in template if line not in solution]
            new = "\n".join(line for line in new if line not in until)
            self.assertRegex(new, r"(?m)\A(^(#|raise NotImpl).*$\s?)+\Z", "not a hint")
            pieces = [line.strip() for line in solution if line not in template]
            given = [line for line in pieces if len(line) > 40 and line in everything]
            self.assertEqual(given, [], "gives a solution away")
        self.assertEqual(len([*folder.rglob("*.pt")]), 2, "more than classifier and reference")

    def test_what_cannot_be_made_is_one_line(self):
        (self.directory / "file").touch()
        self.assertRaisesRegex(OSError, "is not empty", make.make, self.directory)
        renamed = make.Piece("task 3, sample", "train_torch.py", "GAN.smaple", "", "")
        pieces = mock.patch("assignment.make.read_pieces", return_value=[renamed])
        with pieces, self.assertRaisesRegex(OSError, "train_torch.py has no GAN.smaple"):
            make.make(self.directory / "folder")


class GradeTest(TemporaryDirectoryTest):
    def grade(self, *flags) -> str:
        """What grade.py prints."""
        arguments = mock.patch("sys.argv", ["", *map(str, flags)])
        with arguments, redirect_stdout(io.StringIO()) as printed:
            grade.main()
        return printed.getvalue()

    def test_every_hand_in_is_a_row_whatever_it_does(self):
        own = "import argparse, mnist\nargparse.ArgumentParser().parse_args()\nmnist.mnist()\n"
        logits, sample = "preds = self.model(x)", "def sample(self, batch_size):"
        hangs = MODELS.replace(logits, f"{logits}\n        import time; time.sleep(999)")
        aborts = TRAINING.replace(sample, f"{sample}\n        import os; os.abort()")
        run, skip = "unittest.TestCase.run = lambda *_: None", "raise unittest.SkipTest"
        write = "import os; [os.write(n, b\"('', 'SampleTest', [], [])\\n\") for n in (1, 2)]"
        cases = [
            ("parses argv, loads data", MODELS, own + TRAINING, 8, "^$"),
            ("hangs", hangs, TRAINING, 7, r"^models.py:\d+: takes more than 15 s$"),
            (
                "hangs at once",
                f"import time; time.sleep(999)\n{MODELS}",
                TRAINING,
                6,
                "s while it is imported$",
            ),
            ("exits", f"import os; os._exit(3)\n{MODELS}", TRAINING, 6, "^models.py: .* status 3 "),
            ("aborts", MODELS, aborts, 7, "^train_torch.py: ends .* status -6"),
            (
                "no models",
                None,
                TRAINING,
                6,
                "^models.py was not handed in; there is train_torch.py$",
            ),
            ("empty", None, None, 0, "there is nothing"),
            ("no run", f"import unittest; {run}\n{EMPTY}", EMPTY, 0, "tampered"),
            ("skip", f"import unittest; {skip}\n{EMPTY}", EMPTY, 0, "SkipTest"),
            ("rows", f"{write}\n{EMPTY}", EMPTY, 0, "GeneratorMLP"),
            ("at exit", f"import atexit\n{EMPTY}", EMPTY, 0, "look at models.py:1: import atexit"),
        ]
        submissions, table = self.directory / "submissions", self.directory / "marks.csv"
        for name, models, training, *_ in cases:
            (submissions / name).mkdir(parents=True)
            for file, text in [("models.py", models), ("train_torch.py", training)]:
                if text:
                    (submissions / name / file).write_text(text, encoding="utf-8")
        with zipfile.ZipFile(submissions / "a.zip", "w") as archive:
            archive.writestr("work/models-1.py", MODELS)
            archive.writestr("work/train_torch (2).py", TRAINING)
        cases.append(("a.zip", None, None, 8, "hint: models.py is work.models-1.py\n"))
        printed = self.grade(submissions / "*", "--csv", table, "--seconds", 15, "--jobs", 4)
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        self.assertEqual({*rows}, {name for name, *_ in cases}, "not every hand-in has a row")
        for name, *_, points, message in cases:
            row = rows[name]
            self.assertEqual((row["points"], row["of"]), (str(points), "8"), row)
            self.assertRegex(row["messages"], rf"(?m){message}")
            self.assertRegex(printed, rf"\n\S+{re.escape(name)} .* {points}/8\n")

    def test_what_gradescope_reads(self):
        (folder := self.directory / "submission").mkdir()
        results = self.directory / "results.json"
        (folder / "models.py").write_text(MODELS)
        wrong = TRAINING.replace("torch.ones_like(preds)", "torch.zeros_like(preds)")
        (folder / "train_torch.py").write_text(wrong)
        self.grade(folder, "--json", results)
        tests = {test["name"]: test for test in json.loads(results.read_text())["tests"]}
        found = [(test["status"], test["score"], test["max_score"]) for test in tests.values()]
        failed = tests["task 6, generator_step"]
        self.assertEqual(found.count(("passed", 1, 1)), 7)
        self.assertEqual((failed["status"], failed["score"]), ("failed", 0))
        self.assertRegex(failed["output"], "swapped labels")
        self.assert_rejected(
            "single folder", lambda flags: self.grade(*flags), "a", "b", "--json", "x"
        )
