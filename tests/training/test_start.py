import numpy as np
import pytest
from scipy import stats

from stanflow.stan.density import CountingTarget, DensityBatch
from stanflow.stan.model import StanModel
from stanflow.training import start as start_module
from stanflow.training.config import TrainConfig
from stanflow.training.start import begin
from stanflow.training.warmstart import mean_field_start

from .targets import TARGET, GaussianTarget, StudentTTarget

ENSEMBLE, MEAN_FIELD, NONE = (
    TrainConfig(start=s, spare_gradients=False) for s in ("ensemble", "mean-field", "none")
)
SPARING = TrainConfig(spare_gradients=True)


def gaussian(location, scale, correlation, dim=2):
    covariance = np.full((dim, dim), correlation) + (1 - correlation) * np.eye(dim)
    return GaussianTarget(np.full(dim, location), scale**2 * covariance)


class Edge(GaussianTarget):
    """N(0, I) up to some distance on both sides of each coordinate, and an error beyond."""

    def __init__(self, distance, dim=1):
        super().__init__(np.zeros(dim), np.eye(dim))
        self.distance = distance

    def log_density_gradient(self, z):
        batch = super().log_density_gradient(z)
        bad = (np.abs(z) > self.distance).any(1)
        return DensityBatch(
            np.where(bad, np.nan, batch.log_density),
            np.where(bad[:, None], np.nan, batch.gradient),
            ~bad,
        )

    def starting_points(self, n, rng):
        return rng.uniform(-self.distance, self.distance, size=(n, self.dim))


@pytest.mark.parametrize("correlation", [0.0, 0.99])
@pytest.mark.parametrize(
    ("location", "scale"), [(0.0, 1.0), (1e6, 1.0), (0.0, 1e-8), (1e6, 1e3), (-1e3, 1e5)]
)
def test_an_ensemble_finds_location_and_scale(location, scale, correlation):
    """Of the marginals, however far, small and correlated; twice their standard deviations."""
    target = gaussian(location, scale, correlation)
    start = begin(target, ENSEMBLE, seed=1)
    np.testing.assert_allclose((start.location - location) / scale, 0, atol=0.15)
    np.testing.assert_allclose(np.exp(start.log_scale) / scale, 2.0, rtol=0.15)
    assert start.points.shape == (256, 2)
    points = (start.points - location) / scale
    np.testing.assert_allclose(points.mean(0), 0, atol=0.3)
    np.testing.assert_allclose(points.std(0), 1, rtol=0.2)
    assert np.corrcoef(points.T)[0, 1] == pytest.approx(correlation, abs=0.2)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize(
    ("location", "scale"), [(0.0, 1.0), (1e6, 1.0), (0.0, 1e-8), (1e6, 1e3), (-1e3, 1e5)]
)
def test_few_gradients_find_location_and_scale_nearly_as_well(location, scale, correlation):
    """Chains with an R-hat of 1.2 differ by 0.66 of the spread within them: it is known to 30 %."""
    target = gaussian(location, scale, correlation)
    start = begin(target, SPARING, seed=1)
    assert target.evaluations < 25_000
    np.testing.assert_allclose((start.location - location) / scale, 0, atol=0.3)
    np.testing.assert_allclose(np.exp(start.log_scale) / scale, 2.0, rtol=0.3)


def test_chains_that_start_as_stans_do_reach_a_posterior_that_is_far_away():
    """Where some stayed behind, the spread of all would be that of the distance."""
    target = gaussian(1e4, 1.0, 0.5, dim=5)
    start = begin(target, ENSEMBLE, seed=3)
    assert np.abs(start.points - 1e4).max() < 6


@pytest.mark.parametrize(
    ("location", "scale"), [([0.0, 100.0], [1.0, 1.0]), ([0.0, 1.0], [1.0, 1e-3])]
)
def test_heavy_tails_widen_the_start_but_do_not_blow_it_up(location, scale):
    """A Cauchy's standard deviation is infinite; its quantiles are not."""
    target = StudentTTarget(location, scale, 1.0)
    start = begin(target, ENSEMBLE, seed=1)
    # Its 95 % quantile is at 6.3, and a normal's at 1.64: 0.7 of the ratio, twice as wide.
    wanted = 2 * 0.7 * 6.314 / 1.645
    np.testing.assert_allclose(np.exp(start.log_scale) / target.scale, wanted, rtol=0.5)
    np.testing.assert_allclose((start.location - location) / target.scale, 0, atol=0.3)


@pytest.mark.parametrize(
    ("distance", "widening"),
    [(4.0, 2.0), (2.5, 2.0**0.5), (1.95, 2.0**0.25)],
)
def test_the_start_is_narrower_where_draws_would_be_rejected(monkeypatch, distance, widening):
    """At most a tenth of the draws may be: 2.5 / 2 standard deviations leave out 21 %, and so on.

    The spread is that of the normal distribution cut off there.
    """
    monkeypatch.setattr(start_module, "_POINTS", 4000)
    target = Edge(distance)
    start = begin(target, ENSEMBLE, seed=1)
    quartile = stats.truncnorm(-distance, distance).ppf(0.75)
    assert np.exp(start.log_scale[0]) == pytest.approx(widening * quartile / 0.6745, rel=0.08)
    rejected = 2 * stats.norm.sf(distance / np.exp(start.log_scale[0]))
    assert rejected < 0.1 + 4 * np.sqrt(0.09 / 4000)
    assert start.log_scale != begin(target, MEAN_FIELD, seed=1).log_scale


def test_no_chain_begins_where_the_density_is_not_finite():
    """It has no gradient to get away by, and would hold its place among the draws."""
    target = Edge(2.0, dim=20)
    fitted = mean_field_start(target, np.random.default_rng(1))
    u = np.random.default_rng(2).standard_normal((256, 20))
    around = target.log_density_gradient(fitted.location + np.exp(fitted.log_scale) * u)
    assert not around.accepted.all()
    start = begin(target, ENSEMBLE, seed=1)
    assert target.log_density_gradient(start.points).accepted.all()


class Cliff(GaussianTarget):
    """A density that rises towards zero, and ends there."""

    def log_density_gradient(self, z):
        inside = z[:, 0] < 0
        gradient = np.where(inside[:, None], 1.0, np.nan)
        return DensityBatch(np.where(inside, z[:, 0], np.nan), gradient, inside)


def test_a_start_beside_a_cliff_is_narrower_than_the_posterior():
    """About the median of an exponential distribution, -0.69, a normal of sd 1 is cut at 24 %."""
    start = begin(Cliff([-1.0], np.eye(1)), ENSEMBLE, seed=1)
    assert -2 < start.location[0] < 0
    rejected = stats.norm.sf(-start.location[0] / np.exp(start.log_scale[0]))
    assert rejected < 0.1 + 4 * np.sqrt(0.09 / 256)


def test_where_no_width_is_free_of_rejections_the_one_with_fewest_is_taken(monkeypatch):
    target = Edge(1.95)
    usual = begin(target, ENSEMBLE, seed=1)
    monkeypatch.setattr(start_module, "_MOST_REJECTED", -1.0)
    narrower = begin(target, ENSEMBLE, seed=1)
    assert narrower.location == usual.location
    # Not at all or by a quarter of the usual widening, which is by 2, and at least to half.
    assert usual.log_scale - narrower.log_scale > np.log(2) - 1e-9


def test_chains_that_agree_end_early_and_others_do_not():
    """Two modes that no chain crosses between are seen by R-hat, to which one mode is as good."""
    code = (
        "data { real away; } parameters { real x; } model { target += "
        "log_sum_exp(normal_lupdf(x | -away, 0.05), normal_lupdf(x | away, 0.05)); }"
    )
    evaluations = []
    for away in (0.0, 1.5):
        model = StanModel(stan_code=code, data={"away": away}, engine="embedded")
        target = CountingTarget(model)
        begin(target, ENSEMBLE, seed=1)
        evaluations.append(target.evaluations)
    # 32 chains, 150 transitions fewer, of 8 steps on average
    assert evaluations[1] - evaluations[0] > 0.8 * 32 * 150 * 8


@pytest.mark.parametrize(("dim", "widening"), [(3, 3.0), (40, 3.0**0.5)])
def test_a_mean_field_start_is_wider_than_the_fit(dim, widening):
    """And less so in many dimensions."""
    target = gaussian(5.0, 2.0, 0.3, dim)
    fitted = mean_field_start(target, np.random.default_rng(1))
    start = begin(target, MEAN_FIELD, seed=1)
    np.testing.assert_array_equal(start.location, fitted.location)
    np.testing.assert_allclose(np.exp(start.log_scale - fitted.log_scale), widening)
    u = (start.points - fitted.location) / np.exp(fitted.log_scale)
    assert u.shape == (256, dim)
    assert np.abs(u.mean(0)).max() < 5 / np.sqrt(256)
    assert np.abs(u.std(0) - 1).max() < 5 / np.sqrt(2 * 256)


def test_an_ensemble_widens_less_in_many_dimensions():
    start = begin(gaussian(5.0, 2.0, 0.0, dim=40), ENSEMBLE, seed=1)
    np.testing.assert_allclose(np.exp(start.log_scale) / 2.0, 2.0**0.5, rtol=0.15)


def test_without_a_start_training_begins_where_it_is():
    target = gaussian(5.0, 2.0, 0.0)
    start = begin(target, NONE, seed=1)
    np.testing.assert_array_equal(start.location, [0, 0])
    np.testing.assert_array_equal(start.log_scale, [0, 0])
    expected = target.starting_points(256, np.random.default_rng(1))
    np.testing.assert_array_equal(start.points, expected)
    assert target.evaluations == 0


@pytest.mark.parametrize("calls", [1, 150, 450])
def test_a_start_ends_when_it_is_told_to(calls):
    """In the mean-field fit, or among the chains' transitions; what was found is returned."""
    target = gaussian(1e3, 2.0, 0.5)
    begin(target, ENSEMBLE, seed=1)
    whole, target.evaluations, asked = target.evaluations, 0, []

    def should_stop():
        asked.append(None)
        return len(asked) >= calls

    start = begin(target, ENSEMBLE, 1, should_stop)
    assert len(asked) <= calls + 2
    assert target.evaluations < whole
    if calls <= 150:  # no chains then
        assert target.evaluations <= 16 * (calls + 2) + 64 * 3
    for found in (start.location, start.log_scale, start.points):
        assert np.isfinite(found).all()


def test_an_ensemble_that_was_told_to_end_had_begun():
    """The latest of the calls above is among the transitions, not in the fit before them."""
    asked = []
    target = gaussian(1e3, 2.0, 0.5)
    mean_field_start(target, np.random.default_rng(1), lambda: asked.append(None) or False)
    assert 150 < len(asked) < 450


def test_a_start_follows_its_seed():
    one, again, other = (begin(TARGET, ENSEMBLE, seed) for seed in (1, 1, 2))
    for name in ("location", "log_scale", "points"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert (getattr(one, name) != getattr(other, name)).any()
