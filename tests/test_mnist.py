import gzip
from unittest import mock

import numpy as np

import mnist
from tests.common import TemporaryDirectoryTest, needs_shipped_mnist

FILES = [
    f"{split}-{part}-ubyte"
    for split in ("train", "t10k")
    for part in ("images-idx3", "labels-idx1")
]


def idx(name: str, gray: int) -> bytes:
    """The contents of a file of 30 images of one gray level, or of their labels."""
    shape, value = ((30, 28, 28), gray) if "images" in name else ((30,), 5)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
    return header + np.full(shape, value, np.uint8).tobytes()


@needs_shipped_mnist
class MnistTest(TemporaryDirectoryTest):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "MNIST" / "raw"

    def write(self, gray: int, names: list[str] = FILES) -> None:
        self.raw.mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.raw / f"{name}.gz").write_bytes(gzip.compress(idx(name, gray)))

    def load(self, **options) -> list[int]:
        """The gray levels of the images."""
        return mnist.mnist(self.directory, **options).dataset.images.unique().tolist()

    def test_gzipped_and_unpacked_files_of_both_splits(self):
        self.write(9, FILES[:2])
        for name in FILES[2:]:
            (self.raw / name).write_bytes(idx(name, 7))
        self.assertEqual((self.load(), self.load(train=False)), ([9], [7]), "other files")
        loader = mnist.mnist(self.directory, num_workers=1)
        found = loader.num_workers, *loader.dataset[7][0].shape
        self.assertEqual(found, (1, 1, 28, 28), "other workers, or an integer is not one image")

    def test_mnist_is_downloaded_if_none_of_its_files_is_there(self):
        download = mock.Mock(side_effect=lambda root, download: self.write(9))
        with mock.patch("torchvision.datasets.MNIST", download):
            self.assertRaisesRegex(OSError, "No such file", self.load, download=False)
            self.assertEqual((self.load(), self.load()), ([9], [9]), "not what was downloaded")
            (self.raw / f"{FILES[1]}.gz").unlink()
            self.assertRaisesRegex(OSError, f"No such file.*{FILES[1]}", self.load)
        self.assertEqual(download.call_count, 1, "downloaded although files are there")

    def test_a_download_that_fails_is_one_line(self):
        failure = RuntimeError("Error downloading x:\nTried a, got:\nb")
        with mock.patch("torchvision.datasets.MNIST", side_effect=failure):
            self.assertRaisesRegex(OSError, "^[^\n]*could not be [^\n]*Tried a[^\n]*$", self.load)

    def test_corrupted_files_are_named_and_kept(self):
        self.write(5)
        path = self.raw / f"{FILES[0]}.gz"
        complete, named = path.read_bytes(), f"{FILES[0]}.gz is corrupted"
        content = gzip.decompress(complete)
        for wrong, reason in [
            (complete[:-9], named),
            (complete[:10] + b"\xff" + complete[11:], named),
            (b"not gzip", named),
            (gzip.compress(b"\0\0\x0d" + content[3:]), named),  # floats
            (gzip.compress(content[:-1]), named),
            (gzip.compress(content[:7] + b"\x0f" + content[8 : 16 + 15 * 784]), r"\[15, 28, 28\]"),
        ]:
            path.write_bytes(wrong)
            with self.assertRaisesRegex(OSError, reason, msg="accepted"):
                self.load()
            self.assertEqual(path.read_bytes(), wrong, "a user's file was replaced")
