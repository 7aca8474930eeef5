"""All that goes to TensorBoard: means of scalars, pictures of images, hyperparameters."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class TensorBoardLogger:
    """Writes the mean of every `avg_window` steps' values, under the last of these steps.

    Values stay on their device until a mean of them is written: adding them does not make the
    training wait for an accelerator.

    Args:
        summary_writer: where the means are written.
        avg_window: number of steps that one written mean is over.
        name: values are written as `name/key`, without a name as `key`.
    """

    def __init__(
        self, summary_writer: SummaryWriter, avg_window: int = 50, name: str | None = None
    ):
        if avg_window < 1:
            raise ValueError(f"avg_window must be positive, got {avg_window}")
        self.summary_writer, self.avg_window = summary_writer, avg_window
        self.prefix = f"{name}/" if name else ""
        self.step = 0
        self.open: dict[str, list[Tensor]] = {}  # the values since the last written mean
        self.last: dict[str, float] = {}

    def add_values(self, log_dict: Mapping[str, Tensor | float]) -> None:
        """Adds one step's values: scalar tensors or numbers, by their keys."""
        self.step += 1
        for key, value in log_dict.items():
            self.open.setdefault(key, []).append(torch.as_tensor(value).detach())
        if self.step % self.avg_window == 0:
            self.flush()

    def means(self) -> dict[str, float]:
        """Means of the values that no mean was written of yet, or else the last written ones.

        Raises:
            FloatingPointError: a value is NaN or infinite; names it and the first such step.
        """
        for key, values in self.open.items():
            stacked = torch.stack(values).float()
            self.last[key] = mean = stacked.mean().item()
            if not math.isfinite(mean):
                first = int(stacked.isfinite().logical_not().int().argmax())
                step = self.step - len(values) + 1 + first
                raise FloatingPointError(
                    f"{self.prefix}{key} became {stacked[first].item()} at step {step}"
                )
        return self.last

    def flush(self) -> None:
        """Writes the means of what has been added since the last time, be it a whole window."""
        if self.open:
            for key, mean in self.means().items():
                self.summary_writer.add_scalar(self.prefix + key, mean, self.step)
            self.open = {}

    def state_dict(self) -> dict[str, Any]:
        """The step and the values that no mean was written of yet, for a checkpoint."""
        values = {key: torch.stack(values) for key, values in self.open.items()}
        return {"step": self.step, "open": values, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        self.step, self.last = state["step"], state["last"]
        self.open = {key: list(values) for key, values in state["open"].items()}


def save_images(
    images: Tensor, columns: int, tag: str, epoch: int, summary_writer: SummaryWriter
) -> Path:
    """Lays images out as a grid, for TensorBoard and as `tag_epoch_NNNN.png` in the run's folder.

    Args:
        images: `[N, C, H, W]`, C is 1 or 3; -1 becomes black and 1 white, exactly.
        columns: images in a row of the grid, which is filled row by row.

    Returns:
        The path of the PNG file.
    """
    grid = image_grid(images, columns).cpu().numpy()
    summary_writer.add_image(tag, grid, epoch, dataformats="HWC")
    path = Path(summary_writer.log_dir) / f"{tag}_epoch_{epoch:04d}.png"
    Image.fromarray(grid.squeeze(2) if grid.shape[2] == 1 else grid).save(path)
    return path


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images `[N, C, H, W]` in [-1, 1] as one uint8 picture `[height, width, C]`, black between.

    Of our own, for torchvision's `make_grid` would take two seconds of every start to import.
    """
    n, c, h, w = images.shape
    rows = -(-n // columns)
    grey = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    cells = grey.new_zeros(rows * columns, c, h + gap, w + gap)
    cells[:n, :, :h, :w] = grey
    grid = cells.view(rows, columns, c, h + gap, w + gap).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * (h + gap), columns * (w + gap), c)[: -gap or None, : -gap or None]


def log_hyperparameters(summary_writer: SummaryWriter, arguments: Mapping[str, Any]) -> None:
    """Writes the arguments as a text table and, with the losses, into the HPARAMS tab."""
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in arguments.items())
    summary_writer.add_text("hyperparameters", f"| argument | value |\n| --- | --- |\n{rows}")
    plain = {
        name: value if isinstance(value, int | float | bool) else str(value)
        for name, value in arguments.items()
    }
    # SummaryWriter.add_hparams would open a second event file in a folder, so a run, of its own.
    for summary in hparams(plain, {"generator/loss": None, "discriminator/loss": None}):
        summary_writer.file_writer.add_summary(summary)
