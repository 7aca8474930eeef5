import gzip
import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import numpy as np

import mnist
from tests.common import TemporaryDirectoryTest, needs_shipped_mnist

ARCHIVES = [f"{name}.gz" for name in getattr(mnist, "MD5", ())]


def write(root: str | Path, gray: int, names: list[str] = ARCHIVES) -> None:
    """Writes 30 images of one gray level and their labels."""
    for name in names:
        shape, value = ((30, 28, 28), gray) if "images" in name else ((30,), 5)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        Path(root, "MNIST", "raw").mkdir(parents=True, exist_ok=True)
        content = gzip.compress(header + np.full(shape, value, np.uint8).tobytes())
        Path(root, "MNIST", "raw", name).write_bytes(content)


@needs_shipped_mnist
class MnistTest(TemporaryDirectoryTest):
    def load(self, torchvision=None, **options) -> tuple[list[int], bool]:
        """Gray levels, where `torchvision` downloads, and whether other data are named."""
        download = mock.patch("torchvision.datasets.MNIST", torchvision)
        with download, redirect_stderr(io.StringIO()) as printed:
            dataset = mnist.mnist(self.directory, **options).dataset
        return dataset.images.unique().tolist(), "not the original MNIST" in printed.getvalue()

    def test_the_original_is_known_packed_in_any_way_or_unpacked(self):
        raw, names = self.directory / "MNIST" / "raw", ARCHIVES[:2]
        raw.mkdir(parents=True)
        for pack, suffix in [(lambda idx: gzip.compress(idx, 1), ".gz"), (lambda idx: idx, "")]:
            for name in names:
                idx = gzip.decompress((mnist.DATA_DIR / "MNIST" / "raw" / name).read_bytes())
                (raw / name).with_suffix(suffix).write_bytes(pack(idx))
            self.assertFalse(self.load()[1], f"{suffix!r} files are called not the original")
            for name in names:
                (raw / name).with_suffix(suffix).unlink()

    def test_data_without_images(self):
        write(self.directory, 5)
        for name, dims in zip(ARCHIVES, (3, 1), strict=False):
            shape = bytes(4) + bytes([0, 0, 0, 28]) * (dims - 1)
            content = gzip.compress(bytes([0, 0, 8, dims]) + shape)
            (self.directory / "MNIST" / "raw" / name).write_bytes(content)
        self.assertRaisesRegex(OSError, "has images of shape", self.load)

    def test_download(self):
        def slow_download(root, download):
            write(self.directory, 7)  # by another process
            write(root, 9)

        download = mock.Mock(side_effect=lambda root, download: write(root, 9))
        self.assertEqual(self.load(download), ([9], True), "not what was downloaded, or not named")
        left = [path.name for path in self.directory.iterdir()]
        self.assertEqual(left, ["MNIST"], "something else is left")
        shutil.rmtree(self.directory / "MNIST")
        self.assertEqual(self.load(slow_download)[0], [7], "a faster process's were replaced")
        shutil.rmtree(self.directory / "MNIST")
        write(self.directory, 5, ARCHIVES[2:])
        self.assertEqual(self.load(download)[0], [9], "not downloaded beside existing files")
        self.assertEqual(self.load(train=False), ([5], False), "existing files were changed")
        loader = mnist.mnist(self.directory, num_workers=1, train=False)
        found = loader.num_workers, *loader.dataset[7][0].shape
        self.assertEqual(found, (1, 1, 28, 28), "other workers, or an integer is not one image")

    def test_what_is_missing_is_named_and_nothing_is_created(self):
        def failing_download(root, download):
            write(root, 9, ARCHIVES[:1])
            raise RuntimeError("Error downloading\n")

        both = " and ".join(ARCHIVES[:2])
        for there, options, named in [
            ([], {"torchvision": failing_download}, f"{both}, and they could not be downloaded"),
            ([], {"download": False}, f"{both}: "),
            (ARCHIVES[:1], {}, f"{ARCHIVES[1]}: "),
        ]:
            write(self.directory, 5, there)
            with self.assertRaisesRegex(OSError, f"raw has no {named}[^\n]*$"):
                self.load(**options)
            left = [path.name for path in self.directory.rglob("*") if path.is_file()]
            self.assertEqual(left, there, "something was created")

    def test_corrupted_archives_are_rejected_by_name_and_kept(self):
        write(self.directory, 5)
        path = self.directory / "MNIST" / "raw" / ARCHIVES[0]
        complete, named = path.read_bytes(), f"{ARCHIVES[0]} is corrupted"
        idx = gzip.decompress(complete)
        for content, reason in [
            (complete[:-9], named),
            (complete[:10] + b"\xff" + complete[11:], named),
            (b"not gzip", named),
            (gzip.compress(b"\0\0\x0d" + idx[3:]), named),  # floats
            (gzip.compress(idx[:-1]), named),
            (gzip.compress(idx[:7] + b"\x0f" + idx[8 : 16 + 15 * 784]), r"\[15, 28, 28\] and 30"),
            (gzip.compress(idx[:7] + b"\0" + idx[8:16]), r"\[0, 28, 28\] and 30"),
        ]:
            path.write_bytes(content)
            with self.assertRaisesRegex(OSError, reason, msg="accepted"):
                self.load()
            self.assertEqual(path.read_bytes(), content, "a user's file was replaced")
