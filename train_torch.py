"""Trains a GAN (Goodfellow et al., 2014) that learns to draw MNIST digits.

    python train_torch.py --progress_bar              on a laptop
    sbatch train.job --epochs 100                     on a Slurm cluster, any flag after the script
    tensorboard --logdir GAN_logs/                    to watch the digits appear

A run writes curves and pictures for TensorBoard, the pictures as PNG files, its arguments and a
checkpoint into GAN_logs/<date_time>/. Read from top to bottom: the model with its two training
steps, the pictures, one epoch, the run, the command line.
"""

import argparse
import contextlib
import glob
import random
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import command_line as check
from checkpoint import (
    CHECKPOINT,
    ResumableBatches,
    StopSignals,
    load_checkpoint,
    make_run_dir,
    random_state,
    restore,
    save_checkpoint,
    set_random_state,
    write_arguments,
)
from mnist import DATA_DIR, mnist
from models import DiscriminatorMLP, GeneratorMLP
from utils import TensorBoardLogger, log_hyperparameters, save_images

HYPERPARAMETERS = ["z_dim", "hidden_dims_gen", "hidden_dims_disc", "dp_rate_gen", "dp_rate_disc"]
HYPERPARAMETERS += ["lr", "batch_size", "epochs", "seed", "precision"]
STEPS_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining}{postfix}]"


class GAN(nn.Module):
    """A generator that draws images and a discriminator that tells them from real ones.

    Args:
        hidden_dims_gen, hidden_dims_disc: widths of the hidden layers of the two.
        dp_rate_gen, dp_rate_disc: dropout rates of the two, in [0, 1).
        z_dim: length of a latent vector.
    """

    def __init__(
        self,
        hidden_dims_gen: Sequence[int],
        hidden_dims_disc: Sequence[int],
        dp_rate_gen: float,
        dp_rate_disc: float,
        z_dim: int,
    ):
        super().__init__()
        self.z_dim = z_dim
        self.generator = GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        self.discriminator = DiscriminatorMLP(hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc)

    @property
    def device(self) -> torch.device:
        """The device that the parameters are on."""
        return next(self.parameters()).device

    def sample(self, batch_size: int) -> Tensor:
        """Draws `batch_size` images, `[B, C, H, W]` in [-1, 1], without dropout."""
        with inference(self.generator):
            return self.generator(self.latents(batch_size))

    def interpolate(self, batch_size: int, interpolation_steps: int) -> Tensor:
        """Draws the way from one image to another, `[B, interpolation_steps + 2, C, H, W]`.

        Each row goes in even steps on the straight line between two latent vectors; the images of
        these two are its first and its last.
        """
        start, end = self.latents(batch_size)[:, None], self.latents(batch_size)[:, None]
        share = torch.linspace(0, 1, interpolation_steps + 2, device=self.device)[:, None]
        with inference(self.generator):
            images = self.generator(torch.lerp(start, end, share).flatten(0, 1))
        return images.unflatten(0, (batch_size, interpolation_steps + 2))

    def latents(self, batch_size: int) -> Tensor:
        """Draws latent vectors `[B, z_dim]` from the standard normal distribution."""
        return torch.randn(batch_size, self.z_dim, device=self.device)

    def generator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss: its images should pass for real.

        This is the non-saturating loss, -log D(G(z)), whose gradient does not vanish while the
        discriminator is sure that the images are fake (Goodfellow et al., 2014, section 3).

        Args:
            x_real: real images `[B, C, H, W]`; only their number matters here.

        Returns:
            The loss, with gradients for the generator alone, and the scalars to log.
        """
        x_fake = self.generator(self.latents(len(x_real)))
        # Gradients have to come through the discriminator, but none are needed for its weights.
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(x_fake)
        self.discriminator.requires_grad_(True)
        loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        return loss, {"loss": loss.detach()}

    def discriminator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss: real images should be called real, and drawn ones fake.

        Args:
            x_real: real images `[B, C, H, W]`. As many fake ones are drawn.

        Returns:
            The loss, -(log D(x) + log(1 - D(G(z)))) / 2, with gradients for the discriminator
            alone, and the scalars to log.
        """
        with torch.no_grad():  # the generator does not learn here
            x_fake = self.generator(self.latents(len(x_real)))
        # One pass for both, in the type that was drawn in (bf16 or fp32): an MLP judges each image
        # by itself, so two passes would give the same.
        logits = self.discriminator(torch.cat([x_real.to(x_fake.dtype), x_fake]))
        real, fake = logits.detach().float().chunk(2)
        targets = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return loss, {
            "loss": loss.detach(),
            "accuracy_real": (real > 0).float().mean(),
            "accuracy_fake": (fake < 0).float().mean(),
            "probability_real": real.sigmoid().mean(),
            "probability_fake": fake.sigmoid().mean(),
        }


@contextlib.contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards each layer's mode is what it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """The same random numbers inside every time; training's go on afterwards undisturbed."""
    before = random_state()
    torch.manual_seed(0)
    try:
        yield
    finally:
        set_random_state(before)


def generate_and_save(
    model: GAN, epoch: int, summary_writer: SummaryWriter, batch_size: int = 64
) -> Path:
    """Draws from the same latent vectors at every epoch, so that one sees each digit grow."""
    with same_random_numbers():
        images = model.sample(batch_size)
    return save_images(images, 8, "samples", epoch, summary_writer)


def interpolate_and_save(
    model: GAN,
    epoch: int,
    summary_writer: SummaryWriter,
    batch_size: int = 64,
    interpolation_steps: int = 5,
) -> Path:
    """Draws ways from one image to another, one a row, between the same points at every epoch."""
    with same_random_numbers():
        images = model.interpolate(batch_size, interpolation_steps)
    columns = interpolation_steps + 2
    return save_images(images.flatten(0, 1), columns, "interpolation", epoch, summary_writer)


def save_pictures(model: GAN, epoch: int, summary_writer: SummaryWriter) -> None:
    """Draws the samples and the interpolations of this epoch."""
    generate_and_save(model, epoch, summary_writer)
    interpolate_and_save(model, epoch, summary_writer, batch_size=16)


def train_gan(
    model: GAN,
    train_loader: DataLoader,
    logger_gen: TensorBoardLogger,
    logger_disc: TensorBoardLogger,
    optimizer_gen: torch.optim.Optimizer,
    optimizer_disc: torch.optim.Optimizer,
    progress_bar: bool = False,
    bf16: bool = False,
) -> None:
    """Trains for one epoch: for each batch a step of the discriminator, then of the generator.

    Nothing in the loop waits for an accelerator, but for the losses that the loggers write and
    that the progress bar shows once every `avg_window` steps. With `bf16`, matrices are multiplied
    and images drawn in bfloat16; weights, moments and losses stay in float32.
    """
    model.train()
    device = model.device
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
    steps = tqdm(train_loader, "steps", leave=False, disable=not progress_bar, bar_format=STEPS_BAR)
    for x_real, _ in steps:
        x_real = x_real.to(device, non_blocking=True)

        # The discriminator learns to tell this batch from images that the generator draws ...
        with precision:
            loss, values = model.discriminator_step(x_real)
        optimizer_disc.zero_grad()
        loss.backward()
        optimizer_disc.step()
        logger_disc.add_values(values)

        # ... and the generator to draw images that the discriminator, as it is now, calls real.
        with precision:
            loss, values = model.generator_step(x_real)
        optimizer_gen.zero_grad()
        loss.backward()
        optimizer_gen.step()
        logger_gen.add_values(values)

        if progress_bar and logger_gen.step % logger_gen.avg_window == 0:
            show_progress(steps, logger_gen, logger_disc, len(x_real))


def show_progress(
    steps: tqdm, logger_gen: TensorBoardLogger, logger_disc: TensorBoardLogger, batch_size: int
) -> None:
    """Puts both losses and the images per second behind the bar; fits 80 columns."""
    images = batch_size * (steps.format_dict["rate"] or 0)
    steps.set_postfix_str(f"{losses(logger_gen, logger_disc)}, {images:,.0f} img/s")


def losses(logger_gen: TensorBoardLogger, logger_disc: TensorBoardLogger) -> str:
    """The losses of both, as means over the last steps, in few letters."""
    return f"G {logger_gen.means()['loss']:.3f} D {logger_disc.means()['loss']:.3f}"


def save_run(
    state: Mapping[str, Any], args: argparse.Namespace, summary_writer: SummaryWriter
) -> None:
    """Writes the checkpoint: the arguments, and the state of each part of the training by its name.

    Raises:
        OSError: it could not be written; the last one is still there.
        FloatingPointError: training has gone wrong; the last checkpoint is from before.
    """
    loggers = state["logger_gen"], state["logger_disc"]
    for logger in loggers:
        logger.means()  # raises the error
    contents = {name: part.state_dict() for name, part in state.items()}
    if state["batches"].epoch == args.epochs:
        for logger in loggers:
            logger.flush()
    summary_writer.flush()  # first, for the curves to reach as far as the checkpoint
    save_checkpoint(Path(summary_writer.log_dir) / CHECKPOINT, {"args": vars(args), **contents})


def seed_everything(seed: int) -> None:
    """Seeds every generator that random numbers are drawn from: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of all devices


def main(args: argparse.Namespace) -> int:
    """Trains a GAN as the arguments say, in a new folder or, resuming a run, on in its old one.

    Returns:
        The exit status: 0, or 128 + the number of the signal that it saved and stopped for.

    Raises:
        OSError: data, log folder or checkpoint could not be read or written.
        FloatingPointError: a loss became NaN or infinite; the last checkpoint is from before.
    """
    seed_everything(args.seed)
    device = torch.device(args.device)
    train_loader = mnist(args.data_dir, args.batch_size, args.num_workers)
    if args.num_workers == 0 and hasattr(train_loader.dataset, "to"):
        train_loader.dataset.to(device)  # 47 MB; batches are then cut where they are used
    model = GAN(
        args.hidden_dims_gen, args.hidden_dims_disc, args.dp_rate_gen, args.dp_rate_disc, args.z_dim
    ).to(device)
    optimizer_gen, optimizer_disc = (
        torch.optim.Adam(network.parameters(), lr=args.lr, betas=(0.5, 0.999), fused=True)
        for network in (model.generator, model.discriminator)
    )

    saved, purge_step = None, None
    if args.resume:
        saved = load_checkpoint(Path(args.resume))
        purge_step = saved["logger_gen"]["step"] + 1  # what a killed run wrote after it saved
    run_dir = Path(args.resume).parent.parent if saved else make_run_dir(args.log_dir, args.job_id)
    with StopSignals() as signals, SummaryWriter(run_dir, purge_step=purge_step) as writer:
        batches = ResumableBatches(train_loader, signals)
        logger_gen = TensorBoardLogger(writer, name="generator")
        logger_disc = TensorBoardLogger(writer, name="discriminator")
        state = {
            "model": model,
            "optimizer_gen": optimizer_gen,
            "optimizer_disc": optimizer_disc,
            "logger_gen": logger_gen,
            "logger_disc": logger_disc,
            "batches": batches,
        }
        if saved:
            restore(state, saved, args.resume)
        else:
            log_hyperparameters(writer, {name: getattr(args, name) for name in HYPERPARAMETERS})
            save_pictures(model, 0, writer)
            save_run(state, args, writer)
        write_arguments(run_dir / "args.json", vars(args), batches)
        print(f"Logs:        {run_dir}")
        print(f"TensorBoard: tensorboard --logdir {shlex.quote(str(run_dir.parent))}", flush=True)

        first_epoch, started, bars = batches.epoch, time.perf_counter(), args.progress_bar
        epochs = tqdm(total=args.epochs, desc="epochs", initial=first_epoch, disable=not bars)
        while batches.epoch < args.epochs and not signals.signal:
            train_gan(
                model,
                batches,
                logger_gen,
                logger_disc,
                optimizer_gen,
                optimizer_disc,
                progress_bar=bars,
                bf16=args.precision == "bf16",
            )
            if batches.step > 0:  # a signal has ended the epoch early
                break
            epoch = batches.epoch
            epochs.update()
            writer.add_scalar("seconds_per_epoch", batches.seconds, logger_gen.step)
            if epoch % args.save_every == 0 or epoch == args.epochs:
                save_pictures(model, epoch, writer)
                save_run(state, args, writer)
                if not bars:
                    per_epoch = (time.perf_counter() - started) / (epoch - first_epoch)
                    left = timedelta(seconds=round(per_epoch * (args.epochs - epoch)))
                    print(
                        f"epoch {epoch:>3}/{args.epochs}: {losses(logger_gen, logger_disc)}, "
                        f"{batches.seconds:.1f} s/epoch, {left} left",
                        flush=True,
                    )
        epochs.close()
        if batches.epoch < args.epochs:
            save_run(state, args, writer)
            name = signal.Signals(signals.signal).name
            print(f"Saved on {name}, {batches.step} steps after epoch {batches.epoch}. Go on:")
            print(f"python train_torch.py --resume {shlex.quote(str(run_dir))}")
            return 128 + signals.signal
    print(f"Pictures:    {run_dir}/*_epoch_{args.epochs:04d}.png")
    print(f"Checkpoint:  {run_dir / CHECKPOINT}")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; what cannot be is refused in one line, with exit code 2."""
    parser = check.Parser("Trains a GAN that learns to draw MNIST digits.")
    add = parser.add_argument
    add("--z_dim", type=check.width, default=32, help="length of a latent vector")
    gen, disc = [128, 256, 512], [512, 256]
    add("--hidden_dims_gen", type=check.width, nargs="*", default=gen, help="generator's widths")
    add("--hidden_dims_disc", type=check.width, nargs="*", default=disc, help="discriminator's")
    add("--dp_rate_gen", type=check.dropout_rate, default=0.1, help="generator's dropout rate")
    add("--dp_rate_disc", type=check.dropout_rate, default=0.3, help="discriminator's")

    add("--lr", type=check.learning_rate, default=2e-4, help="learning rate of both Adams")
    add("--batch_size", type=check.count, default=128, help="images per step")
    add("--epochs", type=check.count, default=250, help="times through the training set")
    add("--seed", type=check.seed, default=42, help="decides every random number")
    add("--device", type=check.device, default="auto", help="auto, cpu, cuda, mps, ...")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 is faster")

    add("--data_dir", default=str(DATA_DIR), help="folder with MNIST/raw/*.gz in it")
    add(
        "--num_workers",
        type=check.workers,
        default=0,
        help="processes that cut batches; 0 is fastest",
    )
    add("--log_dir", default="GAN_logs/", help="folder for the folders of the runs")
    add(
        "--save_every", type=check.count, default=10, help="epochs between pictures and checkpoints"
    )
    add("--progress_bar", action="store_true", help="show bars, not a line per --save_every epochs")
    add("--resume", metavar="PATH", help="go on with the run of this folder or checkpoint")
    add("--job_id", help="go on with the run of this job, if there is one in --log_dir")

    args = parser.parse_args(argv)
    if args.job_id and not args.resume:
        saved = sorted(Path(args.log_dir).glob(f"*_job{glob.escape(args.job_id)}/{CHECKPOINT}"))
        args.resume = str(saved[-1]) if saved else None
    if args.resume:
        args = parse_resumed(parser, argv, args.resume)
    if args.precision == "bf16" and not check.multiplies_bf16(args.device):
        parser.error(f"argument --precision: {args.device} here does not multiply in 'bf16'")
    return args


def parse_resumed(
    parser: check.Parser, argv: Sequence[str] | None, resume: str
) -> argparse.Namespace:
    """The arguments of the run to go on with; those given on the command line must agree."""
    path = Path(resume) / CHECKPOINT if Path(resume).is_dir() else Path(resume)
    try:
        contents = load_checkpoint(path)
    except ValueError as error:
        parser.error(f"argument --resume: {error}")
    saved, done = contents["args"], contents["batches"]["epoch"]
    parser.set_defaults(**saved)
    args = parser.parse_args(argv)
    for name in saved.keys() - {"epochs", "resume", "job_id", "data_dir", "progress_bar"}:
        if getattr(args, name) != saved[name]:
            parser.error(f"argument --{name}: the run has {saved[name]}, not {getattr(args, name)}")
    if args.epochs < done:
        parser.error(f"argument --epochs: {done} epochs are done already, more than {args.epochs}")
    if args.epochs == done:
        print(f"{path.parent.parent} is finished: epoch {done} of {done} is done")
        parser.exit()
    args.resume = str(path)
    return args


if __name__ == "__main__":
    try:
        sys.exit(main(parse_args()))
    except (OSError, FloatingPointError) as error:
        sys.exit(f"train_torch.py: {error}")
