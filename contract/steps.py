"""Tasks 5 and 6: the two training steps."""

import numpy as np
import torch

from contract.stand_ins import FAKE, REAL, WithGAN


def softplus(logit: float) -> float:
    """-log(1 - sigmoid(logit)); of -logit it is -log sigmoid(logit)."""
    return np.logaddexp(0, logit)


class StepTest(WithGAN):
    """What holds for both steps, and for train_gan, which calls them."""

    def step(self, name: str) -> torch.Tensor:
        """The loss that generator_step or discriminator_step returns."""
        result = self.attempt(name, getattr(self.model, name), self.x_real)
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
        self.check(pair and "loss" in result[1], f'{name} must return loss, {{"loss": loss, ...}}')
        self.check(result[0].numel() == 1, f"{name}: the loss must be a mean over the batch")
        vectors = [key for key, value in result[1].items() if torch.as_tensor(value).numel() > 1]
        self.check(not vectors, f"{name}: values to log must be scalars, {vectors} are not")
        return result[0]

    def check_step_device(self, name: str) -> None:
        self.check_device(name, lambda: getattr(self.model, name)(self.x_real.to("meta")))


class OneStepTest(StepTest):
    """What holds for each step alone."""

    right = 0.0  # the loss of the docstring
    accepted: tuple[float, ...]
    mistakes: dict[str, float]
    logged: dict[str, float] = {}  # noqa: RUF012  # what TensorBoard's charts show, if it is logged

    def test_loss(self):
        loss, whole = self.step(self.name).item(), max(self.accepted)
        wrong = {
            **self.mistakes,
            "a sum, not a mean": 6 * whole,
            "the mean of a mean": whole / 6,
            "the sign is wrong": -whole,
        }
        known = [why for why, x in wrong.items() if np.isclose(loss, [x, x / 2], 1e-3).any()]
        penalty = getattr(self.model, "r1", 0) / 2  # D's gradient has the length 1 here
        if penalty and np.isclose(loss, np.add(self.accepted, penalty), 1e-3).any():
            known = ["with the penalty, which train_gan adds"]
        of = f"loss {loss:.4f} of logits {REAL} for real and {FAKE} for fake images"
        why = " or ".join(known) or "another loss, with these logits"
        correct = np.isclose(loss, self.accepted, 1e-3).any()
        self.check(correct, f"{self.name}: {of}, not {self.right:.4f}: {why}")
        self.model.discriminator.bias.data.fill_(-150 if self.name[0] == "g" else 150)
        sure = "F.logsigmoid and binary_cross_entropy_with_logits do not round sigmoids to 0"
        self.check(self.step(self.name).isfinite(), f"{self.name}: infinite if D is sure: {sure}")

    def test_what_is_logged(self):
        _, values = getattr(self.model, self.name)(self.x_real)
        for name, right in self.logged.items():
            value = torch.as_tensor(values.get(name, right)).item()
            what = f"{self.name} logs {value:.3f} as {name}, not {right:.3f}"
            self.check(np.isclose(value, right, 1e-3), what)

    def test_gradient(self):
        network, loss = self.name.split("_")[0], self.step(self.name)
        self.check(loss.requires_grad, f"{self.name}: no gradient: no_grad() or detach()?")
        try:
            loss.backward()
        except RuntimeError as error:
            again = "a second time" in str(error)
            self.check(not again, f"{self.name} calls backward(), which train_gan does")
            raise
        grads = {name: net.bias.grad is not None for name, net in self.networks.items()}
        self.check(grads[network], f"{self.name}: the {network} gets no gradient")
        if network == "discriminator" and grads["generator"]:
            leak = "discriminator_step: gradients reach the generator, which costs time"
            self.hint(f"{leak}: detach() the fake images")

    def test_images(self):
        seen, fakes, real = [], [], self.x_real.flatten(1)
        self.model.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        for _ in range(2):
            seen.clear()
            self.step(self.name)
            images = torch.cat([x.flatten(1) for x in seen])
            same = (images[:, None] == real).all(2)
            given = self.name[0] == "g" or same.any(0).all()
            self.check(given, f"{self.name}: D does not see x_real")
            fakes.append(images[~same.any(1)])
            count = f"{len(fakes[-1])} fake images for 6 real ones"
            self.check(len(fakes[-1]) == 6, f"{self.name}: {count}")
        new = len(torch.cat(fakes).unique(dim=0)) == 12
        again = "the same fake images again: each step needs new latents, one per image"
        self.check(new, f"{self.name}: {again}")

    def test_device(self):
        self.check_step_device(self.name)


class DiscriminatorStepTest(OneStepTest):
    title, name = "task 5, discriminator_step", "discriminator_step"
    real, fake = softplus(-REAL), softplus(FAKE)  # -log D(x), -log(1 - D(G(z)))
    right, accepted = (real + fake) / 2, ((real + fake) / 2, real + fake)
    mistakes = {  # noqa: RUF012
        "swapped labels": softplus(REAL) + softplus(-FAKE),
        "1 - logit, where the target should be 0": real + softplus(FAKE - 1),
        "a sigmoid too many": softplus(-np.exp(-real)) + softplus(np.exp(-softplus(-FAKE))),
        "the loss of real images alone": real,
        "the loss of fake images alone": fake,
        "F.binary_cross_entropy takes probabilities, not logits": -np.log(REAL) - np.log(1 - FAKE),
    }
    logged = {  # noqa: RUF012
        "probability_real": np.exp(-real),
        "probability_fake": np.exp(-softplus(-FAKE)),
        "accuracy_real": 1.0,
        "accuracy_fake": 0.0,
    }


class GeneratorStepTest(OneStepTest):
    title, name = "task 6, generator_step", "generator_step"
    right = softplus(-FAKE)
    accepted = right, right / 2
    mistakes = {  # noqa: RUF012
        "swapped labels": softplus(FAKE),
        "log(1 - D(G(z))) saturates": -softplus(FAKE),
        "1 - logit, and a target of 0": softplus(1 - FAKE),
        "a sigmoid too many": softplus(-np.exp(-softplus(-FAKE))),
        "F.binary_cross_entropy takes probabilities, not logits": -np.log(FAKE),
    }
