"""Images, and everything that goes to TensorBoard: means of scalars, grids, hyperparameters."""

import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

# TensorBoard's own switch for doing without TensorFlow. Where TensorFlow is installed, importing it
# takes seconds, and torch.optim.Adam may then end in a segmentation fault.
sys.modules["tensorboard.compat.notf"] = sys.modules[__name__]
from torch.utils.tensorboard import SummaryWriter  # noqa: E402
from torch.utils.tensorboard.summary import hparams  # noqa: E402

CHARTS = {  # TensorBoard's page Custom Scalars: groups of charts, the curves of each
    "Is the discriminator winning?": {
        "D(x) of real and D(G(z)) of generated images": [
            "discriminator/probability_real",
            "discriminator/probability_fake",
        ],
        "Losses": ["generator/loss", "discriminator/loss"],
        "Accuracy": ["discriminator/accuracy_real", "discriminator/accuracy_fake"],
    },
    "Are the digits getting better?": {
        "Fréchet distance": ["quality/frechet_distance"],
        "Precision and recall": ["quality/precision", "quality/recall"],
        "Share of the rarest digit": ["quality/smallest_share"],
        "Share of confidently classified digits": ["quality/confident"],
        "Purity of the categories": ["quality/purity"],
    },
    "How fast is it?": {
        "Seconds per epoch": ["seconds_per_epoch"],
    },
}
ABOUT = """
- **D(x) and D(G(z))**: probability of being real that *D* gives to real and to generated images.
  Healthy: apart at first, then both close to 0.5. At 1 and 0 *D* has won, and *G* hardly improves.
- **Losses**: 0.693 is guessing. They tell who is ahead, not how good the digits are.
- **Fréchet distance**: how far samples are from MNIST's test images; lower is better.
- **Precision and recall**: shares of the samples that look real, and of the test images that have
  samples near them.
- **Share of the rarest digit**: 0.1 would be equal shares; at 0, a digit has gone missing.
- **Confident**: the classifier gives one digit more than 90 %. Of the test images, 0.988 are.
- **Purity**: the share of the most frequent digit of a category, on average. The grid *categories*
  has a row for each. At 1, each category is one digit, although *G* has never seen a label.
- **Images** are always of the same latents. **HPARAMS** compares hyperparameters and final scores.
"""
FILM = "progress.gif"  # in a run directory: its sample grids as a film
DIVERGED = 1e4  # training does not come back from a loss beyond this


class TensorBoardLogger:
    """Writes the mean of every `avg_window` steps' values, at the last of these steps.

    Values stay on their device until their mean is written, so that adding them does not
    synchronize with an accelerator.

    Args:
        summary_writer: writer of the run's event file.
        avg_window: number of steps in a mean.
        name: values are written as `name/key`, without a name as `key`.
        step: number of steps that were done before.
    """

    def __init__(
        self,
        summary_writer: SummaryWriter,
        avg_window: int = 50,
        name: str | None = None,
        step: int = 0,
    ):
        self.summary_writer, self.avg_window, self.step = summary_writer, avg_window, step
        self.prefix = f"{name}/" if name else ""
        self.window: dict[str, list[Tensor]] = {}  # values that are in no written mean yet
        self.means: dict[str, float] = {}  # the last written ones

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Adds one step's scalars, tensors or numbers, by their keys; raises as `flush` does."""
        self.step += 1
        for key, value in log_dict.items():
            self.window.setdefault(key, []).append(torch.as_tensor(value).detach())
        if self.step % self.avg_window == 0:
            self.flush()

    def flush(self) -> None:
        """Writes the means of the values added since the last written ones, if there are any.

        Raises:
            FloatingPointError: training has diverged: a mean is not finite, or "loss" beyond 1e4.
        """
        window, self.window = self.window, {}
        for key, values in window.items():
            mean = self.means[key] = torch.stack(values).float().mean().item()
            if not math.isfinite(mean) or (key == "loss" and abs(mean) > DIVERGED):
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
    grid = F.pad(grid, (0, 0, 0, border, 0, border)).squeeze(2)  # gray images have no channels
    return Image.fromarray(grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def save_gif(path: Path, frames: Iterable[Image.Image], seconds: Sequence[float]) -> None:
    """Writes a looping GIF, each of whose frames is shown for its seconds.

    It has 16 levels of each channel, which take half the space of 256 and look the same.
    """
    frames = (frame.point(lambda level: round(level / 17) * 17) for frame in frames)
    options = {"duration": [round(1000 * duration) for duration in seconds], "loop": 0}
    next(frames).save(path, "GIF", save_all=True, append_images=frames, **options)


def save_images(
    images: Tensor, columns: int, tag: str, epoch: int, summary_writer: SummaryWriter, step: int
) -> None:
    """Writes an `image_grid` to TensorBoard and to `<tag>_epoch_NNNN.png` in the run directory."""
    grid = image_grid(images, columns)
    summary_writer.add_image(tag, np.asarray(grid.convert("RGB")), step, dataformats="HWC")
    grid.save(Path(summary_writer.log_dir, f"{tag}_epoch_{epoch:04d}.png"), optimize=True)


def sample_grids(run_dir: Path) -> list[tuple[int, Path]]:
    """The epochs of a run's sample grids, in order, and their files."""
    paths = {path.stem[len("samples_epoch_") :]: path for path in run_dir.glob("samples_*.png")}
    return sorted((int(epoch), path) for epoch, path in paths.items() if epoch.isdecimal())


def load_grid(path: Path) -> Image.Image:
    """Reads a sample grid, or raises an OSError that names a corrupted file."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError) as error:
        raise OSError(f"{path} is corrupted ({error}): remove it") from None


def save_film(run_dir: Path) -> None:
    """Writes a GIF of all sample grids of a run, if there are any: digits growing from noise."""
    grids = sample_grids(run_dir)
    if not grids:  # they were removed
        return
    seconds = [1 if epoch <= 5 else 0.5 for epoch, _ in grids]
    save_gif(run_dir / FILM, (film_frame(*grid) for grid in grids), [*seconds[:-1], 3])


def film_frame(epoch: int, path: Path) -> Image.Image:
    """A sample grid in twice its size, with its epoch below."""
    grid = load_grid(path)
    frame = Image.new(grid.mode, (grid.width, grid.height + 12))
    frame.paste(grid)
    ImageDraw.Draw(frame).text((3, grid.height), f"epoch {epoch}", fill="white")
    return ImageOps.scale(frame, 2, Image.NEAREST)


def log_scores(
    summary_writer: SummaryWriter,
    scores: Mapping[str, float],
    step: int,
    group: str = "quality",
) -> None:
    """Writes scores of `metrics.score`: curves `group/name`, and a histogram of the digits."""
    for name, value in scores.items():
        if not name.startswith("share_"):  # of which there is a histogram
            summary_writer.add_scalar(f"{group}/{name}", value, step)
    digits = [digit for digit in range(10) for _ in range(round(1000 * scores[f"share_{digit}"]))]
    bins = [digit - 0.5 for digit in range(11)]
    summary_writer.add_histogram("digits_of_1000", torch.tensor(digits), step, bins=bins)


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
    """The commit of this package, "-dirty" with changes; "unknown" if it is in no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    except OSError:  # there is no git
        return "unknown"
    return done.stdout.strip() or "unknown"
