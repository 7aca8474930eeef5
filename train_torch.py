"""Trains a GAN (Goodfellow et al., 2014) that learns to generate MNIST digits.

    python train_torch.py --progress_bar              on a laptop
    sbatch train.job --epochs 100                     on a Slurm cluster, any flag after the script
    tensorboard --logdir GAN_logs/ --samples_per_plugin images=1000    to watch the digits appear

A run writes curves and sample grids for TensorBoard, the grids as PNG files, its arguments, a
checkpoint, and in the end scores and a film into GAN_logs/<date_time>/. Read from top to bottom:
the model with its two training steps, the sample grids, one epoch, the run, the command line.
"""

import argparse
import json
import os
import random
import shlex
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

# OpenMP's threads wait for each other in a busy loop; a shorter one costs little on an idle
# machine, and on a busy one keeps a step from taking several times as long (benchmarks/speed.py).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import command_line as check
import utils
from checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, make_run_dir, replace_file
from metrics import Reference, score
from mnist import mnist
from models import DiscriminatorMLP, GeneratorMLP

DATA_DIR = Path(__file__).resolve().parent / "data"
PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "generator.pt"
MODEL_ARGS = ["z_dim", "hidden_dims_gen", "hidden_dims_disc", "dp_rate_gen", "dp_rate_disc"]
MODEL_ARGS += ["ema", "r1"]
HYPERPARAMETERS = ["lr", "lr_disc", "decay_from", "betas", "batch_size", "seed"]
HYPERPARAMETERS += ["precision", *MODEL_ARGS]
CHECKPOINT_SECONDS = 30  # what a kill may lose, besides the epoch it happens in
EARLY_EPOCHS = (1, 2, 3, 5)  # have sample grids whatever --save_every is: digits appear here
PENALTY_EVERY = 8  # steps
NUM_SCORED = 2000  # samples at each --save_every; 10,000 at the end
STEPS_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining}{postfix}]"


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
            any one step; samples are generated with it. `train_gan` updates it at each step.
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
        self.z_dim, self.r1 = z_dim, r1
        self.generator = GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        self.discriminator = DiscriminatorMLP(hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc)
        self.averaged = AveragedModel(
            self.generator,
            avg_fn=lambda mean, new, n: mean.lerp(new, 1 / (1 + (n / 5).clamp(max=ema))),
        )

    @classmethod
    def from_checkpoint(cls, run: str | Path = PRETRAINED, raw: bool = False) -> "GAN":
        """The trained model of a run directory or a checkpoint file, on the CPU.

        Args:
            run: by default the pretrained one, of which only `averaged` has trained weights.
            raw: generate with the generator's last weights instead of the averaged ones.

        Raises:
            ValueError: there is no checkpoint, or it does not fit this version or models.py.
        """
        saved = load_checkpoint(run)
        model = cls(**{name: saved["args"][name] for name in MODEL_ARGS})
        try:
            if "generator" in saved:  # of pretrained/
                model.averaged.module.load_state_dict(saved["generator"])
            else:
                model.load_state_dict(saved["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"{run} does not fit models.py: {reason}") from error
        if raw and "generator" in saved:
            raise ValueError(f"{run} has averaged weights only")
        if raw:
            model.averaged.module.load_state_dict(model.generator.state_dict())
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

        Latents are evenly spaced on the straight line between two random ones, whose images are
        the first and the last of each row.
        """
        start, end = (self.latents(batch_size, generator)[:, None] for _ in range(2))
        weight = torch.linspace(0, 1, interpolation_steps + 2, device=self.device)[:, None]
        images = self.generate(torch.lerp(start, end, weight).flatten(0, 1))
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

    def generator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss: the discriminator should classify its images as real.

        This is the non-saturating loss -log D(G(z)): its gradient does not vanish while the
        discriminator is sure that the images are fake (Goodfellow et al., 2014, section 3). It
        flows through the discriminator, but only the generator's parameters are to be updated.

        Args:
            x_real: real images `[B, C, H, W]`; only their number matters here.

        Returns:
            The loss and the scalars to log.
        """
        x_fake = self.generator(self.latents(len(x_real)))
        logits = self.discriminator(x_fake)
        loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        return loss, {"loss": loss.detach()}

    def discriminator_step(self, x_real: Tensor, r1: float = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss: it should tell real images from generated ones.

        Real and fake images go through the discriminator in one batch. For an MLP that is the same
        as two batches; with batch normalization in it, use two.

        Args:
            x_real: real images `[B, C, H, W]`. As many fake ones are generated.
            r1: weight of the gradient penalty; 0 disables it.

        Returns:
            The loss, -(log D(x) + log(1 - D(G(z)))) / 2 + r1 / 2 * penalty, with gradients for
            the discriminator alone, and the scalars to log; their loss is without the penalty.
        """
        with torch.no_grad():  # the generator does not learn here
            x_fake = self.generator(self.latents(len(x_real)))
        logits = self.discriminator(torch.cat([x_real.to(x_fake.dtype), x_fake]))
        real, fake = logits.detach().float().chunk(2)
        targets = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        penalty = r1 / 2 * self.gradient_penalty(x_real) if r1 else 0.0
        return loss + penalty, {
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
    The gradient penalty is computed at every 8th step, with 8 times its weight: an eighth of the
    cost, the same effect (Karras et al., 2020).
    """
    model.train()
    device = model.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    # Each loss is differentiated with respect to its own network; the other needs no gradients.
    weights_gen = [p for p in model.generator.parameters() if p.requires_grad]
    weights_disc = [p for p in model.discriminator.parameters() if p.requires_grad]
    steps = tqdm(train_loader, "steps", leave=False, disable=not progress_bar, bar_format=STEPS_BAR)
    for step, (x_real, _) in enumerate(steps):
        x_real = x_real.to(device, non_blocking=True)

        # The discriminator learns to tell this batch from generated images ...
        with precision:
            r1 = PENALTY_EVERY * model.r1 if step % PENALTY_EVERY == 0 else 0.0
            loss, values = model.discriminator_step(x_real, r1)
        optimizer_disc.zero_grad()
        loss.backward(inputs=weights_disc)
        optimizer_disc.step()
        logger_disc.add_values(values)

        # ... and the generator learns to generate images that it now classifies as real.
        with precision:
            loss, values = model.generator_step(x_real)
        optimizer_gen.zero_grad()
        loss.backward(inputs=weights_gen)
        optimizer_gen.step()
        model.averaged.update_parameters(model.generator)
        logger_gen.add_values(values)

        if progress_bar and logger_gen.step % logger_gen.avg_window == 0:
            rate = len(x_real) * (steps.format_dict["rate"] or 0)
            steps.set_postfix_str(f"{losses(logger_gen, logger_disc)}, {rate:,.0f} img/s")
    logger_disc.flush()
    logger_gen.flush()


def losses(logger_gen: utils.TensorBoardLogger, logger_disc: utils.TensorBoardLogger) -> str:
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


def save_samples(
    model: GAN, epoch: int, step: int, writer: SummaryWriter, reference: Reference | None
) -> None:
    """Saves the sample grids of this epoch, and scores samples if there is a reference."""
    generate_and_save(model, epoch, writer)
    interpolate_and_save(model, epoch, writer, batch_size=16)
    if reference and epoch > 0:
        utils.log_scores(writer, score_samples(model, reference, NUM_SCORED), step)


def save_results(
    model: GAN, epoch: int, step: int, writer: SummaryWriter, reference: Reference | None
) -> None:
    """Saves what a run ends with: the film of its sample grids, and the scores."""
    run_dir = Path(writer.log_dir)
    replace_file(run_dir / utils.PROGRESS, utils.film(run_dir))
    if reference:
        scores = {"epochs": epoch, **score_samples(model, reference, 10_000)}
        utils.save_scores(scores, step, writer)


def load_reference(args: argparse.Namespace) -> Reference | None:
    """The test images as the reference of scores; None, and one printed line, without them."""
    try:
        test = mnist(args.data_dir or DATA_DIR, download=False, train=False).dataset
        images, labels = test.images, test.labels
    except (TypeError, AttributeError, OSError) as error:  # another mnist.py may have none
        print(f"Scores:      none ({error})")
        return None
    return Reference.of(images, labels)


def score_samples(model: GAN, reference: Reference, num_samples: int) -> dict[str, float]:
    """Scores of samples, of the same latents at every epoch; see metrics.py."""
    return score(model.sample(num_samples, torch.Generator().manual_seed(0)), reference)


def main(args: argparse.Namespace, saved: dict | None = None) -> None:
    """Trains a GAN with what `parse_args` returns, in a new run directory or in that of `saved`.

    Raises:
        OSError: data, log directory or checkpoint could not be read or written.
        FloatingPointError: training diverged; the last checkpoint predates it.
    """
    check.print_thread_hint(args.device)
    loader = mnist(args.data_dir or DATA_DIR, args.batch_size, args.num_workers)
    reference = load_reference(args)
    if args.num_workers == 0 and hasattr(loader.dataset, "to"):
        loader.dataset.to(torch.device(args.device))  # 47 MB; batches are then made there
    seed_everything(args.seed)
    model = GAN(**{name: getattr(args, name) for name in MODEL_ARGS}).to(args.device)
    adam = {"betas": args.betas, "fused": True}
    optimizer_gen = torch.optim.Adam(model.generator.parameters(), args.lr, **adam)
    optimizer_disc = torch.optim.Adam(model.discriminator.parameters(), args.lr_disc, **adam)
    state = {"model": model, "optimizer_gen": optimizer_gen, "optimizer_disc": optimizer_disc}
    run_dir = saved["run_dir"] if saved else make_run_dir(args.log_dir, args.name, args.job_id)
    checkpoint = Checkpoint(run_dir, state, saved)
    epochs_done = saved["epoch"] if saved else 0
    step = epochs_done * len(loader)
    bars, bf16 = args.progress_bar, args.precision == "bf16"

    # A killed run has logged more than its checkpoint knows of: purge_step drops the surplus.
    with check.interruptible(run_dir), SummaryWriter(run_dir, purge_step=step + 1) as writer:
        checkpoint.save(epoch=epochs_done, args=vars(args))  # --epochs may have been raised
        logger_gen = utils.TensorBoardLogger(writer, name="generator", step=step)
        logger_disc = utils.TensorBoardLogger(writer, name="discriminator", step=step)
        replace_file(run_dir / "args.json", json.dumps(vars(args), indent=2).encode())
        if epochs_done == 0:
            utils.log_run(writer, {name: getattr(args, name) for name in HYPERPARAMETERS})
            save_samples(model, 0, 0, writer, reference)
        print_start(run_dir)

        bar = tqdm(desc="epochs", total=args.epochs, initial=epochs_done, disable=not bars)
        for epoch in range(epochs_done + 1, args.epochs + 1):
            started = time.perf_counter()
            seed_everything(args.seed, epoch)
            # A high rate learns fast, but then even averaged weights jitter about the best ones.
            decay = min(1, args.decay_from / epoch)
            optimizer_gen.param_groups[0]["lr"] = decay * args.lr
            optimizer_disc.param_groups[0]["lr"] = decay * args.lr_disc
            train_gan(
                model, loader, logger_gen, logger_disc, optimizer_gen, optimizer_disc, bars, bf16
            )
            seconds = time.perf_counter() - started
            utils.log_speed(writer, seconds, len(loader.dataset), logger_gen.step)

            grids_due = epoch in (*EARLY_EPOCHS, args.epochs) or epoch % args.save_every == 0
            if grids_due:
                save_samples(model, epoch, logger_gen.step, writer, reference)
            if grids_due and not bars:
                print_epoch(epoch, args.epochs, seconds, losses(logger_gen, logger_disc))
            if epoch == args.epochs:
                save_results(model, epoch, logger_gen.step, writer, reference)
            if grids_due or time.monotonic() - checkpoint.saved_at > CHECKPOINT_SECONDS:
                writer.flush()  # first, so that the curves reach as far as the checkpoint
                checkpoint.save(epoch=epoch, args=vars(args))
            bar.update()
        bar.close()
    print(f"Film:        {run_dir / utils.PROGRESS}\nCheckpoint:  {run_dir / CHECKPOINT}")


def print_start(run_dir: Path) -> None:
    """Prints where the run writes to, and the command that shows all of its sample grids."""
    log_dir = shlex.quote(run_dir.parent.as_posix())
    print(f"Logs:        {run_dir}")
    print(f"TensorBoard: tensorboard --logdir {log_dir} --samples_per_plugin images=1000")


def print_epoch(epoch: int, epochs: int, seconds: float, means: str) -> None:
    """Prints one line about an epoch, and how long the rest will take."""
    left = timedelta(seconds=round(seconds * (epochs - epoch)))
    print(f"epoch {epoch:>3}/{epochs}: {means}, {seconds:.1f} s/epoch, {left} left", flush=True)


def parse_args(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict | None]:
    """Parses the command line; errors are one line and exit with status 2.

    Returns the arguments, and the contents of the checkpoint to resume from, if there is one.
    """
    parser = check.Parser(
        "Trains a GAN that learns to generate MNIST digits.",
        example="python train_torch.py --progress_bar --epochs 20 --lr 1e-3 --name slower",
    )
    add = parser.add_argument_group("model").add_argument
    add("--z_dim", type=check.width, default=32, help="length of a latent vector")
    widths = {"type": check.widths, "nargs": "*", "metavar": "WIDTH"}
    add("--hidden_dims_gen", default=[128, 256, 512], help="generator's hidden layers", **widths)
    add("--hidden_dims_disc", default=[512, 256], help="discriminator's hidden layers", **widths)
    add("--dp_rate_gen", type=check.fraction, default=0.0, help="generator's dropout rate")
    add("--dp_rate_disc", type=check.fraction, default=0.0, help="discriminator's dropout rate")
    add("--ema", type=check.steps, default=1000, help="steps that averaged weights span; 0: off")

    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=check.positive_int, default=50, help="passes over the training set")
    add("--batch_size", type=check.positive_int, default=128, help="images per step")
    add("--lr", type=check.learning_rate, default=2e-3, help="generator's learning rate")
    add("--lr_disc", type=check.learning_rate, default=1e-3, help="discriminator's learning rate")
    decay = "epoch from which both rates fall as 1 / epoch"
    add("--decay_from", type=check.positive_int, default=20, help=decay)
    pair = {"type": check.fraction, "nargs": 2, "metavar": ("BETA1", "BETA2")}
    add("--betas", default=[0.0, 0.99], help="Adam's decay rates", **pair)
    add("--r1", type=check.weight, default=0.3, help="weight of the gradient penalty; 0: off")

    run = parser.add_argument_group("run")
    add = run.add_argument
    add("--seed", type=check.seed, default=42, help="seed of every random number")
    add("--device", type=check.device, default="auto", help="auto, cpu, cuda, mps, ...")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="of matmuls")
    add("--data_dir", type=check.directory, help="directory with MNIST/raw/*.gz, if not data/")
    add("--num_workers", type=check.workers, default=0, help="data-loading processes")
    resume = run.add_mutually_exclusive_group().add_argument
    resume("--resume", metavar="RUN", help="resume the run of this run directory or checkpoint")
    resume("--job_id", type=check.name, help="resume this job's run in --log_dir, or start it")

    add = parser.add_argument_group("logging").add_argument
    add("--log_dir", type=check.directory, default="GAN_logs/", help="directory of all runs")
    add("--name", type=check.name, help="becomes part of the run directory's name")
    add("--save_every", type=check.positive_int, default=10, help="epochs between sample grids")
    add("--progress_bar", action="store_true", help="show bars, not a line per sample grid")

    args, saved = parser.parse_args(argv), None
    if args.job_id:
        runs = Path(args.log_dir).glob(f"*_job{args.job_id}/{CHECKPOINT}")
        args.resume = max(map(str, runs), default=None)
    if args.resume is not None:
        try:
            saved = load_checkpoint(args.resume)
        except ValueError as error:
            parser.error(f"argument --resume: {error}")
        if saved["run_dir"] is None:
            parser.error(f"argument --resume: {args.resume} is not in a run directory")
        defaults = {k: v for k, v in saved["args"].items() if k not in ("device", "progress_bar")}
        args = parser.parse_resumed(argv, defaults, [*HYPERPARAMETERS, "name"])
        if args.epochs <= saved["epoch"]:
            done = f"{saved['run_dir']} has finished {saved['epoch']} epochs"
            parser.exit(message=f"{done}; for more, pass a larger --epochs\n")
    if args.precision == "bf16" and not check.supports_bf16(args.device):
        parser.error(f"argument --precision: {args.device} has no instructions for 'bf16'")
    return args, saved


if __name__ == "__main__":
    check.run(lambda: main(*parse_args()), OSError, FloatingPointError)
