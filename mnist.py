"""The training data: all of MNIST in memory, batches taken from it by index."""

import contextlib
import gzip
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

DATA_DIR = Path(__file__).resolve().parent / "data"
MD5 = {  # of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist(
    root: str | Path = DATA_DIR,
    batch_size: int = 128,
    num_workers: int = 0,
    download: bool = True,
    train: bool = True,
) -> DataLoader:
    """A loader of the 60,000 training images, shuffled every epoch by torch's global RNG.

    Batches are `(images, labels)`: float32 `[B, 1, 28, 28]` in [-1, 1] and int64 `[B]`. The last
    batch may be smaller.

    The archives are read directly, because `torchvision.datasets.MNIST` unpacks them into the data
    directory, which may be read-only, and where several jobs may start at once. Files of the same
    names and format, such as Fashion-MNIST's, are read as well; a printed line then says so.

    Args:
        root: directory with the archives in `MNIST/raw/`. Existing files are never changed.
        batch_size: images per batch.
        num_workers: data-loading processes. A batch is one indexing operation, so 0 (the training
            process itself) is fastest.
        download: whether to download MNIST if none of the archives is there.
        train: False for the 10,000 test images.

    Raises:
        ValueError: `batch_size` is not positive.
        OSError: an archive is corrupted, or is missing and was not downloaded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    raw = Path(root) / "MNIST" / "raw"
    names = [name for name in MD5 if name.startswith("train" if train else "t10k")]
    missing = [f"{name}.gz" for name in names if not find(raw, name).exists()]
    if len(missing) == len(names) and download:
        fetch(raw, missing)
    elif missing:
        raise OSError(f"{raw} has no {' and '.join(missing)}: put what is missing there")
    (images, images_md5), (labels, labels_md5) = (read_idx(find(raw, name)) for name in names)
    if train and [images_md5, labels_md5] != [MD5[name] for name in names]:
        print(f"Data:        {raw} is not the original MNIST; using it", file=sys.stderr)
    if images.shape != (len(labels), 28, 28) or len(labels) == 0:
        shape = list(images.shape)
        raise OSError(f"{raw} has images of shape {shape} and {len(labels)} labels, not 28 x 28")
    dataset = MNISTImages(images[:, None], labels)
    return DataLoader(
        dataset,
        batch_size=None,  # the sampler's items are whole batches already
        sampler=ShuffledBatches(dataset, batch_size),
        num_workers=num_workers,
        timeout=60 if num_workers else 0,  # seconds; without shared memory, workers hang
        pin_memory=num_workers > 0 and torch.accelerator.is_available(),
    )


class MNISTImages(Dataset):
    """Images uint8 `[N, 1, 28, 28]` and labels `[N]`, indexed by an integer or a tensor of them."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels.long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """Images as float32, gray level 0 as -1 and 255 as 1, and their labels."""
        if not isinstance(index, Tensor):
            index = torch.tensor([index], device=self.images.device)
            return tuple(part[0] for part in self[index])
        images = self.images.index_select(0, index)  # takes an eighth of the time of images[index]
        return images.float().div_(127.5).sub_(1), self.labels.index_select(0, index)

    def to(self, device: torch.device) -> None:
        """Moves all images and labels, so that batches are made on the device."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)


class ShuffledBatches(Sampler[Tensor]):
    """Tensors of `batch_size` indices each that cover the data set once, in random order."""

    def __init__(self, dataset: MNISTImages, batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.dataset))
        # Moved as a whole: this synchronizes with an accelerator once an epoch, not every step.
        yield from order.to(self.dataset.images.device).split(self.batch_size)


def find(raw: Path, name: str) -> Path:
    """The file of this name, gzipped as it is published, or else unpacked."""
    packed = raw / f"{name}.gz"
    return packed if packed.exists() else raw / name


def read_idx(path: Path) -> tuple[Tensor, str]:
    """The uint8 array in an IDX file, and the MD5 of the unpacked file.

    The format is 0, 0, 8, number of dimensions; shape; values.

    Raises:
        OSError: the file cannot be read, decompressed, or is not in this format; names it.
    """
    idx = path.read_bytes()
    try:
        if path.suffix == ".gz":
            idx = gzip.decompress(idx)
        if idx[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        shape = np.frombuffer(idx, ">i4", count=idx[3], offset=4)
        values = np.frombuffer(idx, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise OSError(f"{path} is corrupted ({error}); it was left as it is") from None
    return torch.from_numpy(values.copy()), hashlib.md5(idx, usedforsecurity=False).hexdigest()


def fetch(raw: Path, names: list[str]) -> None:
    """Downloads all of MNIST beside `raw`; the complete files are then renamed into place.

    Raises:
        OSError: a file could not be downloaded or written.
    """
    from torchvision.datasets import MNIST  # importing it takes a second

    beside = next(path for path in raw.absolute().parents if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=beside) as folder:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each mirror that fails
                MNIST(folder, download=True)
            downloaded = Path(folder, "MNIST", "raw")
            raw.parent.mkdir(parents=True, exist_ok=True)
            try:
                downloaded.rename(raw)
            except OSError:  # it is there, with files of the other split or of a faster process
                for name in names:
                    if not (raw / name).exists():
                        (downloaded / name).rename(raw / name)
    except (OSError, RuntimeError) as error:
        reason = "no mirror provided them" if isinstance(error, RuntimeError) else error
        raise OSError(
            f"{raw} has no {' and '.join(names)}, and they could not be downloaded ({reason}): "
            "put them there"
        ) from error
