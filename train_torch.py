"""Trains a GAN (Goodfellow et al., 2014) that learns to generate MNIST digits.

The default reaches a Fréchet distance of 0.14 ± 0.02 (five runs of 50 epochs, 10,000 samples), in
5.7 minutes on 2 cores of an AMD EPYC (Zen 4).

    python train_torch.py --progress_bar              on a laptop
    sbatch train.job --epochs 100                     on a Slurm cluster, any flag after the script
    tensorboard --logdir GAN_logs/ --samples_per_plugin images=1000    to watch the digits appear

A run writes curves and sample grids for TensorBoard, the grids as PNG files, its arguments, a
checkpoint, and in the end scores and a film into GAN_logs/<date_time>/. Read from top to bottom:
the model with its two training steps, the sample grids, one epoch, the run, the command line.
"""

import argparse
import contextlib
import copy
import importlib
import inspect
import json
import math
import os
import pkgutil
import random
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
from torch.utils.data import DataLoader
from tqdm import tqdm

import checkpoint
import command_line
import utils
from metrics import IMAGE_SHAPE, SCORES, classify, score
from mnist import mnist
from models import DiscriminatorMLP, GeneratorMLP
from utils import SummaryWriter

NETWORKS = "generator", "discriminator", "averaged"  # of GAN, and in its checkpoints
PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "generator.pt"
CHECKPOINT_SECONDS = 30  # what a kill may lose, besides the epoch it happens in
EARLY_EPOCHS = (1, 2, 3, 5)  # have sample grids whatever --save_every is: digits appear here
PENALTY_EVERY = 8  # steps
CATEGORY_LENGTH = 4.0  # a little less than that of 22 normal numbers
BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # of tqdm


class GAN(nn.Module):
    """A generator of images and a discriminator that tells them from real ones.

    Args:
        hidden_dims_gen, hidden_dims_disc: widths of the hidden layers of the two networks.
        dp_rate_gen, dp_rate_disc: their dropout rates, in [0, 1).
        z_dim: length of a latent vector.
        categories: how many of the `z_dim` numbers are a category, a one-hot vector of length 4
            instead of normal numbers; D then has its batch statistic. 0 disables both.
        ema: window of the average of the generator's weights, in steps; at the beginning it is
            a fifth of the steps so far. 0 disables averaging.
        r1: weight of the gradient penalty in training; 0 disables it.

    Attributes:
        averaged: the generator with averaged weights, which are calmer and better than those of
            any one step; samples are generated with it.
        steps_done: number of training steps so far.
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
        categories: int = 0,
    ):
        super().__init__()
        self.z_dim, self.ema, self.r1, self.categories = z_dim, ema, r1, categories
        self.steps_done = 0
        self.generator = GeneratorMLP(z_dim=z_dim, hidden_dims=hidden_dims_gen, dp_rate=dp_rate_gen)
        own = inspect.signature(DiscriminatorMLP).parameters  # somebody else's may have fewer
        options = {"batch_statistic": bool(categories)} if "batch_statistic" in own else {}
        self.discriminator = DiscriminatorMLP(
            hidden_dims=hidden_dims_disc, dp_rate=dp_rate_disc, **options
        )

    def __getattr__(self, name: str) -> Any:
        if name == "averaged" and name not in self._modules:
            # Made on first use, since a subclass may have a generator of its own.
            self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        return super().__getattr__(name)

    @staticmethod
    def from_args(args: argparse.Namespace) -> "GAN":
        """A new model of the class `args.gan`, MODULE:CLASS, with the arguments of `parse_args`.

        Raises:
            argparse.ArgumentTypeError: there is no such subclass, or it takes other arguments.
        """
        networks = args.hidden_dims_gen, args.hidden_dims_disc, args.dp_rate_gen, args.dp_rate_disc
        options = {"ema": args.ema, "r1": args.r1, "categories": args.categories}
        if args.categories > args.z_dim:
            few = f"--categories {args.categories}: more than --z_dim {args.z_dim}; 0 disables them"
            raise argparse.ArgumentTypeError(few)
        try:
            gan = pkgutil.resolve_name(args.gan)
            if not issubclass(gan, GAN) and "GAN" in (base.__name__ for base in gan.__mro__):
                # A notebook has run this file again: the module has the GAN of before.
                gan = getattr(importlib.reload(sys.modules[gan.__module__]), gan.__name__)
            if not issubclass(gan, GAN):
                raise TypeError("not a subclass of train_torch.GAN")
            inspect.signature(gan).bind(*networks, args.z_dim, **options)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            where = "looked for beside train_torch.py and on PYTHONPATH"
            raise argparse.ArgumentTypeError(f"--gan {args.gan}: {error} ({where})") from None
        return gan(*networks, args.z_dim, **options)

    @staticmethod
    def from_checkpoint(run: str | Path = PRETRAINED, raw: bool = False) -> "GAN":
        """The trained model of a run directory or a checkpoint file, on the CPU.

        Args:
            run: by default the pretrained generator, of which only `averaged` is trained.
            raw: generate with the generator's last weights instead of the averaged ones.

        Raises:
            OSError: there is no checkpoint, or it does not fit this version or models.py.
            argparse.ArgumentTypeError: as `from_args`.
        """
        saved = checkpoint.load(run)
        model = GAN.from_args(argparse.Namespace(**saved["args"]))
        parts = {name: getattr(model, name) for name in NETWORKS if name in saved}
        checkpoint.load_parts(saved, parts)
        if raw:
            checkpoint.load_parts(saved, {"generator": model.averaged})
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

    def sample_categories(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """`batch_size` images of each category in turn, each time of the same normal numbers."""
        z = self.latents(batch_size, generator)
        rows = [self.in_category(z, category) for category in range(self.categories)]
        return self.generate(torch.cat(rows))

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images `[B, C, H, W]` of the latents `[B, z_dim]`, in evaluation mode.

        They are generated 500 at a time: the layers in between may need 1000 times their memory.
        """
        averaged = self.averaged.eval()
        return torch.cat([averaged(part) for part in z.split(500)])

    def latents(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents `[B, z_dim]`: first a random category, if there are any, then normal numbers."""
        rng = {"generator": generator, "device": generator.device if generator else self.device}
        z = torch.randn(batch_size, self.z_dim, **rng)
        if self.categories:
            category = torch.randint(self.categories, (batch_size,), **rng)
            z = self.in_category(z, category)
        return z.to(self.device)

    def in_category(self, z: Tensor, category: Tensor | int) -> Tensor:
        """The latents `[B, z_dim]`, moved to a category, one for all or one for each, `[B]`."""
        category = torch.as_tensor(category, device=z.device)
        one_hot = CATEGORY_LENGTH * F.one_hot(category, self.categories)
        return torch.cat([one_hot.expand(len(z), -1), z[:, self.categories :]], 1)

    def discriminator_step(self, x_real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss: it should tell real images from generated ones.

        Args:
            x_real: real images `[B, C, H, W]`. As many fake ones are generated.

        Returns:
            The loss, -(log D(x) + log(1 - D(G(z)))) / 2, with gradients for the discriminator
            alone; and the scalars to log, whose "loss" is printed as well.
        """
        with torch.no_grad():  # the generator does not learn here
            x_fake = self.generator(self.latents(len(x_real)))
        # Both in one batch: two calls take 1.06 times as long. With batch normalization in D make
        # two, since real and fake images differ. (The batch statistic's groups are of one kind if
        # the batch size is a multiple of 4.)
        logits = self.discriminator(torch.cat([x_real.to(x_fake.dtype), x_fake]))
        real, fake = logits.chunk(2)  # D(x) is the sigmoid of the logit
        loss = -(F.logsigmoid(real) + F.logsigmoid(-fake)).mean() / 2
        real, fake = real.detach(), fake.detach()
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
        return gradient.flatten(1).square().sum(1).mean()

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
        loss = -F.logsigmoid(self.discriminator(x_fake)).mean()
        return loss, {"loss": loss.detach()}

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the averaged weights towards the generator's, after a step of its optimizer.

        Floating-point buffers, such as batch normalization's statistics, are averaged as well.
        """
        weight = 1 / (1 + min(self.steps_done / 5, self.ema))
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
) -> None:
    """Saves a grid of samples, of the same latents at every epoch and on every device."""
    images = model.sample(batch_size, torch.Generator().manual_seed(0))
    utils.save_images(images, 8, "samples", epoch, summary_writer, model.steps_done)


def interpolate_and_save(
    model: GAN,
    epoch: int,
    summary_writer: SummaryWriter,
    batch_size: int = 64,
    interpolation_steps: int = 5,
) -> None:
    """Saves a grid of interpolations, one per row, of the same latents at every epoch."""
    images = model.interpolate(batch_size, interpolation_steps, torch.Generator().manual_seed(0))
    images, columns, step = images.flatten(0, 1), interpolation_steps + 2, model.steps_done
    utils.save_images(images, columns, "interpolation", epoch, summary_writer, step)


def save_samples(model: GAN, epoch: int, summary_writer: SummaryWriter) -> None:
    """Saves all grids: samples, interpolations, and a row for each category, if there are any."""
    generate_and_save(model, epoch, summary_writer)
    interpolate_and_save(model, epoch, summary_writer, batch_size=16)
    if model.categories:
        images = model.sample_categories(10, torch.Generator().manual_seed(0))
        utils.save_images(images, 10, "categories", epoch, summary_writer, model.steps_done)


def score_samples(model: GAN, num_samples: int, seed: int = 0) -> dict[str, float]:
    """Scores of samples, of the same latents at every epoch; see metrics.py.

    If there are categories, "purity" is the mean share of the most frequent digit of each.
    """
    rng = torch.Generator().manual_seed(seed)
    scores = score(model.sample(num_samples, rng))
    if model.categories:
        scores["purity"] = category_digits(model, num_samples // 20, rng)[1].mean().item()
    return scores


def category_digits(model: GAN, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The digit that the classifier finds most often in each category, and its share there.

    Both are `[categories]`. They are of `count` images of each.
    """
    _, probabilities = classify(model.sample_categories(count, rng))
    digits = F.one_hot(probabilities.argmax(1), 10).unflatten(0, (-1, count)).double().mean(1)
    return digits.argmax(1), digits.amax(1)


def save_final_scores(model: GAN, epoch: int, summary_writer: SummaryWriter) -> None:
    """Prints the scores of 10,000 samples, and writes them to `scores.json` and for HPARAMS."""
    samples = {"num_samples": 10_000, "seed": 0}
    scores = score_samples(model, **samples)
    # A run that is resumed here purges what is logged at a step that it has not done.
    utils.log_scores(summary_writer, scores, model.steps_done + 1, "final")
    text = json.dumps({"epochs": epoch, **samples, **scores}, indent=2)
    Path(summary_writer.log_dir, "scores.json").write_text(text)
    shown = [name for name in (*SCORES, "purity") if name in scores]
    print(*(f"{name:<20}{scores[name]:.4g}" for name in shown), sep="\n")


def train_gan(
    model: GAN,
    train_loader: DataLoader,
    logger_gen: utils.TensorBoardLogger,
    logger_disc: utils.TensorBoardLogger,
    optimizer_gen: torch.optim.Optimizer,
    optimizer_disc: torch.optim.Optimizer,
    bar: tqdm | None = None,
    bf16: bool = False,
) -> None:
    """Trains for one epoch: for each batch a step of the discriminator, then of the generator.

    Losses stay on the device; the loggers read their means back once every `avg_window` steps.
    Each step moves the `bar` on, and each written mean is shown there.
    With `bf16`, matmuls and images are in bfloat16. Weights and moments stay in float32, and losses
    are computed from float32 logits, whatever the networks and steps are.
    """
    model.train()
    device = model.device
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
    logits_to_float32 = model.discriminator.register_forward_hook(
        lambda _module, _inputs, logits: logits.float() if isinstance(logits, Tensor) else logits
    )
    # Each loss is differentiated with respect to its own network; the other needs no gradients.
    weights_gen = [p for p in model.generator.parameters() if p.requires_grad]
    weights_disc = [p for p in model.discriminator.parameters() if p.requires_grad]
    for x_real, _ in train_loader:
        x_real = x_real.to(device, non_blocking=True)

        # The discriminator learns to tell this batch from generated images. The penalty, at every
        # 8th step with 8 times its weight, has the same effect for less time (Karras et al., 2020).
        with precision:
            loss, values = model.discriminator_step(x_real)
            if model.r1 and model.steps_done % PENALTY_EVERY == 0:
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
        model.update_average()
        model.steps_done += 1
        logger_gen.add_values(values)

        if bar is not None:
            bar.update()
            if logger_gen.step % logger_gen.avg_window == 0:
                bar.set_postfix_str(loss_text(logger_gen, logger_disc))
    logits_to_float32.remove()
    logger_disc.flush()
    logger_gen.flush()


def loss_text(logger_gen: utils.TensorBoardLogger, logger_disc: utils.TensorBoardLogger) -> str:
    """The last written means of both losses, and whether D always wins; fits 80 columns."""
    gen, disc = logger_gen.means, logger_disc.means
    won = disc.get("probability_real", 0) > 0.99 and disc.get("probability_fake", 1) < 0.01
    losses = f"G {gen.get('loss', math.nan):.3f} D {disc.get('loss', math.nan):.3f}"
    return losses + (" (D has won)" if won else "")


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seeds Python, NumPy and torch on all devices, differently for every seed and every epoch.

    So an epoch always uses the same random numbers, whatever ran before it, and no RNG state has
    to be saved. Epoch 0 is the initialization.
    """
    seeds = np.random.SeedSequence([seed, epoch]).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])
    torch.manual_seed(int(seeds[2]))


def make_optimizers(
    model: GAN, args: argparse.Namespace
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam for the generator and Adam for the discriminator, each with its own learning rate."""
    options = {"betas": args.betas, "fused": True}
    optimizer_gen = torch.optim.Adam(model.generator.parameters(), args.lr, **options)
    optimizer_disc = torch.optim.Adam(model.discriminator.parameters(), args.lr_disc, **options)
    return optimizer_gen, optimizer_disc


def main(args: argparse.Namespace) -> None:
    """Trains a GAN with the arguments that `parse_args` returns, in the run directory it prints.

    Raises:
        OSError: data, log directory or checkpoint could not be read or written.
        argparse.ArgumentTypeError: the run that is there has other hyperparameters.
        FloatingPointError: training diverged; the last checkpoint predates it.
    """
    # Without --data_dir, in mnist.py's own directory.
    data = {"root": args.data_dir, "download": False} if args.data_dir else {}
    loader = mnist(**data, batch_size=args.batch_size, num_workers=args.num_workers)
    if args.num_workers == 0 and hasattr(loader.dataset, "to"):
        loader.dataset.to(torch.device(args.device))  # 47 MB; batches are then made there

    seed_everything(args.seed)
    model = GAN.from_args(args).to(args.device)
    optimizers = make_optimizers(model, args)
    parts = {name: getattr(model, name) for name in NETWORKS}
    parts["optimizer_gen"], parts["optimizer_disc"] = optimizers
    run_dir, epochs_done = checkpoint.start_or_resume(args, parts)
    saved_at = time.monotonic()
    counts = [int(state["step"]) for state in optimizers[0].state.values()]  # Adam's own
    step = model.steps_done = max(counts, default=0)
    bf16 = args.precision == "bf16" or (args.precision == "auto" and has_bf16(args.device))
    scored = model.sample(1, torch.Generator().manual_seed(0)).shape[1:] == IMAGE_SHAPE
    print_start(run_dir, epochs_done, args, bf16, scored)

    # A killed run has logged more than its checkpoint knows of: purge_step drops the surplus.
    writer = SummaryWriter(run_dir, purge_step=step + 1 if step else 0)
    steps = step + (args.epochs - epochs_done) * len(loader)
    bar = tqdm(total=steps, initial=step, bar_format=BAR, disable=not args.progress_bar)
    with writer, bar:
        networks = "generator", "discriminator"
        loggers = [utils.TensorBoardLogger(writer, name=name, step=step) for name in networks]
        if epochs_done == 0:
            utils.log_run(writer, checkpoint.hyperparameters(checkpoint.to_save(args)))
            save_samples(model, 0, writer)
        distance = ""  # the last one, as a text
        for epoch in range(epochs_done + 1, args.epochs + 1):
            bar.set_description(f"epoch {epoch}/{args.epochs}{distance}")
            started = time.perf_counter()
            seed_everything(args.seed, epoch)
            # A high rate learns fast, but then even averaged weights jitter about the best ones.
            decay = min(1, args.decay_from / epoch)
            for optimizer, rate in zip(optimizers, (args.lr, args.lr_disc), strict=True):
                optimizer.param_groups[0]["lr"] = decay * rate
            train_gan(model, loader, *loggers, *optimizers, bar, bf16)
            seconds = time.perf_counter() - started
            writer.add_scalar("seconds_per_epoch", seconds, model.steps_done)

            grids_due = epoch in (*EARLY_EPOCHS, args.epochs) or epoch % args.save_every == 0
            if grids_due:
                save_samples(model, epoch, writer)
                if scored:
                    scores = score_samples(model, 2000)
                    utils.log_scores(writer, scores, model.steps_done)
                    distance = f", distance {scores['frechet_distance']:.3g}"
                if not args.progress_bar:
                    print_epoch(epoch, args.epochs, seconds, loss_text(*loggers) + distance)
            if grids_due or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                writer.flush()  # first, so that the curves reach as far as the checkpoint
                checkpoint.save(run_dir, epoch, args, parts)
                saved_at = time.monotonic()

        bar.close()
        if scored:
            save_final_scores(model, args.epochs, writer)
    utils.save_film(run_dir)
    print(f"Film:        {run_dir / utils.FILM}")


def has_bf16(device: str) -> bool:
    """Whether the device is a CPU that has instructions for bfloat16 matmuls.

    On an accelerator, an H200, a step takes 1.2 times as long in bfloat16.
    """
    of_cpu = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch cannot tell
    return device == "cpu" and any(of_cpu.get(x) for x in ("avx512_bf16", "amx_bf16", "bf16"))


def print_start(run: Path, done: int, args: argparse.Namespace, bf16: bool, scored: bool) -> None:
    """Prints where the run writes to, how to resume it after any kill, and how to watch it."""
    print(f"{done} of {args.epochs} epochs done" if done else "new run", f"in {run}")
    print(f"Samples:     {run / 'samples_epoch_*.png'}")
    print(f"Resume with: the same command and --name {run.name}")
    print(f'TensorBoard: tensorboard --logdir "{run.parent}" --samples_per_plugin images=1000')
    print(f"Precision:   {'bf16' if bf16 else 'fp32'}")
    if not scored:
        print(f"Scores:      none, since images are not {[*IMAGE_SHAPE]}")
    elif args.data_dir:
        print("Scores:      against MNIST's test images, whatever --data_dir has")


def print_epoch(epoch: int, epochs: int, seconds: float, means: str) -> None:
    """Prints one line about an epoch, and how long the rest will take."""
    left = timedelta(seconds=round(seconds * (epochs - epoch)))
    print(f"epoch {epoch:>3}/{epochs}: {means}, {seconds:.1f} s/epoch, {left} left")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; a run that is there has its own arguments as defaults.

    Errors are one line and exit with status 2.

    Raises:
        OSError: the run's checkpoint cannot be read.
    """
    parser = command_line.Parser(
        description="Trains a GAN that learns to generate MNIST digits.",
        epilog="Example: python train_torch.py --progress_bar --epochs 20 --lr 1e-3 --name slower",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    natural, positive = command_line.natural, command_line.positive
    share, rate, weight = command_line.share, command_line.rate, command_line.weight

    add = parser.add_argument_group("model").add_argument
    add(
        "--gan",
        type=command_line.reference,
        default="train_torch:GAN",
        metavar="MODULE:CLASS",
        help="subclass of GAN, with networks or steps of your own",
    )
    add("--z_dim", type=positive, default=32, help="length of a latent vector")
    add("--categories", type=natural, default=10, help="numbers of it that are a category; 0: off")
    widths = {"type": positive, "nargs": "*", "metavar": "WIDTH"}
    add("--hidden_dims_gen", default=[128, 256, 512], help="generator's hidden layers", **widths)
    add("--hidden_dims_disc", default=[512, 256], help="discriminator's hidden layers", **widths)
    add("--dp_rate_gen", type=share, default=0.0, help="generator's dropout rate")
    add("--dp_rate_disc", type=share, default=0.0, help="discriminator's dropout rate")
    add("--ema", type=natural, default=1000, help="steps that averaged weights span; 0: off")

    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=positive, default=50, help="passes over the training set")
    add("--batch_size", type=positive, default=128, help="images per step")
    add("--lr", type=rate, default=2e-3, help="generator's learning rate")
    add("--lr_disc", type=rate, default=1e-3, help="discriminator's learning rate")
    add("--decay_from", type=positive, default=20, help="epoch from which both fall as 1 / epoch")
    betas = {"type": share, "nargs": 2, "metavar": ("BETA1", "BETA2")}
    add("--betas", default=[0.0, 0.99], help="Adam's decay rates", **betas)
    add("--r1", type=weight, default=0.3, help="weight of the gradient penalty; 0: off")

    add = parser.add_argument_group("run").add_argument
    add("--seed", type=command_line.seed, default=42, help="seed of every random number")
    add("--device", type=command_line.device, default="auto", help="auto, cpu, cuda, mps, ...")
    add(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of matmuls; auto: bf16 on CPUs that have instructions for it",
    )
    add("--data_dir", type=command_line.path, help="has MNIST/raw/, if not data/")
    add("--num_workers", type=natural, default=0, help="data-loading processes")

    add = parser.add_argument_group("logging").add_argument
    add("--log_dir", type=command_line.path, default="GAN_logs/", help="directory of all runs")
    add("--name", type=command_line.name, help="run directory there; a run in it is resumed")
    add("--save_every", type=positive, default=10, help="epochs between grids, after 0, 1, 2, 3, 5")
    add("--progress_bar", action="store_true", help="show a bar, not a line per sample grid")

    parser.set_defaults(**checkpoint.saved_args(parser.parse_args(argv)))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.modules["train_torch"] = sys.modules["__main__"]  # for the modules of --gan
    command_line.run(lambda: main(parse_args()))
