import argparse
import os
from unittest import mock

import torch

from checkpoint import (
    CHECKPOINT,
    Checkpoint,
    load_checkpoint,
    load_parts,
    make_run_dir,
    replace_file,
)
from tests.common import TemporaryDirectoryTest


class CheckpointTest(TemporaryDirectoryTest):
    def test_a_file_that_another_process_replaced_is_kept(self):
        model, args = torch.nn.Linear(2, 1), argparse.Namespace()
        adam = torch.optim.Adam(model.parameters())
        slow, fast = (Checkpoint(self.directory, model, adam, adam) for _ in range(2))
        slow.save(7, args)
        self.assertEqual(fast.load(), 7, "another number of epochs")
        fast.save(8, args)
        fast.save(9, args)
        fast.path.touch()  # as network file systems do
        with self.assertRaisesRegex(OSError, "replaced by another process", msg="overwritten"):
            slow.save(2, args)

    def test_files_that_are_not_checkpoints_are_rejected(self):
        class Code:
            def __reduce__(self):
                return print, ("executed",)

        path = self.directory / CHECKPOINT
        path.parent.mkdir()
        for reason, content in [
            ("contains code", {"format": 4, "args": Code()}),
            ("not a checkpoint of this version", {"format": 99}),
            ("not a checkpoint of this version", [1, 2]),
        ]:
            torch.save(content, path)
            with self.assertRaisesRegex(OSError, reason, msg=f"accepted: {content}"):
                load_checkpoint(self.directory)
        path.write_bytes(path.read_bytes()[:-1])
        self.assertRaisesRegex(OSError, "corrupted", load_checkpoint, path)
        saved, parts = {"path": path, "net": {}}, {"net": torch.nn.Linear(2, 1)}
        self.assertRaisesRegex(OSError, "another models.py", load_parts, saved, parts)

    def test_a_full_disk_leaves_the_file(self):
        path = self.directory / "checkpoints" / "c.pt"
        replace_file(path, b"older")
        left, live = (path.with_name(f"c.pt.{name}.unfinished") for name in ("123", "abc"))
        left.touch()  # as a kill during writing leaves it
        os.utime(left, (0, 0))
        live.touch()  # of a process that is writing
        replace_file(path, b"old")
        full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with full, self.assertRaisesRegex(OSError, "could not write .*c.pt .*No space"):
            replace_file(path, b"new")
        files = {file: file.read_bytes() for file in path.parent.iterdir()}
        expected = {path: b"old", live: b""}
        self.assertEqual(files, expected, "the file is lost, or unfinished ones are left")

    def test_what_a_file_is_stays_as_it_is(self):
        target, link, pipe = (self.directory / name for name in ("target", "link", "pipe"))
        target.touch()
        target.chmod(0o640)
        link.symlink_to(target)
        replace_file(link, b"new")
        self.assertEqual((target.read_bytes(), link.is_symlink()), (b"new", True), "link replaced")
        self.assertEqual(target.stat().st_mode & 0o777, 0o640, "another mode")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        replace_file(pipe, b"new")
        self.assertEqual((os.read(reader, 9), pipe.is_fifo()), (b"new", True), "pipe replaced")

    def test_directories_that_cannot_be_made_end_at_once(self):
        (self.directory / "link").symlink_to("/gone/logs")
        for log_dir in (self.directory / "link", __file__):
            with self.assertRaises(OSError, msg=f"{log_dir} is no directory"):
                make_run_dir(log_dir)

    def test_runs_of_the_same_second_get_directories_of_their_own(self):
        runs = {make_run_dir(self.directory) for _ in range(5)}
        self.assertEqual(len(runs), 5, "two runs write into the same directory")
