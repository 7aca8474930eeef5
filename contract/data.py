"""The data: mnist.py."""

import torch
from torch.utils.data import DataLoader

from contract.part import Mistake, Part


def read_epoch(loader: DataLoader) -> tuple:
    """Images, sizes of batches, range; of each image the label, a code that identifies it, mean."""
    rows, extremes = [], []
    for images, labels in loader:
        x = 1.0 * images.flatten(1)
        # A weighted sum of the gray levels tells images apart: two of MNIST's have none in common.
        codes = (127.5 * x + 127.5).round().double() @ torch.arange(x.shape[1]).double() ** 3
        rows.append((labels.clone(), codes, x.mean(1)))
        extremes += x.aminmax()
    sizes = [len(codes) for _, codes, _ in rows]
    return images, sizes, (min(extremes), max(extremes)), *map(torch.cat, zip(*rows, strict=True))


class MnistTest(Part):
    file = title = "mnist.py"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        loader, right = cls.tested.mnist(), "mnist.py: mnist() must return a DataLoader"
        if not isinstance(loader, DataLoader):
            raise Mistake(f"{right}, not {type(loader).__name__}")
        cls.images, cls.sizes, cls.range, cls.labels, cls.codes, cls.means = read_epoch(loader)
        *_, cls.next_labels, cls.next_codes, _ = read_epoch(loader)

    def test_images(self):
        shape, dtype = [*self.images.shape[1:]], self.images.dtype
        self.check(shape == [1, 28, 28], f"images must be [B, 1, 28, 28], not {['B', *shape]}")
        self.check(dtype == torch.float32, f"images must be float32, not {dtype}")
        low, high, gray = *self.range, (self.means.mean() + 1) / 2
        why = f"gray levels are {low:.3g} to {high:.3g}: Normalize((0.5,), (0.5,)) is missing?"
        self.check((low, high) == (-1, 1), why)
        self.check(abs(gray - 0.1307) < 1e-3, f"mean gray level {gray:.4f}, not 0.1307: inverted?")

    def test_every_image_once(self):
        count, unique, size = len(self.codes), len(self.codes.unique()), self.sizes[0]
        dropped = {*self.sizes} == {size} and 60_000 - size < count < 60_000
        self.check(not dropped, f"the last, smaller batch is dropped ({count} of 60000): drop_last")
        self.check(count != 10_000, "10000 images: the test set; train=True is needed")
        self.check(count == 60_000, f"{count} images in an epoch, not all 60000")
        self.check(unique == 60_000, f"only {unique} different images, not each of the 60000 once")

    def test_order(self):
        begin, again = self.labels[:10].tolist(), torch.equal(self.codes, self.next_codes)
        self.check(begin != [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "not shuffled: the order of the file")
        self.check(not again, "the same order in every epoch: let the DataLoader shuffle")

    def test_labels(self):
        labels, means = self.labels, self.means
        right = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        counts = labels.bincount().tolist()
        self.check(counts == right, f"not the labels of the training set: {counts} of 0 to 9")
        more = (means[labels == 0].mean() - means[labels == 1].mean()).abs() / means.std()
        one, two = labels[self.codes.argsort()], self.next_labels[self.next_codes.argsort()]
        self.check(more > 1.5 and torch.equal(one, two), "labels do not belong to their images")

    def test_batch_size(self):
        loader = self.tested.mnist(batch_size=500, num_workers=0, download=False)
        size, default = len(next(iter(loader))[0]), self.sizes[0]
        self.check(size == 500, f"batch_size is ignored: batches of {size}, not 500")
        self.check(default == 128, f"batch_size must be 128 by default, not {default}")
