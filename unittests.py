"""The contract: what any correct models.py, mnist.py and train_torch.py do, however they do it.

    python unittests.py                  all of it, task by task
    python unittests.py 5                one task
    python unittests.py GeneratorTest    one part, by the name of its class

Put your own file in place of one of the three: each message begins with the file to look at. The
tests of train_torch.py have networks of their own, so that a wrong models.py does not fail them.
"""

import argparse
import sys

import command_line
from contract import report


def main() -> None:
    """Prints a report, and what to do next."""
    parser = command_line.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="numbers of tasks or names of parts; default: all")
    names = parser.parse_args().parts
    del sys.argv[1:]  # one's own files may parse it, too
    try:
        parts = report.chosen(names)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None
    rows = []
    for row in report.rows(parts):
        seen = {message for of in rows for message in of.messages}
        title = f"{row.title}{' (optional)' if row.optional else ''}: {row.state}"
        new = [message for message in row.messages if message not in seen]
        print("\n    ".join([title, *new]), flush=True)
        rows.append(row)
    for hint in dict.fromkeys(hint for row in rows for hint in row.hints):
        print(f"hint: {hint}")
    todo = [message for row in rows if not row.optional for message in row.messages]
    if todo:
        sys.exit(f"next: {todo[0]}")
    if not names:
        print("next: python train_torch.py --progress_bar")


if __name__ == "__main__":
    command_line.run(main)
