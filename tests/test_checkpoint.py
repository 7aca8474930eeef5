import argparse
from unittest import mock

import torch

import checkpoint
from checkpoint import CHECKPOINT, load_parts, make_run_dir
from tests.common import TemporaryDirectoryTest


class CheckpointTest(TemporaryDirectoryTest):
    def setUp(self):
        super().setUp()
        self.path = self.directory / CHECKPOINT

    def save(self, epoch: int) -> None:
        args, parts = argparse.Namespace(lr=1, device="cpu"), {"net": torch.nn.Linear(2, 1)}
        checkpoint.save(self.directory, epoch, args, parts)

    def test_two_processes_write_into_files_of_their_own(self):
        with mock.patch("os.replace") as replace:
            self.save(0)
            self.save(0)
        first, second = (call.args[0] for call in replace.mock_calls)
        self.assertNotEqual(first, second)

    def test_a_full_disk_leaves_the_file(self):
        self.save(1)
        full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
        with full, self.assertRaisesRegex(OSError, "could not write .*checkpoint.pt .*No space"):
            self.save(2)
        self.assertEqual(checkpoint.load(self.path)["epoch"], 1, "the file is lost")
        self.assertEqual([*self.path.parent.iterdir()], [self.path], "an unfinished one is left")

    def test_files_that_are_not_checkpoints_are_rejected(self):
        class Code:
            def __reduce__(self):
                return print, ("executed",)

        self.path.parent.mkdir()
        for reason, content in [
            ("contains code", {"format": 4, "args": Code()}),
            ("not a checkpoint of this version", {"format": 99, "args": {}}),
            ("not a checkpoint of this version", {"format": 4}),
            ("not a checkpoint of this version", [1, 2]),
        ]:
            torch.save(content, self.path)
            with self.assertRaisesRegex(OSError, reason, msg=f"accepted: {content}"):
                checkpoint.load(self.directory)
        self.path.write_bytes(self.path.read_bytes()[:-1])
        self.assertRaisesRegex(OSError, "corrupted", checkpoint.load, self.path)
        self.assertRaisesRegex(OSError, "nobody-at-all", checkpoint.load, "~nobody-at-all/x")

    def test_what_belongs_to_other_networks_is_rejected(self):
        self.save(1)
        saved = checkpoint.load(self.path)
        for reason, parts in [
            ("other networks .*size mismatch", {"net": torch.nn.Linear(3, 1)}),
            ("averaged weights only", {"generator": torch.nn.Linear(2, 1)}),
        ]:
            self.assertRaisesRegex(OSError, f"^[^\n]*{reason}[^\n]*$", load_parts, saved, parts)

    def test_a_checkpoint_of_an_earlier_version_has_no_categories(self):
        self.save(1)
        self.assertEqual(checkpoint.load(self.path)["args"], {"lr": 1, "categories": 0})

    def test_run_directories(self):
        named = {make_run_dir(self.directory / "logs", "x") for _ in range(2)}
        self.assertEqual(named, {self.directory / "logs" / "x"}, "a name is not the directory")
        unnamed = {make_run_dir(self.directory) for _ in range(2)}
        self.assertEqual(len(unnamed), 2, "two runs of one second write into the same directory")
        (self.directory / "link").symlink_to("/gone/logs")
        for log_dir in (self.directory / "link", __file__):
            with self.assertRaises(OSError, msg=f"{log_dir} is no directory"):
                make_run_dir(log_dir)
