"""A mnist.py that has the documented interface alone, on an ordinary data set and loader."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset


def read(raw, part):
    file = gzip.decompress((raw / f"{part}-images-idx3-ubyte.gz").read_bytes())
    images = torch.tensor(np.frombuffer(file, np.uint8, offset=16)).view(-1, 1, 28, 28)
    file = gzip.decompress((raw / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    labels = torch.tensor(np.frombuffer(file, np.uint8, offset=8))
    return images.float() / 255, labels.long()


def mnist(root=Path(__file__).parent / "data", batch_size=128, num_workers=0, download=True):
    images, labels = read(Path(root) / "MNIST" / "raw", "train")
    images = (images - 0.5) / 0.5
    dataset = TensorDataset(images, labels)
    return DataLoader(
        dataset, batch_size=batch_size, num_workers=num_workers, shuffle=True, drop_last=False
    )
