import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stanflow.statistics.weighted_quantiles import weighted_quantiles

PROBABILITIES = np.linspace(0, 1, 21)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_equal_weights_give_definition_five_of_hyndman_and_fan(draws):
    x = np.array(draws)
    ours = weighted_quantiles(x, np.full(len(x), 1 / len(x)), PROBABILITIES)
    np.testing.assert_allclose(
        ours, np.quantile(x, PROBABILITIES, method="hazen"), rtol=1e-9, atol=1e-6
    )


def test_weighted_draws_have_the_quantiles_of_what_they_are_weighted_to():
    z = np.random.default_rng(1).normal(0, 2, size=200_000)
    weights = np.exp(stats.norm.logpdf(z, 1, 1) - stats.norm.logpdf(z, 0, 2))
    found = weighted_quantiles(z, weights / weights.sum(), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(found, stats.norm.ppf([0.05, 0.5, 0.95], 1, 1), atol=0.02)
