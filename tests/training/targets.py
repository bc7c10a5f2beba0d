"""Targets of known posterior, and a training run on them."""

import numpy as np

from stanflow.flow.realnvp import build_flow
from stanflow.stan.density import CountingTarget, DensityBatch, NormalizingConstant, Target
from stanflow.training.config import TrainConfig
from stanflow.training.limits import Limits
from stanflow.training.start import begin
from stanflow.training.trainer import seconds_spent, train


class GaussianTarget(Target):
    """N(mean, covariance), with its own normalizing constant left out."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = np.asarray(mean, float), np.asarray(covariance, float)
        self.precision = np.linalg.inv(self.covariance)
        self.evaluations = 0

    @property
    def dim(self):
        return len(self.mean)

    @property
    def normalizing_constant(self):
        log_det = np.linalg.slogdet(2 * np.pi * self.covariance)[1]
        return NormalizingConstant(-0.5 * log_det, known=True, reason="closed form")

    def log_density_gradient(self, z):
        self.evaluations += len(z)
        gradient = -(z - self.mean) @ self.precision
        log_density = 0.5 * np.einsum("ij,ij->i", z - self.mean, gradient)
        return DensityBatch(log_density, gradient, np.ones(len(z), bool))

    def starting_points(self, n, rng):
        return rng.uniform(-2, 2, size=(n, self.dim))


class HalfGaussian(GaussianTarget):
    """As above where the first coordinate is positive, and an error elsewhere."""

    def log_density_gradient(self, z):
        batch = super().log_density_gradient(z)
        bad = z[:, 0] <= 0
        batch.log_density[bad] = np.nan
        batch.gradient[bad] = np.nan
        return DensityBatch(batch.log_density, batch.gradient, ~bad)

    def starting_points(self, n, rng):
        return np.abs(super().starting_points(n, rng))


class StudentTTarget(Target):
    """Independent Student-t coordinates; their constants are left out."""

    def __init__(self, location, scale, degrees_of_freedom):
        self.location, self.scale = np.asarray(location, float), np.asarray(scale, float)
        self.nu = degrees_of_freedom
        self.evaluations = 0

    @property
    def dim(self):
        return len(self.location)

    def log_density_gradient(self, z):
        self.evaluations += len(z)
        u = (z - self.location) / self.scale
        log_density = (-0.5 * (self.nu + 1) * np.log1p(u**2 / self.nu)).sum(1)
        gradient = -(self.nu + 1) * u / (self.nu + u**2) / self.scale
        return DensityBatch(log_density, gradient, np.ones(len(z), bool))

    def starting_points(self, n, rng):
        return rng.uniform(-2, 2, size=(n, self.dim))


TARGET = GaussianTarget([1.0, -2.0, 30.0], [[1.0, 0.8, 0], [0.8, 1.0, 0], [0, 0, 100.0]])


def trained(flow_config, target=TARGET, seed=1, *, spare_gradients=False, **settings):
    flow = build_flow(flow_config, target.dim, seed)
    return flow, begin_and_train(
        flow, target, TrainConfig(spare_gradients=spare_gradients, **settings), seed
    )


def begin_and_train(
    flow, target, config, seed, *, checkpoint=None, on_step=lambda step: None, grows=False
):
    keep = None
    if checkpoint is not None:
        checkpoint.read()
        keep = checkpoint.keep("training")
    counting = CountingTarget(target)
    with Limits(config.max_seconds, seconds_spent(keep)) as limits:
        start = begin(counting, config, seed, limits.end_the_start)
        return train(
            flow, counting, start, config, seed,
            limits=limits, on_step=on_step, keep=keep, grows=grows,
        )  # fmt: skip
