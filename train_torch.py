"""Trains a GAN (Goodfellow et al., 2014) that learns to generate MNIST digits.

    python train_torch.py --progress_bar              on a laptop
    sbatch train.job --epochs 100                     on a Slurm cluster, any flag after the script
    tensorboard --logdir GAN_logs/ --samples_per_plugin images=1000    to watch the digits appear

A run writes curves and sample grids for TensorBoard, the grids as PNG files, its arguments, a
checkpoint, and in the end scores and a film into GAN_logs/<date_time>/. Read from top to bottom:
the model with its two training steps, the sample grids, one epoch, the run, the command line.
"""

import argparse
import copy
import functools
import hashlib
import inspect
import json
import os
import random
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

# OpenMP's threads wait for each other in a busy loop; a shorter one costs little on an idle
# machine, and on a busy one keeps a step from taking several times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import command_line
import utils
from checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, load_parts, make_run_dir
from metrics import Reference, score
from mnist import mnist
from models import DiscriminatorMLP, GeneratorMLP

PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "generator.pt"
# What a resumed run may change, since it hardly changes the result. All else are hyperparameters.
MAY_CHANGE = {"epochs", "data_dir", "num_workers", "log_dir", "save_every", "job_id", "resume"}
MAY_CHANGE |= {"device", "precision", "progress_bar"}
CHECKPOINT_SECONDS = 30  # what a kill may lose, besides the epoch it happens in
EARLY_EPOCHS = (1, 2, 3, 5)  # have sample grids whatever --save_every is: digits appear here
PENALTY_EVERY = 8  # steps


class GAN(nn.Module):
    """A generator of images and a discriminator that tells them from real ones.

    Args:
        hidden_dims_gen, hidden_dims_disc: widths of the hidden layers of the two networks.
        dp_rate_gen, dp_rate_disc: their dropout rates, in [0, 1).
        z_dim: length of a latent vector.
        ema: window of the average of the generator's weights, in steps; at the beginning it is
            a fifth of the steps so far. 0 disables averaging.
        r1: weight of the gradient penalty in training; 0 disables it.

    Attributes:
        averaged: the generator with averaged weights, which are calmer and better than those of
            any one step; samples are generated with it.
    """

    def __init__(
        self,
        hidden_dims_gen: Sequence[int],
        hidden_dims_disc: Sequence[int],
        dp_rate_gen: float,
        dp_rate_disc: float,
        z_dim: int,
        ema: int = 1000,
        r1: float = 0.3,
    ):
        super().__init__()
        self.z_dim, self.ema, self.r1 = z_dim, ema, r1
        self.generator = GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        self.discriminator = DiscriminatorMLP(hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "GAN":
        """A new model with the arguments that `parse_args` returns."""
        networks = args.hidden_dims_gen, args.hidden_dims_disc, args.dp_rate_gen, args.dp_rate_disc
        return cls(*networks, args.z_dim, ema=args.ema, r1=args.r1)

    @classmethod
    def from_checkpoint(cls, run: str | Path = PRETRAINED, raw: bool = False) -> "GAN":
        """The trained generator of a run directory or a checkpoint file, on the CPU.

        Only `averaged` has trained weights, with which samples are generated.

        Args:
            run: by default the pretrained generator.
            raw: generate with the generator's last weights instead of the averaged ones.

        Raises:
            OSError: there is no checkpoint, or it does not fit this version or models.py.
        """
        saved, part = load_checkpoint(run), "generator" if raw else "averaged"
        model = cls.from_args(argparse.Namespace(**saved["args"]))
        load_parts(saved, {part: model.averaged})
        return model

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Generates `batch_size` images, `[B, C, H, W]` in [-1, 1], without dropout.

        `generator` is the RNG of the latents; by default it is torch's global one.
        """
        return self.generate(self.latents(batch_size, generator))

    def interpolate(
        self, batch_size: int, interpolation_steps: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Generates images between pairs of samples, `[B, interpolation_steps + 2, C, H, W]`.

        The first and the last of each row are the images of two random latents; `slerp` gives
        those between them.
        """
        start, end = (self.latents(batch_size, generator)[:, None] for _ in range(2))
        weight = torch.linspace(0, 1, interpolation_steps + 2, device=self.device)[:, None]
        images = self.generate(slerp(start, end, weight).flatten(0, 1))
        return images.unflatten(0, (batch_size, interpolation_steps + 2))

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images `[B, C, H, W]` of the latents `[B, z_dim]`, in evaluation mode."""
        return self.averaged.eval()(z)

    def latents(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents `[B, z_dim]` from the standard normal distribution."""
        device = generator.device if generator else self.device
        z = torch.randn(batch_size, self.z_dim, generator=generator, device=device)
        return z.to(self.device)

    def discriminator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss: it should tell real images from generated ones.

        Real and fake images go through the discriminator in one batch. For an MLP that is the same
        as two batches; with batch normalization in it, use two.

        Args:
            x_real: real images `[B, C, H, W]`. As many fake ones are generated.

        Returns:
            The loss, -(log D(x) + log(1 - D(G(z)))) / 2, with gradients for the discriminator
            alone; and the scalars to log, whose "loss" is printed as well.
        """
        with torch.no_grad():  # the generator does not learn here
            x_fake = self.generator(self.latents(len(x_real)))
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

    def gradient_penalty(self, x_real: Tensor) -> Tensor:
        """R1, the mean squared norm of the gradient of D's logit (Mescheder et al., 2018).

        Where images are real, D should be flat: nothing then pushes G away from them.
        """
        x = x_real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
        return gradient.float().flatten(1).square().sum(1).mean()

    def generator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss: the discriminator should classify its images as real.

        This is the non-saturating loss: its gradient does not vanish while the discriminator is
        sure that the images are fake (Goodfellow et al., 2014, section 3). It flows through the
        discriminator, but only the generator's parameters are to be updated.

        Args:
            x_real: real images `[B, C, H, W]`; only their number matters here.

        Returns:
            The loss, -log D(G(z)); and the scalars to log, whose "loss" is printed as well.
        """
        x_fake = self.generator(self.latents(len(x_real)))
        logits = self.discriminator(x_fake)
        loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        return loss, {"loss": loss.detach()}

    @torch.no_grad()
    def update_average(self, steps_done: int) -> None:
        """Moves the averaged weights towards the generator's, after a step of its optimizer.

        Floating-point buffers, such as batch normalization's statistics, are averaged as well.
        """
        weight = 1 / (1 + min(steps_done / 5, self.ema))
        weights = self.generator.state_dict()
        for name, mean in self.averaged.state_dict().items():
            new = weights[name]
            mean.lerp_(new, weight) if mean.is_floating_point() else mean.copy_(new)


def slerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Spherical interpolation of latents `[..., z_dim]`, from `start` at 0 to `end` at 1.

    Latents of a normal distribution all have nearly the same length, which the points on a
    straight line between them do not have (White, 2016, arXiv:1609.04468). Where the two have the
    same or the opposite direction there is no arc between them, and the line is taken.
    """
    cosine = F.cosine_similarity(start, end, dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = cosine.acos()
    arc = (((1 - weight) * angle).sin() * start + (weight * angle).sin() * end) / angle.sin()
    return torch.where(cosine.abs() < 0.9999, arc, start + weight * (end - start))


def generate_and_save(
    model: GAN, epoch: int, summary_writer: SummaryWriter, batch_size: int = 64
) -> Path:
    """Saves a grid of samples, of the same latents at every epoch and on every device."""
    images = model.sample(batch_size, torch.Generator().manual_seed(0))
    return utils.save_images(images, 8, "samples", epoch, summary_writer)


def interpolate_and_save(
    model: GAN,
    epoch: int,
    summary_writer: SummaryWriter,
    batch_size: int = 64,
    interpolation_steps: int = 5,
) -> Path:
    """Saves a grid of interpolations, one per row, of the same latents at every epoch."""
    images = model.interpolate(batch_size, interpolation_steps, torch.Generator().manual_seed(0))
    columns = interpolation_steps + 2
    return utils.save_images(images.flatten(0, 1), columns, "interpolation", epoch, summary_writer)


def train_gan(
    model: GAN,
    train_loader: DataLoader,
    logger_gen: utils.TensorBoardLogger,
    logger_disc: utils.TensorBoardLogger,
    optimizer_gen: torch.optim.Optimizer,
    optimizer_disc: torch.optim.Optimizer,
    progress_bar: bool = False,
    bf16: bool = False,
) -> None:
    """Trains for one epoch: for each batch a step of the discriminator, then of the generator.

    Losses stay on the device; the loggers read their means back once every `avg_window` steps.
    With `bf16`, matmuls and images are in bfloat16; weights, moments and losses stay in float32.
    """
    model.train()
    device = model.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    # Each loss is differentiated with respect to its own network; the other needs no gradients.
    weights_gen = [p for p in model.generator.parameters() if p.requires_grad]
    weights_disc = [p for p in model.discriminator.parameters() if p.requires_grad]
    steps = tqdm(train_loader, "steps", leave=False, disable=not progress_bar)
    for x_real, _ in steps:
        x_real = x_real.to(device, non_blocking=True)

        # The discriminator learns to tell this batch from generated images. The penalty, at every
        # 8th step with 8 times its weight, has the same effect for less time (Karras et al., 2020).
        with precision:
            loss, values = model.discriminator_step(x_real)
            if model.r1 and logger_gen.step % PENALTY_EVERY == 0:
                loss = loss + PENALTY_EVERY * model.r1 / 2 * model.gradient_penalty(x_real)
        optimizer_disc.zero_grad()
        loss.backward(inputs=weights_disc)
        optimizer_disc.step()
        logger_disc.add_values(values)

        # The generator learns to generate images that it now classifies as real.
        with precision:
            loss, values = model.generator_step(x_real)
        optimizer_gen.zero_grad()
        loss.backward(inputs=weights_gen)
        optimizer_gen.step()
        model.update_average(logger_gen.step)
        logger_gen.add_values(values)

        if progress_bar and logger_gen.step % logger_gen.avg_window == 0:
            steps.set_postfix_str(loss_text(logger_gen, logger_disc))
    logger_disc.flush()
    logger_gen.flush()


def loss_text(logger_gen: utils.TensorBoardLogger, logger_disc: utils.TensorBoardLogger) -> str:
    """The last written means of both losses, and whether D always wins; fits 80 columns."""
    gen, disc = (logger.means["loss"] for logger in (logger_gen, logger_disc))
    return f"G {gen:.3f} D {disc:.3f}" + (" (D has won)" if disc < 0.01 else "")


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seeds Python, NumPy and torch on all devices, differently for every seed and every epoch.

    So an epoch always uses the same random numbers, whatever ran before it, and no RNG state has
    to be saved. Epoch 0 is the initialization.
    """
    seeds = np.random.SeedSequence([seed, epoch]).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.manual_seed(int(seeds[2]))


def load_reference(**data: Any) -> Reference:
    """The test images as the reference of scores.

    Raises:
        OSError: there are none; another mnist.py need not provide any.
    """
    if "train" not in inspect.signature(mnist).parameters:
        raise OSError("this mnist.py has no parameter `train`, and so no test images")
    test = mnist(**data, download=False, train=False).dataset
    if not isinstance(getattr(test, "images", None), Tensor):
        raise OSError("the dataset of this mnist.py has no tensor `images`")
    try:
        return Reference.of(test.images)
    except ValueError as error:
        raise OSError(f"test images: {error}") from None


def find_reference(**data: Any) -> Reference | None:
    """The reference of `load_reference`; without one, a printed line says why."""
    try:
        return load_reference(**data)
    except OSError as error:
        print(f"Scores:      none ({error})")
        return None


def hash_of(dataset: Dataset) -> str | None:
    """Tells whether a resumed run has the same data; None without `images`, as with transforms."""
    if not isinstance(images := getattr(dataset, "images", None), Tensor):
        return None
    return hashlib.blake2b(images.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def score_samples(model: GAN, reference: Reference, num_samples: int) -> dict[str, float]:
    """Scores of samples, of the same latents at every epoch; see metrics.py."""
    return score(model.sample(num_samples, torch.Generator().manual_seed(0)), reference)


@torch.no_grad()
def discriminator_probabilities(model: GAN, training: Tensor, test: Tensor) -> dict[str, float]:
    """Mean D(x) of training images, test images and as many samples, without dropout.

    Real images are `[N, 1, 28, 28]`, floating point in [-1, 1] or uint8. *D* has never seen the
    test images: a higher mean for training images says how far it has memorized these.
    """
    samples = model.sample(len(test), torch.Generator().manual_seed(0))
    of = {"training": training, "test": test, "samples": samples}
    images = {name: utils.from_gray(utils.to_gray(x.to(model.device))) for name, x in of.items()}
    discriminator = model.discriminator.eval()
    return {name: discriminator(x).sigmoid().mean().item() for name, x in images.items()}


def main(args: argparse.Namespace, gan: type[GAN] = GAN) -> None:
    """Trains a GAN with the arguments that `parse_args` returns, in the run directory it prints.

    Args:
        gan: a subclass of `GAN` trains networks, steps or an average of its own.

    Raises:
        OSError: data, log directory or checkpoint could not be read or written.
        FloatingPointError: training diverged; the last checkpoint predates it.
    """
    data = {"root": args.data_dir} if args.data_dir else {}  # else mnist.py's own directory
    options = {"num_workers": args.num_workers, "download": not args.resume}
    loader = mnist(**data, batch_size=args.batch_size, **options)
    reference = functools.cache(lambda: find_reference(**data))  # made for the first scores
    data_hash = hash_of(loader.dataset)
    if args.num_workers == 0 and hasattr(loader.dataset, "to"):
        loader.dataset.to(torch.device(args.device))  # 47 MB; batches are then made there

    seed_everything(args.seed)
    model = gan.from_args(args).to(args.device)
    adam = {"betas": args.betas, "fused": True}
    optimizer_gen = torch.optim.Adam(model.generator.parameters(), args.lr, **adam)
    optimizer_disc = torch.optim.Adam(model.discriminator.parameters(), args.lr_disc, **adam)
    run_dir = Path(args.resume or make_run_dir(args.log_dir, args.name, args.job_id))
    checkpoint = Checkpoint(run_dir, model, optimizer_gen, optimizer_disc, data_hash)
    epochs_done = checkpoint.load() if args.resume else 0
    step = epochs_done * len(loader)
    bars = args.progress_bar and sys.stderr is not None  # it may have been closed

    # A killed run has logged more than its checkpoint knows of: purge_step drops the surplus.
    with SummaryWriter(run_dir, purge_step=step + 1) as writer:
        checkpoint.save(epochs_done, args)  # --epochs may have been raised
        (run_dir / "args.json").write_text(json.dumps(vars(args), indent=2))
        logger_gen = utils.TensorBoardLogger(writer, name="generator", step=step)
        logger_disc = utils.TensorBoardLogger(writer, name="discriminator", step=step)
        if epochs_done == 0:
            utils.log_run(writer, {k: v for k, v in vars(args).items() if k not in MAY_CHANGE})
            generate_and_save(model, 0, writer)
            interpolate_and_save(model, 0, writer, batch_size=16)
        print_start(run_dir, args.bf16, epochs_done)

        bar = tqdm(desc="epochs", total=args.epochs, initial=epochs_done, disable=not bars)
        for epoch in range(epochs_done + 1, args.epochs + 1):
            started = time.perf_counter()
            seed_everything(args.seed, epoch)
            # A high rate learns fast, but then even averaged weights jitter about the best ones.
            decay = min(1, args.decay_from / epoch)
            optimizer_gen.param_groups[0]["lr"] = decay * args.lr
            optimizer_disc.param_groups[0]["lr"] = decay * args.lr_disc
            optimizers = optimizer_gen, optimizer_disc
            train_gan(model, loader, logger_gen, logger_disc, *optimizers, bars, args.bf16)
            seconds = time.perf_counter() - started
            step = logger_gen.step
            writer.add_scalar("seconds_per_epoch", seconds, step)

            grids_due = epoch in (*EARLY_EPOCHS, args.epochs) or epoch % args.save_every == 0
            if grids_due:
                generate_and_save(model, epoch, writer)
                interpolate_and_save(model, epoch, writer, batch_size=16)
                if reference():
                    utils.log_scores(writer, score_samples(model, reference(), 2000), step)
                    if data_hash:  # else the data set has no images to index
                        real = loader.dataset.images[:2000], reference().images[:2000]
                        means = discriminator_probabilities(model, *real)
                        utils.log_scalars(writer, "probability", means, step)
                if not bars:
                    print_epoch(epoch, args.epochs, seconds, loss_text(logger_gen, logger_disc))
            if grids_due or time.monotonic() - checkpoint.saved_at > CHECKPOINT_SECONDS:
                writer.flush()  # first, so that the curves reach as far as the checkpoint
                checkpoint.save(epoch, args)
            bar.update()
        bar.close()

        if reference():  # at a step that a run which is resumed here will purge
            scores = {"epochs": args.epochs, **score_samples(model, reference(), 10_000)}
            utils.save_scores(writer, scores, step + 1)
        utils.save_film(run_dir)  # last: a run that has it is finished
    print(f"Film:        {run_dir / utils.FILM}\nCheckpoint:  {checkpoint.path}")


def print_start(run_dir: Path, bf16: bool, epochs_done: int) -> None:
    """Prints where the run writes to, how to watch it and, after any kill, how to resume it."""
    if epochs_done:
        print(f"Resumed:     after epoch {epochs_done}")
    print(f"Precision:   {'bf16' if bf16 else 'fp32'}")
    print(f"Logs:        {run_dir}")
    log_dir = shlex.quote(run_dir.parent.as_posix())
    print(f"TensorBoard: tensorboard --logdir {log_dir} --samples_per_plugin images=1000")
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # python [-m] this script
    print(f"To resume:   {shlex.join([*program, '--resume', run_dir.as_posix()])}")


def print_epoch(epoch: int, epochs: int, seconds: float, means: str) -> None:
    """Prints one line about an epoch, and how long the rest will take."""
    left = timedelta(seconds=round(seconds * (epochs - epoch)))
    print(f"epoch {epoch:>3}/{epochs}: {means}, {seconds:.1f} s/epoch, {left} left", flush=True)


def make_parser() -> command_line.Parser:
    """The parser of all flags, with their defaults."""
    parser = command_line.Parser(
        description="Trains a GAN that learns to generate MNIST digits.",
        epilog="Example: python train_torch.py --progress_bar --epochs 20 --lr 1e-3 --name slower",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,  # for those that are off by default: see below
    )
    natural, positive, share = command_line.natural, command_line.positive, command_line.share
    widths = {"type": positive, "nargs": "*", "metavar": "WIDTH"}

    add = parser.add_argument_group("model").add_argument
    add("--z_dim", type=positive, default=32, help="length of a latent vector")
    add("--hidden_dims_gen", default=[128, 256, 512], help="generator's hidden layers", **widths)
    add("--hidden_dims_disc", default=[512, 256], help="discriminator's hidden layers", **widths)
    add("--dp_rate_gen", type=share, default=0.0, help="generator's dropout rate")
    add("--dp_rate_disc", type=share, default=0.0, help="discriminator's dropout rate")
    add("--ema", type=natural, default=1000, help="steps that averaged weights span; 0: off")

    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=positive, default=50, help="passes over the training set")
    add("--batch_size", type=positive, default=128, help="images per step")
    add("--lr", type=share, default=2e-3, help="generator's learning rate")
    add("--lr_disc", type=share, default=1e-3, help="discriminator's learning rate")
    decay = "epoch from which both rates fall as 1 / epoch"
    add("--decay_from", type=positive, default=20, help=decay)
    pair = {"nargs": 2, "metavar": ("BETA1", "BETA2")}
    add("--betas", type=share, default=[0.0, 0.99], help="Adam's decay rates", **pair)
    penalty = "weight of the gradient penalty; 0: off"
    add("--r1", type=command_line.weight, default=0.3, help=penalty)

    run = parser.add_argument_group("run")
    add = run.add_argument
    add("--seed", type=natural, default=42, help="seed of every random number")
    add("--device", type=command_line.device, default="auto", help="auto, cpu, cuda, mps, ...")
    precision = "of matmuls; auto: bf16 on processors that have instructions for it"
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help=precision)
    add("--data_dir", type=command_line.directory, help="has MNIST/raw/*.gz, if data/ does not")
    add("--num_workers", type=natural, default=0, help="data-loading processes")
    resume = run.add_mutually_exclusive_group().add_argument
    resume("--resume", metavar="RUN", help="resume the run of this run directory or checkpoint")
    job = "resume this job's run in --log_dir, or start it"
    resume("--job_id", type=command_line.name, help=job)

    add = parser.add_argument_group("logging").add_argument
    logs = "directory of all runs"
    between = "epochs between sample grids; the first are at 0, 1, 2, 3 and 5"
    add("--log_dir", type=command_line.path, default="GAN_logs/", help=logs)
    add("--name", type=command_line.name, help="becomes part of the run directory's name")
    add("--save_every", type=positive, default=10, help=between)
    add("--progress_bar", action="store_true", help="show bars, not a line per sample grid")
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; a run to resume adds the arguments that it was started with.

    `bf16` is what --precision means on this device. Errors are one line and exit with status 2.
    """
    off = {"data_dir": None, "resume": None, "job_id": None, "name": None, "progress_bar": False}
    parser = make_parser()
    args = parser.parse_args(argv, argparse.Namespace(**off, bf16=None))
    if args.job_id:
        runs = Path(args.log_dir).glob(f"*_job{args.job_id}/{CHECKPOINT}")
        try:  # a name may end like a job's number
            own = [run for run in runs if load_checkpoint(run)["args"]["job_id"] == args.job_id]
        except OSError as error:
            parser.error(f"argument --job_id: {error}")
        args.resume = max(map(str, own), default=None)
    if args.resume is not None:
        given = {word.split("=")[0][2:] for word in argv or sys.argv[1:] if word.startswith("--")}
        take_saved(args, given, parser)
    else:
        try:
            command_line.directory(args.log_dir, write=True)
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --log_dir: {error}")
    supported, before = command_line.supports_bf16(args.device), args.bf16
    if args.precision == "bf16" and not supported:
        parser.error(f"argument --precision: {args.device} has no instructions for 'bf16'")
    # Of accelerators an H200 was measured: a step is 1.2 times as long in bf16.
    wanted = args.precision == "bf16" or (args.precision == "auto" and args.device == "cpu")
    args.bf16 = supported and wanted
    if before not in (None, args.bf16):
        print("Precision:   another one than before, so numbers will differ from those of one run")
    return args


def take_saved(args: argparse.Namespace, given: set[str], parser: command_line.Parser) -> None:
    """Replaces arguments that were not given by those of the run to resume."""
    try:
        saved = load_checkpoint(args.resume)
    except OSError as error:
        parser.error(f"argument --resume: {error}")
    if saved["path"].parts[-2:] != CHECKPOINT.parts:
        parser.error(f"argument --resume: {args.resume} is not in a run directory")
    for name in vars(args).keys() - {"device", "progress_bar"}:
        now = getattr(args, name)
        value = saved["args"].get(name, now)
        if name not in given:
            setattr(args, name, value)
        elif name not in MAY_CHANGE and now != value:
            parser.error(f"argument --{name}: the run has {value}, not {now}")
    run_dir = saved["path"].parents[1]
    args.resume, film = str(run_dir), run_dir / utils.FILM
    has_film = film.exists() and film.stat().st_mtime >= saved["path"].stat().st_mtime
    if args.epochs < saved["epoch"] or (args.epochs == saved["epoch"] and has_film):
        message = f"{run_dir} has finished {saved['epoch']} epochs; for more, raise --epochs"
        if "job_id" in given:
            parser.error(f"argument --job_id: {message}; for a new run, another number")
        parser.exit(message=f"{message}\n")


if __name__ == "__main__":
    command_line.run(lambda: main(parse_args()), OSError, FloatingPointError)
