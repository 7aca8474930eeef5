"""Everything that goes to TensorBoard: means of scalars, image grids, hyperparameters."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid, save_image

QUALITY = ["frechet_distance", "kid", "coverage", "recall", "smallest_share"]  # scores with curves
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
                    "try a lower --lr"
                )
            self.summary_writer.add_scalar(self.prefix + key, mean, self.step)


def save_images(
    images: Tensor, columns: int, tag: str, epoch: int, summary_writer: SummaryWriter
) -> Path:
    """Writes a grid of images to TensorBoard and to `<tag>_epoch_NNNN.png` in the run directory.

    Args:
        images: `[N, C, H, W]`, C is 1 or 3; -1 becomes black and 1 white, exactly.
        columns: images per row of the grid, which is filled row by row.

    Returns:
        The path of the PNG file.
    """
    gray = images.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu()
    grid = make_grid(gray, nrow=columns)
    summary_writer.add_image(tag, grid, epoch)
    path = Path(summary_writer.log_dir) / f"{tag}_epoch_{epoch:04d}.png"
    save_image(grid / 255, path)
    return path


def log_scores(summary_writer: SummaryWriter, scores: Mapping[str, float], step: int) -> None:
    """Writes scores of `metrics.score` as curves, and a histogram of the generated digits.

    The step is the optimizer's, not the epoch: a resumed run purges by it what was logged after
    its checkpoint.
    """
    for name in QUALITY:
        summary_writer.add_scalar(f"quality/{name}", scores[name], step)
    digits = [digit for digit in range(10) for _ in range(round(1000 * scores[f"share_{digit}"]))]
    bins = [digit - 0.5 for digit in range(11)]
    summary_writer.add_histogram("digits_of_1000", torch.tensor(digits), step, bins=bins)


def save_scores(scores: Mapping[str, float], step: int, summary_writer: SummaryWriter) -> None:
    """Prints the scores of a run's end, and saves them in `scores.json` and for HPARAMS."""
    path = Path(summary_writer.log_dir) / "scores.json"
    path.write_text(json.dumps(scores, indent=2) + "\n")
    for name, value in scores.items():
        summary_writer.add_scalar(f"final/{name}", value, step)
        print(f"{name:<24}{value:>10.4f}")


def log_hyperparameters(summary_writer: SummaryWriter, arguments: Mapping[str, Any]) -> None:
    """Writes the arguments to TensorBoard, as a text table and to HPARAMS."""
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in arguments.items())
    summary_writer.add_text("hyperparameters", f"| argument | value |\n| --- | --- |\n{rows}")
    values = {
        name: value if isinstance(value, int | float | bool) else str(value)
        for name, value in arguments.items()
    }
    # Not SummaryWriter.add_hparams: it opens a second event file, and TensorBoard, which reads
    # the files of a directory one after the other, would miss what is appended to the first. And
    # without the experiment's summary, HPARAMS shows first what differs between the runs.
    _experiment, *session = hparams(values, {})
    for summary in session:
        summary_writer.file_writer.add_summary(summary)
