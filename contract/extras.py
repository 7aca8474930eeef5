"""Tasks 8 to 10, which a train_torch.py need not have: optimizers, penalty, average."""

import argparse

import numpy as np
import torch

from contract.stand_ins import WithGAN
from contract.training import NETWORKS, Trains


class OptimizersTest(WithGAN):
    title = "task 8, make_optimizers"

    def test_rates_and_parameters(self):
        if hasattr(self.tested, "make_optimizers"):
            args = argparse.Namespace(lr=0.1, lr_disc=0.2, betas=[0.3, 0.4])
            made = self.attempt("make_optimizers", self.tested.make_optimizers, self.model, args)
            pair = isinstance(made, tuple | list) and len(made) == 2
            right = pair and all(isinstance(optimizer, torch.optim.Adam) for optimizer in made)
            self.check(right, "make_optimizers must return an Adam for each network, two of them")
            for name, optimizer, lr in zip(NETWORKS, made, (0.1, 0.2), strict=True):
                (group,) = optimizer.param_groups
                found, what = (group["lr"], *group["betas"]), f"make_optimizers: the {name}'s has"
                self.check(found == (lr, 0.3, 0.4), f"{what} other rates or betas: {found}")
                self.check(not group["weight_decay"], f"{what} a weight decay")
                of = {*map(id, group["params"])} == {*map(id, self.networks[name].parameters())}
                self.check(of, f"{what} parameters of something else")


class OptionalTest(Trains, WithGAN):
    """What holds for both optional tasks."""

    optional = True

    def test_is_called(self):
        written, calls = getattr(self.model, self.name, None), []

        def noted(*given):
            calls.append(given)
            return written(*given)

        setattr(self.model, self.name, noted)
        adams = [torch.optim.Adam(net.parameters()) for net in self.networks.values()]
        try:
            self.train([(self.x_real, torch.zeros(6))] * 20, adams)
        except Exception:  # which is named in the row of train_gan
            return
        self.check(calls or not written, f"train_gan does not call {self.name}")


class PenaltyTest(OptionalTest):
    title, name = "task 9, gradient_penalty", "gradient_penalty"

    def test_value(self):
        if hasattr(self.model, self.name):
            self.model.discriminator.weight.data *= 2  # the length of the gradient of each image
            penalty = self.attempt(self.name, self.model.gradient_penalty, self.x_real)
            right = "4.0, the mean over the images of the gradient's squared length"
            mistakes = {
                4 / 784: "a mean over the pixels",
                24: "a sum over the images",
                2: "no square",
            }
            value = penalty.item()
            why = [
                f": {text}" for wrong, text in mistakes.items() if np.isclose(value, wrong, 1e-3)
            ]
            what = f"{self.name}: {value:.4g}, not {right}{''.join(why)}"
            self.check(np.isclose(value, 4), what)
            self.check(penalty.requires_grad, f"{self.name}: no gradient: create_graph=True?")


class AverageTest(OptionalTest):
    title, name = "task 10, update_average", "update_average"

    def test_weights(self):
        if hasattr(self.model, self.name):
            averaged = self.model.averaged.bias
            for steps, ema, right in [(0, 99, 1), (20, 99, 1 / 5), (100, 3, 1 / 4)]:
                self.model.steps_done, self.model.ema = steps, ema
                averaged.data.fill_(0)
                self.model.generator.bias.data.fill_(1)
                self.attempt(self.name, self.model.update_average)
                found, of = averaged[0].item(), f"with {steps} steps done and an ema of {ema}"
                what = f"{self.name}: a weight of {found:.3g}, not {right:.3g}, {of}"
                self.check(np.isclose(found, right), what)
            averaged.data.fill_(2)
            used = self.attempt("sample", self.model.sample, 1).flatten()[-3].atanh()  # the bias
            self.check(np.isclose(used, 2, 1e-3), "generate does not use self.averaged")
