"""A mnist.py on top of torchvision, which unpacks the archives into the data directory."""

from pathlib import Path

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

DATA = Path(__file__).resolve().parent / "data"


def mnist(root=DATA, batch_size=128, num_workers=2, download=True):
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    train_set = datasets.MNIST(root, train=True, transform=to_tensor, download=download)
    return DataLoader(train_set, batch_size, shuffle=True, num_workers=num_workers)
