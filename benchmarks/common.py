"""What benchmarks share: the scalars of a run, and loops to be timed in turn."""

import contextlib
import itertools
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from mnist import mnist
from models import DiscriminatorMLP, GeneratorMLP
from train_torch import GAN, make_optimizers, parse_args, train_gan
from utils import SummaryWriter, TensorBoardLogger

REPOSITORY = Path(__file__).resolve().parent.parent
GEN, DISC, Z_DIM, BATCH = (128, 256, 512), (512, 256), 32, 128  # train_torch.py's defaults
STEPS = 469  # in an epoch

Run = Callable[[int], None]  # runs so many training steps


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of all scalars that a run has logged, by tag."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].split("\n")[0]
    return platform.processor()


def train_timed(seed: int, epochs: int, *flags: str) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """Trains the default recipe; the time of day and the averaged weights after each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train_torch.py", "--gan", "benchmarks.gans:TimedGAN", *flags]
        command += ["--seed", str(seed), "--epochs", str(epochs), "--log_dir", folder]
        options = {"cwd": REPOSITORY, "env": {**os.environ, "TIMED_DIR": folder}}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
        return [torch.load(path) for path in sorted(Path(folder).glob("*.pt"))]


def endless(loader: DataLoader) -> Iterator:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


def project(writer: SummaryWriter, flags: str = "", bf16: bool = False) -> Run:
    """Steps of train_gan as with these flags of train_torch.py, from one epoch into the next."""
    args = parse_args(["--device", "cpu", *flags.split()])
    model = GAN.from_args(args)
    optimizers = make_optimizers(model, args)
    loggers = [TensorBoardLogger(writer, name=name) for name in ("generator", "discriminator")]
    batches = endless(mnist(batch_size=BATCH))

    def run(steps: int) -> None:
        train_gan(model, itertools.islice(batches, steps), *loggers, *optimizers, bf16=bf16)

    return run


def plain_loop(folder: str, workers: int) -> Run:
    """Steps of a plain loop as one would first write it; MNIST is unpacked in the folder.

    Images are transformed one by one, there is dropout, both networks get gradients in both steps,
    Adam is the default one, and losses are read back at every step.
    """
    shutil.copytree(REPOSITORY / "data", folder, dirs_exist_ok=True)  # else it is downloaded
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(folder, download=True, transform=transform)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more than processors
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)
    batches = endless(loader)
    generator = GeneratorMLP(z_dim=Z_DIM, hidden_dims=GEN, dp_rate=0.1)
    discriminator = DiscriminatorMLP(hidden_dims=DISC, dp_rate=0.3)
    adam_gen = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_disc = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    loss_of = F.binary_cross_entropy_with_logits

    def run(steps: int) -> None:
        for x_real, _ in itertools.islice(batches, steps):
            ones, zeros = torch.ones(len(x_real), 1), torch.zeros(len(x_real), 1)

            adam_disc.zero_grad()
            real = discriminator(x_real)
            fake = discriminator(generator(torch.randn(len(x_real), Z_DIM)))
            loss_disc = (loss_of(real, ones) + loss_of(fake, zeros)) / 2
            loss_disc.backward()
            adam_disc.step()

            adam_gen.zero_grad()
            loss_gen = loss_of(discriminator(generator(torch.randn(len(x_real), Z_DIM))), ones)
            loss_gen.backward()
            adam_gen.step()
            loss_disc.item(), loss_gen.item()

    return run


def interleaved(runs: dict[str, Run], steps: int = 60, rounds: int = 9) -> dict[str, list[float]]:
    """Seconds per step of each run, in each of the rounds in which all run so many steps in turn.

    So a machine whose speed drifts drifts for all.
    """
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run(steps // 5)  # warm up
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.1)  # lets a loader's workers fill their queue and become idle
            started = time.perf_counter()
            run(steps)
            seconds[name].append((time.perf_counter() - started) / steps)
    return seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """How many times b is in a, the median over the rounds."""
    return median(x / y for x, y in zip(a, b, strict=True))
