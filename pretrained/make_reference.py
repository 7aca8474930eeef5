"""Writes pretrained/reference.pt: what `metrics.score` needs of MNIST's 10,000 test images.

    python -m pretrained.make_reference        a minute

Their features, in float16, the radii of these features scaled to length 1, and for evaluate.py
the median distance from a test image to its nearest training image.
"""

import torch
import torch.nn.functional as F

from metrics import REFERENCE, classify, nearest_images, radii
from mnist import mnist


def main() -> None:
    training, test = (mnist(train=train).dataset.images for train in (True, False))
    features = classify(test)[0].half()
    distances, _ = nearest_images(test, training)
    contents = {
        "features": features,
        "radii": radii(F.normalize(features.double())),
        "nearest_training_image": distances.median(),
    }
    torch.save(contents, REFERENCE)
    print(f"{REFERENCE}: {REFERENCE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
