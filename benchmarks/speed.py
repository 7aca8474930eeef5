"""How long a training step takes, beside its matmuls alone and beside a plain training loop.

    python benchmarks/speed.py [--json FILE]        about four minutes; leave the machine idle

Compared, a few steps of each in turn, so that a machine whose speed drifts drifts for all:
(a) the matmuls of a step, those that are mathematically needed, and nothing else;
(b) the baseline, a plain loop as one would first write it: images transformed one by one in a
    DataLoader, with 4 workers and with none, nn.Dropout, gradients for both networks, default
    Adam, losses read back at every step;
(c) train_torch.train_gan with the project's loader and loggers, in fp32 and in bf16.

After that (c) on a busy machine: beside other processes that the script starts.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from unittest import mock

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler prints that it starts
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

# Before torch, for which it sets an environment variable.
from train_torch import GAN, train_gan  # noqa: E402  # isort: skip

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402
from torch.profiler import profile, record_function  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torch.utils.tensorboard import SummaryWriter  # noqa: E402

from command_line import supports_bf16  # noqa: E402
from mnist import mnist  # noqa: E402
from utils import TensorBoardLogger  # noqa: E402

GEN, DISC, Z_DIM, PIXELS, BATCH = (128, 256, 512), (512, 256), 32, 784, 128


def matmul_operands(
    gen: Sequence[int], disc: Sequence[int], batch: int
) -> list[tuple[Tensor, Tensor]]:
    """The pairs of matrices that one step of both networks multiplies."""
    gen_sizes = list(itertools.pairwise((Z_DIM, *gen, PIXELS)))
    disc_sizes = list(itertools.pairwise((PIXELS, *disc, 1)))

    def forward(sizes, n):
        return [(torch.randn(n, i), torch.randn(o, i).t()) for i, o in sizes]

    def weight_gradients(sizes, n):
        return [(torch.randn(n, o).t(), torch.randn(n, i)) for i, o in sizes]

    def input_gradients(sizes, n):
        return [(torch.randn(n, o), torch.randn(o, i)) for i, o in sizes]

    return [
        # Discriminator's step: generate, classify real and fake images, weight gradients.
        *forward(gen_sizes, batch),
        *forward(disc_sizes, 2 * batch),
        *weight_gradients(disc_sizes, 2 * batch),
        *input_gradients(disc_sizes[1:], 2 * batch),
        # Generator's step: generate, classify, back through the discriminator, weight gradients.
        *forward(gen_sizes, batch),
        *forward(disc_sizes, batch),
        *input_gradients(disc_sizes, batch),
        *weight_gradients(gen_sizes, batch),
        *input_gradients(gen_sizes[1:], batch),
    ]


def matmuls(gen=GEN, disc=DISC, batch=BATCH) -> Callable[[int], None]:
    """(a) Runs the matmuls of so many steps."""
    pairs = matmul_operands(gen, disc, batch)

    def run(steps: int) -> None:
        for _ in range(steps):
            for a, b in pairs:
                a @ b

    return run


def project(
    folder: str, gen=GEN, disc=DISC, batch=BATCH, bf16: bool = False
) -> Callable[[int], None]:
    """(c) Runs so many steps of train_gan, from one epoch into the next."""
    model = GAN(gen, disc, 0.0, 0.0, Z_DIM)
    adams = [
        torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.0, 0.99), fused=True)
        for network in (model.generator, model.discriminator)
    ]
    writer = SummaryWriter(folder)
    loggers = [TensorBoardLogger(writer, name=name) for name in ("generator", "discriminator")]
    batches = endless(mnist(batch_size=batch))

    def run(steps: int) -> None:
        train_gan(model, itertools.islice(batches, steps), *loggers, *adams, bf16=bf16)

    return run


def endless(loader: DataLoader) -> Iterator:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


class PlainImages(Dataset):
    """MNIST as torchvision gives it: a PIL image at a time, then ToTensor and Normalize."""

    def __init__(self):
        from torchvision import transforms

        data = mnist().dataset
        self.images, self.labels = data.images[:, 0].numpy(), data.labels
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def baseline(workers: int) -> Callable[[int], None]:
    """(b) Runs so many steps of the plain loop."""

    def mlp(sizes: Sequence[int], rate: float) -> list[nn.Module]:
        layers = []
        for i, o in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(i, o), nn.Dropout(rate), nn.LeakyReLU(0.2)]
        return [*layers, nn.Linear(*sizes[-2:])]

    generator = nn.Sequential(*mlp((Z_DIM, *GEN, PIXELS), 0.1), nn.Tanh())
    discriminator = nn.Sequential(nn.Flatten(), *mlp((PIXELS, *DISC, 1), 0.3))
    adam_gen = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_disc = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more than processors
    loader = DataLoader(PlainImages(), batch_size=BATCH, shuffle=True, num_workers=workers)
    batches = endless(loader)
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


def timed(run: Callable[[int], None], steps: int) -> float:
    """The seconds that so many steps take."""
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


def interleaved(
    runs: dict[str, Callable[[int], None]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds per step of each, in each of the rounds in which all do so many steps in turn."""
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run(max(3, steps // 5))  # warm up
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.1)  # lets a loader's workers fill their queue and become idle
            seconds[name].append(timed(run, steps) / steps)
    return seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """How many times b is in a, the median over the rounds."""
    return median(x / y for x, y in zip(a, b, strict=True))


def shares(run: Callable[[int], None], steps: int = 40, rounds: int = 7) -> dict[str, float]:
    """Share of the time in each kind of operation, from the torch profiler, medians of rounds."""
    kinds = {
        "matmuls": ("aten::mm", "aten::addmm"),
        "averaging the weights": ("AveragedModel.update_parameters",),
        "gradient penalty, forward": ("GAN.gradient_penalty",),
        "Adam": ("Optimizer.step#Adam.step",),
        "activations and their gradients": (
            *("aten::leaky_relu", "aten::leaky_relu_backward"),
            *("aten::tanh", "aten::tanh_backward"),
        ),
        "loading": ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",),
        "logging": ("TensorBoardLogger.add_values",),
    }

    def named(owner: type, method: str):
        """Makes the profiler count a method under its name."""
        name = f"{owner.__name__}.{method}"
        return mock.patch.object(owner, method, record_function(name)(getattr(owner, method)))

    parts = {kind: [] for kind in kinds}
    with (
        named(AveragedModel, "update_parameters"),
        named(GAN, "gradient_penalty"),
        named(TensorBoardLogger, "add_values"),
    ):
        for _ in range(rounds):
            with profile() as profiled:
                seconds = timed(run, steps)
            times = {event.key: event.cpu_time_total / 1e6 for event in profiled.key_averages()}
            for kind, ops in kinds.items():
                parts[kind].append(sum(times.get(op, 0) for op in ops) / seconds)
    medians = {kind: median(part) for kind, part in parts.items()}
    return {**medians, "other": 1 - sum(medians.values())}


def whole_process(folder: str) -> dict[str, float]:
    """Seconds from the start of the process to the first step, and peak memory in GB."""
    code = "import sys, train_torch as t; t.train_gan = lambda *a, **k: sys.exit(); "
    code += "t.main(*t.parse_args(['--log_dir', sys.argv[1]]))"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code, folder], cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - started)
    figures = {"seconds to the first step": median(seconds)}
    with contextlib.suppress(ImportError):  # Windows has no such module
        import resource

        train = [sys.executable, "train_torch.py", "--epochs", "1", "--log_dir", folder]
        subprocess.run(train, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        figures["peak memory in GB"] = peak * 1024 / 1e9
    return figures


# What a process that trains imports first, and its environment variables. libgomp, torch's OpenMP
# on Linux, reads them when it is loaded, so each needs a process of its own.
SETTINGS = {
    "as train_torch.py sets it": ("train_torch", {}),
    "libgomp's default": ("torch", {}),
    "OMP_NUM_THREADS=1": ("train_torch", {"OMP_NUM_THREADS": "1"}),
}


def serve_steps(folder: str) -> None:
    """In a process of `busy_machine`: runs as many steps as it reads, prints the seconds."""
    run = project(folder)
    for line in sys.stdin:
        print(timed(run, int(line)), flush=True)


def busy_machine(
    folder: str, settings: dict[str, tuple[str, dict[str, str]]], rounds: int = 5
) -> dict[str, dict[str, list[float]]]:
    """Seconds per step of train_gan with each setting, in each round, "idle" and "busy".

    Busy means beside as many other processes as there are cores, each computing in one thread.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    seconds = {name: {"idle": [], "busy": []} for name in settings}
    with contextlib.ExitStack() as stack:

        def python(code: str, **options) -> subprocess.Popen:
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent, **options)
            )
            stack.callback(process.kill)
            return process

        servers = {
            name: python(
                f"import sys; sys.path.append('..'); import {first}, speed; "
                f"speed.serve_steps({folder!r})",
                env=inherited | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, (first, variables) in settings.items()
        }

        def step(name: str, steps: int) -> float:
            print(steps, file=servers[name].stdin, flush=True)
            return float(servers[name].stdout.readline()) / steps

        for name in settings:
            step(name, 50)  # warm up
        for _ in range(rounds):
            for name in settings:
                seconds[name]["idle"].append(step(name, 50))
            others = [python("while True: pass") for _ in range(os.cpu_count() or 1)]
            time.sleep(0.5)
            for name in settings:
                seconds[name]["busy"].append(step(name, 20))
            for other in others:
                other.kill()
                other.wait()
    return seconds


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, IndexError):
        return Path("/proc/cpuinfo").read_text().split("model name\t: ")[1].split("\n")[0]
    return platform.processor()


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def busy_rows(seconds: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """Rows of a table: medians of the rounds, and the worst round."""
    rows = []
    for name, of in seconds.items():
        idle, busy, worst = median(of["idle"]), median(of["busy"]), max(of["busy"])
        times = [f"{value * 1e3:.2f}" for value in (idle, busy, worst)]
        rows.append([name, *times, f"{busy / idle:.1f}", f"{worst / idle:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write all figures into this file")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    figures: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        figures["process"] = whole_process(folder)
        only, ours, base = "matmuls alone", "train_gan", "baseline, 4 workers"
        runs = {only: matmuls(), ours: project(folder)}
        if supports_bf16("cpu"):
            runs["train_gan, bf16"] = project(folder, bf16=True)
        runs |= {base: baseline(4), "baseline, no workers": baseline(0)}
        step = figures["step"] = interleaved(runs, 60, 9)
        table(
            "One step at the default arguments, medians:",
            ["", "ms per step", "x matmuls", "speedup", "images per second", "s per epoch"],
            [
                [
                    name,
                    f"{median(seconds) * 1e3:.2f}",
                    f"{ratio(seconds, step[only]):.2f}",
                    f"{ratio(step[base], seconds):.2f}",
                    f"{BATCH / median(seconds):,.0f}",
                    f"{469 * median(seconds):.1f}",
                ]
                for name, seconds in step.items()
            ],
        )
        print("\nSpeedup is over the baseline with 4 workers.")
        in_rounds = sorted(a / b for a, b in zip(step[ours], step[only], strict=True))
        print(f"train_gan, x matmuls, by round: {' '.join(f'{x:.2f}' for x in in_rounds)}")

        figures["shares"] = shares(runs[ours])
        table(
            "Where the time of train_gan goes:",
            ["", "share of the step"],
            [[kind, f"{share:.1%}"] for kind, share in figures["shares"].items()],
        )
        del runs

        configurations = {}
        threads = torch.get_num_threads()
        for batch in (32, 128, 512, 2048, 4096):
            configurations[f"batch size {batch}"] = (GEN, DISC, batch, threads)
        for count in (1, 2):
            configurations[f"{count} thread{'s' * (count > 1)}"] = (GEN, DISC, BATCH, count)
        for factor in (1, 2, 4):
            gen, disc = ([factor * width for width in widths] for widths in (GEN, DISC))
            configurations[f"width x {factor}"] = (gen, disc, BATCH, threads)
        rows = figures["cost"] = {}
        for name, (gen, disc, batch, count) in configurations.items():
            torch.set_num_threads(count)
            pair = {
                only: matmuls(gen, disc, batch),
                ours: project(folder, gen, disc, batch),
            }
            operands = matmul_operands(gen, disc, batch)
            cost = sum(a.shape[0] * a.shape[1] * b.shape[1] for a, b in operands)
            rows[name] = interleaved(pair, max(4, int(2e10 / cost)), 3)
            rows[name]["images per second"] = batch / median(rows[name][ours])
        torch.set_num_threads(threads)
        table(
            "How the cost grows:",
            ["", "ms per step", "x matmuls", "images per second"],
            [
                [
                    name,
                    f"{median(row[ours]) * 1e3:.2f}",
                    f"{ratio(row[ours], row[only]):.2f}",
                    f"{row['images per second']:,.0f}",
                ]
                for name, row in rows.items()
            ],
        )
    figures["busy"] = busy_machine(folder, SETTINGS)
    table(
        f"One step of train_gan beside {os.cpu_count()} other busy processes:",
        ["OpenMP", "ms idle", "ms busy", "worst ms", "x idle", "worst x"],
        busy_rows(figures["busy"]),
    )
    print()
    for name, value in figures["process"].items():
        print(f"{name}: {value:.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
