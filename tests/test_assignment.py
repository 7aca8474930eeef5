import csv
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from assignment import grade, make
from tests.common import TemporaryDirectoryTest, needs_shipped_models

SOLUTION, FOREIGN = make.HERE.parent, Path(__file__).parent / "foreign"


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
                    self.assertRegex(messages, expected, f"the first task to be done is {first}")

    def test_pieces_are_taken_out_and_all_else_is_to_the_letter(self):
        make.make(folder := self.directory / "folder")
        make.make(complete := self.directory / "complete", 11)
        everything = "".join(
            path.read_text() for path in [*folder.glob("*.py"), *folder.glob("*.md")]
        )
        for name in ("models.py", "train_torch.py"):
            solution, template = ((of / name).read_text() for of in (SOLUTION, folder))
            self.assertEqual((complete / name).read_text(), solution, "no piece, and yet changed")
            solution, template = solution.splitlines(), template.splitlines()
            new = [line.strip() for line in template if line not in solution]
            self.assertRegex("\n".join(new), r"(?m)\A(^(#|raise NotImpl).*$\s?)+\Z", "not a hint")
            pieces = [line.strip() for line in solution if line not in template]
            given = [line for line in pieces if len(line) > 40 and line in everything]
            self.assertEqual(given, [], "gives a solution away")
        self.assertEqual(len([*folder.rglob("*.pt")]), 2, "more than classifier and reference")

    def test_what_cannot_be_made_is_one_line(self):
        (self.directory / "file").touch()
        self.assertRaisesRegex(OSError, "is not empty", make.make, self.directory)
        renamed = make.Piece("task 3, sample", "train_torch.py", "GAN.smaple", "")
        pieces = mock.patch("assignment.make.read_pieces", return_value=[renamed])
        with pieces, self.assertRaisesRegex(OSError, "train_torch.py has no GAN.smaple"):
            make.make(self.directory / "folder")


class GradeTest(TemporaryDirectoryTest):
    def test_every_folder_is_a_row(self):
        folders = [self.directory / name for name in ("right", "ends", "hangs")]
        for folder, line in zip(folders, ("", "raise SystemExit", "while True: pass"), strict=True):
            folder.mkdir()
            shutil.copy(FOREIGN / "train_course.py", folder / "train_torch.py")
            source = (FOREIGN / "models_course.py").read_text()
            (folder / "models.py").write_text(f"{line}\n{source}")
        table, results = self.directory / "marks.csv", self.directory / "results.json"
        flags = [*folders, "--csv", table, "--json", results, "--seconds", 40]
        arguments, no_bar = mock.patch("sys.argv", ["", *map(str, flags)]), io.StringIO()
        with arguments, redirect_stderr(no_bar), redirect_stdout(io.StringIO()) as printed:
            grade.main()
        for folder, marks in zip(folders, ("8/8", "0/8", "0/8"), strict=True):
            self.assertRegex(printed.getvalue(), rf"{folder} .* {marks}\n")
        self.assertRegex(printed.getvalue(), "no result: exit status 0\n(.*\n)*.*more than 40 s")
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["task 5, discriminator_step"] for row in rows], ["1", "0", "0"])
        (one, *_), (last, *_) = (
            json.loads(results.read_text())[str(folder)]["tests"][-3:] for folder in folders[:2]
        )
        expected = {"name": "task 8, make_optimizers", "score": 1, "max_score": 1, "output": ""}
        self.assertEqual(one, expected)
        self.assertEqual((last["score"], last["output"]), (0, "no result: exit status 0"))
