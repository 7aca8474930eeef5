"""Makes the student's folder of the exercise out of this repository, which is the solution.

    python -m assignment.make FOLDER             all tasks are to be done
    python -m assignment.make FOLDER --from 5    the tasks 1 to 4 are done

What is to be written stands in pieces.md. Everything else is copied to the letter.
"""

import ast
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import command_line

HERE = Path(__file__).resolve().parent
# What goes into the folder besides its README.md. Nothing else, so that no solution does.
FILES = """
mnist.py models.py train_torch.py checkpoint.py command_line.py utils.py metrics.py sample.py
unittests.py contract/*.py requirements.txt train.job LICENSE .gitignore data/README.md
data/MNIST/raw/*.gz pretrained/classifier.pt pretrained/reference.pt
"""


class Piece(NamedTuple):
    """A function that is to be written, a row of the table in pieces.md."""

    task: str  # "task 1, the generator"
    file: str
    function: str
    hint: str
    until: str  # the body that it has until it is written, if training is to run without it


def read_pieces() -> list[Piece]:
    """The rows of the table."""
    lines = (HERE / "pieces.md").read_text(encoding="utf-8").replace("\\_", "_").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| task ")]
    return [Piece(*(cell.strip(" `") for cell in row)) for row in rows[1:]]


def functions(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a module and the methods of its classes, by their qualified names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for name, method in functions(node):
                yield f"{node.name}.{name}", method


def blank(source: str, pieces: list[Piece]) -> str:
    """The source of a module, in which the bodies of the pieces are replaced by hints.

    Raises:
        OSError: there is no such function; names it.
    """
    lines, found = source.splitlines(keepends=True), dict(functions(ast.parse(source)))
    for piece in pieces:
        if piece.function not in found:
            raise OSError(f"{piece.file} has no {piece.function}, a piece in pieces.md")
    for piece in sorted(pieces, key=lambda piece: -found[piece.function].lineno):
        function = found[piece.function]
        first = function.body[0].lineno - 1
        if ast.get_docstring(function):
            first = function.body[0].end_lineno
        while lines[first - 1].lstrip().startswith("#"):  # a comment is a part of the body
            first -= 1
        indent = " " * function.body[0].col_offset
        body = textwrap.wrap(piece.hint, 92, initial_indent="# ", subsequent_indent="# ")
        todo = f'raise NotImplementedError("{piece.task}, is to be written")'
        body.append(piece.until or todo)
        lines[first : function.end_lineno] = [f"{indent}{line}\n" for line in body]
    return "".join(lines)


def make(folder: Path, first: int = 1) -> None:
    """Writes the folder, in which the tasks from `first` on are to be done.

    Raises:
        OSError: the folder is not empty, cannot be written, or a piece is not in the solution.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OSError(f"{folder} is not empty")
    names = [piece.task for piece in read_pieces()]
    tasks = [*dict.fromkeys(names)][first - 1 :]
    for source in (path for name in FILES.split() for path in HERE.parent.glob(name)):
        path = folder / source.relative_to(HERE.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        todo = [p for p in read_pieces() if p.file == source.name and p.task in tasks]
        if todo:
            path.write_text(blank(source.read_text(encoding="utf-8"), todo), encoding="utf-8")
        else:
            shutil.copyfile(source, path)
    shutil.copyfile(HERE / "exercise.md", folder / "README.md")
    shutil.copyfile(HERE / "expected.png", folder / "expected.png")  # which it shows


def main() -> None:
    parser = command_line.Parser(prog="assignment.make", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=command_line.path)
    number = {"type": command_line.positive, "default": 1, "dest": "first", "metavar": "TASK"}
    parser.add_argument("--from", help="the first task that is to be done", **number)
    args = parser.parse_args()
    make(Path(args.folder), args.first)
    print(args.folder)


if __name__ == "__main__":
    command_line.run(main)
