"""The training data: all of MNIST in memory, cut into shuffled batches by index."""

import contextlib
import gzip
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

DATA_DIR = Path(__file__).resolve().parent / "data"
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
MD5 = {IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873", LABELS: "d53e105ee54ea40749a09fcbcd1e9432"}


def mnist(
    root: str | Path = DATA_DIR, batch_size: int = 128, num_workers: int = 0, download: bool = True
) -> DataLoader:
    """The 60,000 training images, in a new order every epoch, the last smaller batch included.

    The loader gives batches `(images, labels)`: float32 `[B, 1, 28, 28]` in [-1, 1] and int64
    `[B]`. The order comes from the loader's own generator, which torch's global one seeds here:
    after `torch.manual_seed` it is always the same, whatever else draws random numbers.

    Args:
        root: the folder that holds, or gets, the archives in `MNIST/raw/`. They are read as they
            are, nothing is unpacked; nothing is written when they are there.
        batch_size: images per batch.
        num_workers: processes that cut the batches. One batch is one indexing operation, so 0
            (the training process itself) is fastest.
        download: whether archives that are missing or damaged may be fetched.

    Raises:
        ValueError: a bad `batch_size` or `num_workers`.
        OSError: an archive is missing or damaged and could not be downloaded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    raw = Path(root) / "MNIST" / "raw"
    try:
        images, labels = read_archive(raw / IMAGES), read_archive(raw / LABELS)
    except OSError as problem:
        if not download:
            raise
        fetch(raw, problem)
        images, labels = read_archive(raw / IMAGES), read_archive(raw / LABELS)
    dataset = MNISTImages(images[:, None], labels)

    generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    return DataLoader(
        dataset,
        batch_size=None,  # the sampler's items are whole batches already
        sampler=ShuffledBatches(dataset, batch_size, generator),
        generator=generator,  # else each epoch takes a number from torch's global one
        num_workers=num_workers,
        pin_memory=num_workers > 0 and torch.accelerator.is_available(),
    )


class MNISTImages(Dataset):
    """Images uint8 `[N, 1, 28, 28]` and their labels `[N]`; an index gives one, or many at once."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels.long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        """Images as float32, where grey value 0 is -1 and 255 is 1, and labels."""
        if not isinstance(index, Tensor):
            return tuple(part[0] for part in self[torch.tensor([index])])
        images = self.images.index_select(0, index)  # takes an eighth of the time of images[index]
        return images.float().div_(127.5).sub_(1), self.labels.index_select(0, index)

    def to(self, device: torch.device) -> None:
        """Moves the whole set, so that batches are cut on the device (with `num_workers=0`)."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors of `batch_size` images each that go once through the set in random order."""

    def __init__(self, dataset: MNISTImages, batch_size: int, generator: torch.Generator):
        self.dataset, self.batch_size, self.generator = dataset, batch_size, generator

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.dataset), generator=self.generator)
        # Moved as a whole, so that an accelerator is waited for once an epoch, not every step.
        yield from order.to(self.dataset.images.device).split(self.batch_size)


def read_archive(archive: Path) -> Tensor:
    """The uint8 array in a gzipped IDX file: four bytes (the last: dimensions), shape, values."""
    if not archive.is_file():
        raise OSError(f"{archive} is missing")
    content = archive.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[archive.name]:
        raise OSError(f"{archive} is damaged: its md5 is not {MD5[archive.name]}")
    idx = gzip.decompress(content)
    dimensions = idx[3]
    shape = np.frombuffer(idx, ">i4", count=dimensions, offset=4)
    values = np.frombuffer(idx, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(values.reshape(shape).copy())


def fetch(raw: Path, problem: OSError) -> None:
    """Downloads the archives into `raw`, each of them there whole or not at all."""
    from torchvision.datasets import MNIST  # here, for its import takes as long as torch's

    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw) as folder:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each mirror that fails
                MNIST(folder, download=True)
            for archive in Path(folder, "MNIST", "raw").glob("*.gz"):
                os.replace(archive, raw / archive.name)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"{problem}, and the download failed ({reason}); put {IMAGES} and {LABELS} into {raw}"
        ) from error
