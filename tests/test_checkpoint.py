import argparse
from unittest import mock

import torch

from checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, load_parts, replace_file
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
        path.with_name("c.pt.123.unfinished").touch()  # as a kill during writing leaves it
        replace_file(path, b"old")
        full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with full, self.assertRaisesRegex(OSError, "could not write .*c.pt .*No space"):
            replace_file(path, b"new")
        files = {file: file.read_bytes() for file in path.parent.iterdir()}
        self.assertEqual(files, {path: b"old"}, "the file is lost, or unfinished ones are left")
