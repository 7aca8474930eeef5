"""Networks that stand in for those of models.py while train_torch.py is tested.

They are so simple that what a step returns is known. They note how they are called.
"""

import sys
import weakref
from types import ModuleType
from unittest import mock

import torch
from torch import nn

from contract.part import Mistake, Part, imported, place

REAL, FAKE = 1.0, 0.3  # the logits of all real and all fake images in the tests
modes: dict[str, list[bool]] = {"generator": [], "discriminator": []}  # in training mode, each call
graphs: list[weakref.ref] = []  # of the discriminator's calls: alive as long as the graph is
ARGUMENTS = "z_dim, hidden_dims, output_shape, input_dims, dp_rate"


class GeneratorMLP(nn.Linear):
    """The first pixels of an image are tanh(z), one of the last is tanh(-1)."""

    device = property(lambda self: self.weight.device)

    def __init__(self, z_dim=32, hidden_dims=(), output_shape=(1, 28, 28), dp_rate=0.1):
        super().__init__(z_dim, 784)
        self.z_dim, self.hidden_dims, self.dp_rate = z_dim, [*hidden_dims], dp_rate
        self.output_shape, self.input_dims = output_shape, z_dim
        self.weight.data, self.bias.data = torch.eye(784, z_dim), torch.zeros(784)
        self.bias.data[-2] = -1

    def forward(self, z):
        modes["generator"].append(self.training)
        return super().forward(z).tanh().view(-1, 1, 28, 28)


class DiscriminatorMLP(nn.Linear):
    """The logit is the last pixel + 0.3."""

    device = property(lambda self: self.weight.device)

    def __init__(self, input_dims=784, hidden_dims=(), dp_rate=0.3):
        super().__init__(input_dims, 1)
        self.input_dims, self.hidden_dims, self.dp_rate = input_dims, [*hidden_dims], dp_rate
        self.weight.data, self.bias.data = torch.eye(784)[-1:], torch.tensor([FAKE])

    def forward(self, x):
        modes["discriminator"].append(self.training)
        logits = super().forward(x.flatten(1))
        if logits.grad_fn:
            graphs.append(weakref.ref(logits.grad_fn.metadata.setdefault("", set())))
        return logits


class WithGAN(Part):
    """A part of train_torch.py, tested with a GAN of these networks."""

    file = "train_torch.py"
    name = ""  # of the function that is tested

    @classmethod
    def setUpClass(cls) -> None:
        try:
            cls.models = imported("models.py")
        except Mistake:  # which costs the tasks of models.py
            cls.models = sys.modules["models"] = ModuleType("models")
            vars(cls.models).update(GeneratorMLP=GeneratorMLP, DiscriminatorMLP=DiscriminatorMLP)
            cls.addClassCleanup(sys.modules.pop, "models")
        super().setUpClass()

    def setUp(self) -> None:
        super().setUp()
        networks = {"GeneratorMLP": GeneratorMLP, "DiscriminatorMLP": DiscriminatorMLP}
        for module in (self.models, self.tested):
            mock.patch.multiple(module, create=True, **networks).start()
        self.addCleanup(mock.patch.stopall)
        for notes in (*modes.values(), graphs):
            notes.clear()
        self.make()

    def make(self) -> None:
        """A new model, its networks by name, and a batch of 6 real images."""
        self.model = self.attempt("GAN", self.tested.GAN, [16], [12], 0.1, 0.3, 8)
        self.networks = {n: getattr(self.model, n) for n in ("generator", "discriminator")}
        self.x_real = torch.rand(6, 1, 28, 28) * 2 - 1
        self.x_real[:, :, -1, -1] = REAL - FAKE

    def explained(self, error: Exception) -> str:
        if isinstance(getattr(error, "obj", None), GeneratorMLP | DiscriminatorMLP):
            return f" (the networks of this test are not yours, but have {ARGUMENTS})"
        return ""

    def check_device(self, what: str, function, *arguments) -> None:
        """Code for the CPU alone is found on "meta", where tensors have no values."""
        self.make()
        self.model.to("meta")
        try:
            function(*arguments)
        except Exception as error:
            if "not on the expected device" in str(error):  # and not loss.item(), which is right
                where = place(error.__context__ or error, self.file)
                fix = "device=self.device or .to(self.device) is missing"
                self.fail(f"{where}: {what} leaves a tensor on the CPU, and fails on a GPU: {fix}")
