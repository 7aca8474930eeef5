"""Task 7: the training loop."""

import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from contract.part import Mistake, Part
from contract.stand_ins import graphs, modes
from contract.steps import StepTest
from utils import SummaryWriter, TensorBoardLogger

NETWORKS = "generator", "discriminator"


class Trains(Part):
    """Calls train_gan."""

    file = "train_torch.py"

    def train(self, batches: Sequence, optimizers: Sequence, window: int = 1) -> None:
        """An epoch; notes in `self.logged` what is logged."""
        self.logged: list[tuple[str, float]] = []
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            writer.add_scalar = lambda tag, scalar_value, global_step=None, **_: self.logged.append(
                (tag, torch.as_tensor(scalar_value).item())
            )
            loggers = [TensorBoardLogger(writer, window, name) for name in NETWORKS]
            arguments = self.model, batches, *loggers, *optimizers
            self.attempt("train_gan", self.tested.train_gan, *arguments)


class TrainGANTest(Trains, StepTest):
    title = "task 7, train_gan"

    def setUp(self):
        super().setUp()
        self.model.r1 = 0  # the penalty has tests of its own
        self.batches = [(self.x_real, torch.zeros(6))] * 5

    def step(self, name: str) -> torch.Tensor:
        try:
            return super().step(name)
        except Mistake:
            self.fail(f"{self.file}: train_gan is tested after {name} is mended")

    def epoch(self, window: int = 1, **rates: float) -> None:
        """An epoch of 5 batches; notes the gradients at each step of an optimizer, too."""
        self.gradients, optimizers = {name: [] for name in NETWORKS}, []
        for key, net in self.networks.items():

            def note(*_, key=key, bias=net.bias):
                self.gradients[key].append(np.nan if bias.grad is None else bias.grad[-1].item())

            optimizers.append(torch.optim.Adam(net.parameters(), rates.get(key, 0.0)))
            optimizers[-1].register_step_pre_hook(note)
        self.model.eval()
        try:
            self.train(self.batches, optimizers, window)
        except Mistake:
            for name in NETWORKS:
                self.step(f"{name}_step")  # whose mistake it may be
            raise

    def gradient(self, network: str, step: str) -> float:
        """The gradient of a step's loss, of the network's last bias."""
        bias = self.networks[network].bias
        (gradient,) = torch.autograd.grad(self.step(f"{step}_step"), bias, allow_unused=True)
        return 0.0 if gradient is None else gradient[-1].item()

    def test_gradients(self):
        self.epoch()
        for name, other in (NETWORKS, NETWORKS[::-1]):
            found, right = self.gradients[name], self.gradient(name, name)
            what = f"train_gan: the {name}'s optimizer"
            self.check(len(found) == 5, f"{what} makes {len(found)} steps in 5 batches")
            why = f"does not follow {name}_step: no zero_grad(), or swapped?"
            if np.isclose(found[0], right + self.gradient(name, other), 1e-3):
                why = "follows both losses: zero_grad() and backward() belong right before its step"
            self.check(np.isclose(found[0], right, 1e-3), f"{what} {why}")
            same = np.isclose(found, right, 1e-3).all()
            self.check(same, f"{what} follows gradients that add up: zero_grad() missing")

    def test_which_network_is_moved(self):
        for name in NETWORKS:
            before = {key: net.bias.clone() for key, net in self.networks.items()}
            self.epoch(**{name: 0.1})
            moved = [key for key in before if not torch.equal(before[key], self.networks[key].bias)]
            self.check(moved == [name], f"train_gan: the {name}'s optimizer moves {moved}")

    def test_logs(self):
        self.epoch()
        for name in NETWORKS:
            losses = [value for tag, value in self.logged if tag == f"{name}/loss"]
            self.check(len(losses) == 5, f"train_gan: the {name}'s logger gets {len(losses)} of 5")
            right = np.isclose(losses[0], self.step(f"{name}_step").item(), 1e-3)
            self.check(right, f"train_gan: {name}_step's dictionary is not logged: swapped?")

    def test_modes_and_memory(self):
        self.epoch()
        for name, seen in modes.items():
            what = f"train_gan: the {name} has no dropout: model.train() is missing"
            self.check(seen and all(seen), what)
        kept = sum(graph() is not None for graph in graphs)
        self.check(kept < 3, f"graphs of {kept} calls stay in memory: detach() what is kept")

    def test_steps_are_counted_and_loggers_flushed(self):
        if hasattr(self.model, "steps_done"):
            self.model.steps_done = 7
            self.epoch(window=2)
            count = f"{self.model.steps_done - 7} is added to model.steps_done in 5 batches"
            what = f"train_gan: {count}; scores and images are logged at that step"
            self.check(self.model.steps_done == 12, what)
            means = [tag for tag, _ in self.logged].count("generator/loss")
            self.check(means == 3, "train_gan: flush both loggers after the last batch, only then")

    def test_device(self):
        try:
            for name in NETWORKS:
                self.check_step_device(f"{name}_step")
        except Mistake:  # which is named in the row of the step
            return
        sgd = [torch.optim.SGD(net.parameters(), 0.1) for net in self.networks.values()]
        self.check_device("train_gan", lambda: self.train(self.batches, sgd, window=50))
