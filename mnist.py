"""The training data: all of MNIST in memory, batches taken from it by index.

The files are read directly: importing torchvision takes a second, and it would unpack them first.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

DATA_DIR = Path(__file__).resolve().parent / "data"


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

    Other data in files of the same names and format, such as Fashion-MNIST, are read as well.

    Args:
        root: directory with the four files in `MNIST/raw/`, gzipped or not.
        batch_size: images per batch.
        num_workers: data-loading processes. A batch is one indexing operation, so 0 (the training
            process itself) is fastest.
        download: whether to download MNIST if none of its files is there.
        train: False for the 10,000 test images.

    Raises:
        OSError: a file is missing and could not be downloaded, or is corrupted.
    """
    raw = Path(root) / "MNIST" / "raw"
    if download and not any(raw.glob("*-ubyte*")):
        fetch(root)
    split = "train" if train else "t10k"
    images = read_idx(raw / f"{split}-images-idx3-ubyte")
    labels = read_idx(raw / f"{split}-labels-idx1-ubyte")
    if images.shape != (len(labels), 28, 28):
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


def read_idx(path: Path) -> Tensor:
    """The uint8 array in the IDX file `path`, or else in `path`.gz.

    The format is 0, 0, 8, number of dimensions; shape; values.

    Raises:
        OSError: there is no such file, or it is not in this format; names it.
    """
    if not path.exists():
        path = path.with_name(f"{path.name}.gz")
    idx = path.read_bytes()
    try:
        if path.suffix == ".gz":
            idx = gzip.decompress(idx)
        if idx[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of bytes")
        shape = np.frombuffer(idx, ">i4", count=idx[3], offset=4)
        values = np.frombuffer(idx, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise OSError(f"{path} is corrupted ({error})") from None
    return torch.from_numpy(values.copy())


def fetch(root: str | Path) -> None:
    """Downloads MNIST into `root`, or raises an OSError that says why not."""
    from torchvision.datasets import MNIST  # importing it takes a second

    try:
        MNIST(root, download=True)
    except (OSError, RuntimeError) as error:  # torchvision's has a line for each mirror
        reason = " ".join(str(error).split())
        raise OSError(f"{root} has no MNIST, and it could not be downloaded: {reason}") from None
