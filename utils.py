"""Images, and everything that goes to TensorBoard: means of scalars, grids, hyperparameters."""

import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from checkpoint import replace_file

# The scores that have curves, are printed at a run's end, and make the README's table.
QUALITY = ["frechet_distance", "kid", "precision", "recall", "density", "coverage"]
QUALITY += ["smallest_share", "confident"]
CHARTS = {  # TensorBoard's page Custom Scalars: groups of charts, the curves of each
    "Is the discriminator winning?": {
        "D(x) of real and D(G(z)) of generated images": [
            "discriminator/probability_real",
            "discriminator/probability_fake",
        ],
        "Losses": ["generator/loss", "discriminator/loss"],
        "Accuracy": ["discriminator/accuracy_real", "discriminator/accuracy_fake"],
    },
    "Is the discriminator memorizing?": {
        "D(x) of training and of test images, and of samples": [
            "probability/training",
            "probability/test",
            "probability/samples",
        ],
    },
    "Are the digits getting better?": {
        "Fréchet distance": ["quality/frechet_distance"],
        "Coverage and recall": ["quality/coverage", "quality/recall"],
        "Share of the rarest digit": ["quality/smallest_share"],
        "Share of confidently classified digits": ["quality/confident"],
    },
    "How fast is it?": {
        "Seconds per epoch": ["seconds_per_epoch"],
    },
}
ABOUT = """
- **D(x) and D(G(z))**, under *Custom Scalars*: probabilities that the discriminator gives real and
  generated images for being real. Healthy: apart at first, then both close to 0.5. At 1 and 0 the
  discriminator has won, and the generator hardly improves.
- **Losses**: 0.693 is guessing. They tell who is ahead, not how good the digits are.
- **Accuracy**: shares of real and of generated images that are classified correctly.
- **D(x) of training and of test images**: after an epoch, means over 2,000. The discriminator has
  never seen the test images: where it prefers training images to them, it memorizes.
- **Fréchet distance**: how far the generated images are from the test images; lower is better, and
  comparable only for the same number of images.
- **Coverage and recall**: shares of the test images that have generated ones near.
- **Share of the rarest digit**: 0.1 would be equal shares; towards 0, a digit has gone missing.
  *Histograms* shows all ten.
- **Share of confidently classified digits**: the classifier gives one digit more than 90 %. Of the
  test images 0.988 are; of the samples, the rest are what one sees as malformed.
- **Seconds per epoch**: without sample grids, scores and checkpoints.
- **Samples, interpolation**, under *Images*: always of the same latents; move the slider.
- **HPARAMS** compares the hyperparameters and final scores of all runs.
"""
FILM = "progress.gif"  # in a run directory: its sample grids as a film
DIVERGED = 1e4  # a mean beyond this is no longer a loss that training comes back from


class TensorBoardLogger:
    """Writes the mean of every `avg_window` steps' values, at the last of these steps.

    Values stay on their device until their mean is written, so that adding them does not
    synchronize with an accelerator.

    Args:
        summary_writer: writer of the run's event file.
        avg_window: number of steps in a mean.
        name: values are written as `name/key`, without a name as `key`.
        step: number of steps that were done before.

    Raises:
        ValueError: `avg_window` is not positive.
    """

    def __init__(
        self,
        summary_writer: SummaryWriter,
        avg_window: int = 50,
        name: str | None = None,
        step: int = 0,
    ):
        if avg_window < 1:
            raise ValueError(f"avg_window must be positive, got {avg_window}")
        self.summary_writer, self.avg_window, self.step = summary_writer, avg_window, step
        self.prefix = f"{name}/" if name else ""
        self.window: dict[str, list[Tensor]] = {}  # values that are in no written mean yet
        self.means: dict[str, float] = {}  # the last written ones

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Adds one step's scalars, tensors or numbers, by their keys.

        Raises:
            FloatingPointError: see `flush`.
        """
        self.step += 1
        for key, value in log_dict.items():
            self.window.setdefault(key, []).append(torch.as_tensor(value).detach())
        if self.step % self.avg_window == 0:
            self.flush()

    def flush(self) -> None:
        """Writes the means of the values added since the last written ones, if there are any.

        Raises:
            FloatingPointError: training has diverged: a mean is not finite, or is beyond 1e4.
        """
        window, self.window = self.window, {}
        for key, values in window.items():
            mean = self.means[key] = torch.stack(values).float().mean().item()
            if not math.isfinite(mean) or abs(mean) > DIVERGED:
                raise FloatingPointError(
                    f"training diverged: {self.prefix}{key} became {mean:g} by step {self.step}; "
                    "try lower learning rates (--lr, --lr_disc)"
                )
            self.summary_writer.add_scalar(self.prefix + key, mean, self.step)


def to_gray(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, -1 black (0) and 1 white (255); uint8 stays as it is."""
    if images.dtype == torch.uint8:
        return images
    return images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def from_gray(gray: Tensor) -> Tensor:
    """Gray levels, uint8, as float32 in [-1, 1]: the inverse of `to_gray`."""
    return gray.float().div_(127.5).sub_(1)


def image_grid(images: Tensor, columns: int, scale: int = 1) -> Image.Image:
    """A grid of images, filled row by row; each pixel becomes `scale` x `scale` ones.

    Torchvision's `make_grid` does the same, but importing it takes 1.4 s.

    Args:
        images: `[N, C, H, W]` in [-1, 1], C is 1 or 3.
    """
    gray, columns = to_gray(images).cpu(), min(columns, len(images))
    border = 2  # black pixels around each image
    gray = torch.cat([gray, gray.new_zeros(-len(gray) % columns, *gray.shape[1:])])
    rows = F.pad(gray, (border, 0, border, 0)).unflatten(0, (-1, columns))
    grid = rows.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # [height, width, C]
    grid = F.pad(grid, (0, 0, 0, border, 0, border)).expand(-1, -1, 3)
    return Image.fromarray(grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def png(image: Image.Image) -> bytes:
    """The contents of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def gif(frames: Sequence[Image.Image], seconds: Sequence[float]) -> bytes:
    """The contents of a looping GIF file, each of whose frames is shown for its seconds.

    It has 16 gray levels, which take half the space of 256 and look the same.
    """
    frames = [frame.convert("L").point(lambda gray: round(gray / 17) * 17) for frame in frames]
    buffer, milliseconds = io.BytesIO(), [round(1000 * duration) for duration in seconds]
    first, *others = frames
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return buffer.getvalue()


def save_images(
    images: Tensor, columns: int, tag: str, epoch: int, summary_writer: SummaryWriter
) -> Path:
    """Writes an `image_grid` to TensorBoard and to `<tag>_epoch_NNNN.png` in the run directory.

    Returns:
        The path of the PNG file.
    """
    grid = image_grid(images, columns)
    summary_writer.add_image(tag, np.asarray(grid), epoch, dataformats="HWC")
    path = Path(summary_writer.log_dir) / f"{tag}_epoch_{epoch:04d}.png"
    replace_file(path, png(grid))
    return path


def load_grids(run_dir: Path) -> list[tuple[int, Image.Image]]:
    """The sample grids of a run, each with its epoch, in this order.

    Raises:
        OSError: one is corrupted.
    """
    grids = []
    for path in run_dir.glob("samples_epoch_*.png"):
        epoch = path.stem.removeprefix("samples_epoch_")
        if not epoch.isdecimal():  # a copy
            continue
        try:
            image = Image.open(path)
            image.load()
        except (OSError, SyntaxError) as error:
            raise OSError(f"{path} is corrupted ({error}): remove it and resume the run") from None
        grids.append((int(epoch), image))
    return sorted(grids, key=lambda grid: grid[0])


def save_film(run_dir: Path) -> None:
    """Writes a GIF of all sample grids of a run: the same digits, growing from noise."""
    grids = [image for _, image in load_grids(run_dir)]
    frames = [grid.resize((2 * grid.width, 2 * grid.height), Image.NEAREST) for grid in grids]
    replace_file(run_dir / FILM, gif(frames, [0.4] * (len(frames) - 1) + [2]))


def log_scalars(
    summary_writer: SummaryWriter, group: str, values: Mapping[str, float], step: int
) -> None:
    """Writes each value as the curve `group/name`."""
    for name, value in values.items():
        summary_writer.add_scalar(f"{group}/{name}", value, step)


def log_scores(summary_writer: SummaryWriter, scores: Mapping[str, float], step: int) -> None:
    """Writes scores of `metrics.score` as curves, and a histogram of the generated digits.

    The step is the optimizer's, not the epoch: a resumed run purges by it what was logged after
    its checkpoint.
    """
    log_scalars(summary_writer, "quality", {name: scores[name] for name in QUALITY}, step)
    digits = [digit for digit in range(10) for _ in range(round(1000 * scores[f"share_{digit}"]))]
    bins = [digit - 0.5 for digit in range(11)]
    summary_writer.add_histogram("digits_of_1000", torch.tensor(digits), step, bins=bins)


def save_scores(summary_writer: SummaryWriter, scores: Mapping[str, float], step: int) -> None:
    """Saves the scores of a run's end in `scores.json` and for HPARAMS, and prints some."""
    path = Path(summary_writer.log_dir) / "scores.json"
    replace_file(path, json.dumps(scores, indent=2).encode())
    log_scalars(summary_writer, "final", scores, step)
    for name in QUALITY:
        print(f"{name:<20}{scores[name]:.4g}")


def log_run(summary_writer: SummaryWriter, arguments: Mapping[str, Any]) -> None:
    """Writes what does not change in a run.

    These are the layout of Custom Scalars, a text that explains the charts, a table of the
    hyperparameters, commit, version and machine, and the hyperparameters again for HPARAMS.
    """
    layout = {
        group: {title: ["Multiline", tags] for title, tags in charts.items()}
        for group, charts in CHARTS.items()
    }
    summary_writer.add_custom_scalars(layout)
    summary_writer.add_text("what the charts say", ABOUT)
    about = {"git commit": git_commit(), "torch": torch.__version__, "machine": platform.platform()}
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in {**arguments, **about}.items())
    summary_writer.add_text("this run", f"| | |\n| --- | --- |\n{rows}")
    values = {k: v if isinstance(v, int | float) else str(v) for k, v in arguments.items()}
    # Not SummaryWriter.add_hparams: it opens a second event file, and TensorBoard, which reads
    # the files of a directory one after the other, would miss what is appended to the first. And
    # without the experiment's summary, HPARAMS shows first what differs between the runs.
    _experiment, *session = hparams(values, {})
    for summary in session:
        summary_writer.file_writer.add_summary(summary)


def git_commit() -> str:
    """The commit of this package's repository, "-dirty" with changes; "unknown" without git."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = {"cwd": Path(__file__).resolve().parent, "env": env, "text": True, "check": True}
    try:
        # The files of this package may lie inside another repository.
        tracked = ["git", "ls-files", "--error-unmatch", "utils.py"]
        subprocess.run(tracked, capture_output=True, **options)
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
