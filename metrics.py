"""Measures of sample quality: how close generated digits come to MNIST's test images.

    score(generated_images)["frechet_distance"]

Except for `nearest_images`, all measures use features or predictions of a digit classifier. They
depend on the number of images, so compare only scores of the same number.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import from_gray, to_gray

FOLDER = Path(__file__).resolve().parent / "pretrained"
CLASSIFIER, REFERENCE = FOLDER / "classifier.pt", FOLDER / "reference.pt"
SCORES = "frechet_distance", "precision", "recall", "coverage", "smallest_share", "confident"
IMAGE_SHAPE = (1, 28, 28)  # of the images that can be scored
CONFIDENT = 0.9  # the classifier's probability above which an image is clearly one digit
NEIGHBORS = 5  # the ball of a feature reaches its 5th neighbor
ROWS = 250  # of a distance matrix in memory at a time; twice as many take 1.6 times as long


class DigitClassifier(nn.Module):
    """A convolutional digit classifier: images `[B, 1, 28, 28]` in [-1, 1] to logits `[B, 10]`.

    It takes 2.9 million multiply-adds per image, few enough to run during training.
    """

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(
            *convolution(1, 24, kernel_size=5, stride=2),
            *convolution(24, 48, stride=2),
            *convolution(48, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
            *convolution(64, 96),
        )
        self.to_logits = nn.Linear(96, 10)

    def features(self, images: Tensor) -> Tensor:
        """The mean of each channel of the last convolution, `[B, 96]`."""
        return self.convolutions(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.to_logits(self.features(images))


def convolution(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> list[nn.Module]:
    """A padded convolution, its batch normalization and a ReLU."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


def load_classifier() -> DigitClassifier:
    """Loads the digit classifier of `pretrained/`, in eval mode.

    Raises:
        OSError: `pretrained/classifier.pt` cannot be read.
    """
    classifier = DigitClassifier()
    classifier.load_state_dict(torch.load(CLASSIFIER, weights_only=True))
    classifier.to(memory_format=torch.channels_last)  # faster on the CPU
    return classifier.eval().requires_grad_(False)


@torch.inference_mode()
def classify(images: Tensor) -> tuple[Tensor, Tensor]:
    """Features `[N, F]` and class probabilities `[N, 10]` of images, float64 on the CPU.

    Args:
        images: `[N, 1, 28, 28]`, floating point in [-1, 1], which is rounded to the 256 gray
            levels of MNIST, or uint8.

    Raises:
        FloatingPointError: an image holds NaN.
        NotImplementedError: images have another shape.
    """
    if images.shape[1:] != IMAGE_SHAPE:
        shapes = f"{[*IMAGE_SHAPE]}, not {[*images.shape[1:]]}"
        raise NotImplementedError(f"the digit classifier is for images of shape {shapes}")
    if images.isnan().any():
        raise FloatingPointError("images hold NaN")
    classifier = load_classifier()
    features = [classifier.features(from_gray(to_gray(part).cpu())) for part in images.split(250)]
    features = torch.cat(features)
    return features.double(), classifier.to_logits(features).double().softmax(1)


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """Fréchet distance between two sets of features `[N, F]` and `[M, F]`, taken as Gaussians.

    On Inception features this is the FID of Heusel et al. 2017 (arXiv:1706.08500). On the digit
    classifier's features the values cannot be compared with any FID.
    """
    mean1, mean2 = (features.double().mean(0) for features in (generated, real))
    covariance1, covariance2 = (features.double().T.cov() for features in (generated, real))
    # tr (S1 S2)^1/2 = tr (S1^1/2 S2 S1^1/2)^1/2, in which all matrices are symmetric.
    # Rounding makes eigenvalues of 0 slightly negative, so they are clamped.
    values, vectors = torch.linalg.eigh(covariance1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace()
    return (distance - 2 * overlap).clamp(min=0).item()


def radii(features: Tensor) -> Tensor:
    """Distance `[N]` from each of the features `[N, F]` to its 5th neighbor, itself not counted.

    1e-6 is added: by matmul, in float64, equal features are up to 1e-7 apart.

    Raises:
        ValueError: there are fewer than 6 features.
    """
    if len(features) <= NEIGHBORS:
        raise ValueError(f"needs more than {NEIGHBORS} features, got {len(features)}")
    features = features.double()
    parts = (torch.cdist(part, features) for part in features.split(ROWS))
    nearest = torch.cat([part.topk(NEIGHBORS + 1, largest=False).values for part in parts])
    return nearest[:, -1] + 1e-6


def neighbor_scores(generated: Tensor, real: Tensor, real_radii: Tensor) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991), and coverage.

    - precision: share of the generated features that are in the ball of any real one.
    - recall: share of the real features that are in the ball of any generated one.
    - coverage: share of the real features with any generated one in their ball (Naeem et al.
      2020, arXiv:2002.09797).

    Args:
        generated, real: features `[N, F]` and `[M, F]`, N at least 6.
        real_radii: `radii(real)`.
    """
    generated_radii, generated = radii(generated), generated.double()
    precise = torch.zeros(len(generated), dtype=torch.bool)
    recalled, covered = [], []
    for part, part_radii in zip(real.double().split(ROWS), real_radii.split(ROWS), strict=True):
        distances = torch.cdist(part, generated)
        in_real_ball = distances <= part_radii[:, None]
        precise |= in_real_ball.any(0)
        covered.append(in_real_ball.any(1))
        recalled.append((distances <= generated_radii).any(1))
    shares = {"precision": precise, "recall": torch.cat(recalled), "coverage": torch.cat(covered)}
    return {name: hits.double().mean().item() for name, hits in shares.items()}


def nearest_images(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """L2 distance from each image to its nearest training image, and that one's index, both `[N]`.

    A generator that memorizes gets closer to training images than test images do.

    Args:
        images, training: `[N, 1, 28, 28]` and `[M, 1, 28, 28]`, as for `classify`. 60,000 training
            images need 0.4 GB of memory.
    """
    training = training.to(images.device)
    images, training = (from_gray(to_gray(x)).flatten(1) for x in (images, training))
    squares = training.square().sum(1)
    # |x - t|² is smallest where |t|² - 2 x·t is.
    parts = (torch.addmm(squares, part, training.T, alpha=-2) for part in images.split(ROWS))
    indices = torch.cat([part.argmin(1) for part in parts])
    # From the differences, so that the distance to an exact copy is 0.
    return (images - training[indices]).norm(dim=1), indices


def score(images: Tensor) -> dict[str, float]:
    """Scores generated images, always against MNIST's test images.

    Of those it needs `pretrained/reference.pt` alone.

    Args:
        images: `[N, 1, 28, 28]`, as for `classify`, N at least 6.

    Returns:
        The measures by name: `frechet_distance`; `precision`, `recall` and `coverage` of
        `neighbor_scores`; `smallest_share`, that of the rarest of the predicted digits;
        `confident`, the share of the images whose most likely digit has a probability above 0.9;
        and `share_0` to `share_9` of the predicted digits.

    Raises:
        ValueError: there are fewer than 6 images.
        FloatingPointError, NotImplementedError: as `classify`.
        OSError: a file in `pretrained/` cannot be read.
    """
    reference = torch.load(REFERENCE, weights_only=True)
    features, probabilities = classify(images)
    real = reference["features"].double()
    shares = probabilities.argmax(1).bincount(minlength=10).double() / len(images)
    # With their lengths left as they are, 58 % of some noise images lie in the balls of real ones.
    unit, unit_real = F.normalize(features), F.normalize(real)
    return {
        "frechet_distance": frechet_distance(features, real),
        **neighbor_scores(unit, unit_real, reference["radii"]),
        "smallest_share": shares.min().item(),
        "confident": (probabilities.amax(1) > CONFIDENT).double().mean().item(),
        **{f"share_{digit}": share for digit, share in enumerate(shares.tolist())},
    }
