"""A mnist.py that has the documented interface alone, on an ordinary data set and loader."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset


def mnist(root=Path(__file__).parent / "data", batch_size=128, num_workers=0, download=True):
    raw = Path(root) / "MNIST" / "raw"
    file = gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(file, np.uint8, offset=16)
    file = gzip.decompress((raw / "train-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(file, np.uint8, offset=8)
    images = torch.tensor(pixels).float().view(-1, 1, 28, 28) / 255
    images = (images - 0.5) / 0.5
    labels = torch.tensor(labels).long()
    dataset = TensorDataset(images, labels)
    return DataLoader(
        dataset, batch_size=batch_size, num_workers=num_workers, shuffle=True, drop_last=False
    )
