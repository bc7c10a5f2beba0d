import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from stanflow.errors import UsageError
from stanflow.stan import batch, engine
from stanflow.stan.model import StanModel

CODE = """
data { int N; vector[N] y; }
parameters { real mu; real<lower=0> sigma; }
model {
  if (mu > 3) reject("too large");
  if (mu < -3) target += not_a_number() * mu;
  y ~ normal(mu, sigma);
}
generated quantities { real draw = normal_rng(mu, sigma); }
"""


@pytest.fixture(scope="module")
def model():
    y = np.random.default_rng(0).normal(size=2000)
    return StanModel(stan_code=CODE, data={"N": len(y), "y": y}, engine="embedded")


@pytest.fixture(scope="module")
def z():
    rng = np.random.default_rng(1)
    return np.column_stack([rng.uniform(-4, 4, 500), rng.normal(size=500)])


def evaluator(model, threads, *, compiled=True):
    library = batch.compiled_loop() if compiled else None
    return batch.BatchEvaluator(model._loaded.stan_model, threads, library)


@pytest.fixture
def _built():
    if batch.compiled_loop() is None:
        pytest.skip("the compiled loop was not built with the package")


@pytest.mark.usefixtures("_built")
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_compiled_loop_gives_what_the_python_loop_gives(model, z, threads):
    plain, compiled = evaluator(model, 1, compiled=False), evaluator(model, threads)
    for ours, expected in zip(
        compiled.log_density_gradient(z), plain.log_density_gradient(z), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    seeds = np.arange(len(z), dtype=np.uint32)
    for include_gq in (True, False):
        both = [
            e.constrain(z, seeds, include_tp=True, include_gq=include_gq) for e in (compiled, plain)
        ]
        for ours, expected in zip(*both, strict=True):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_log_density_alone_is_the_one_with_its_gradient(model, z, threads, compiled):
    batches = evaluator(model, threads, compiled=compiled)
    log_density, _, status = batches.log_density_gradient(z)
    assert len(set(status)) == 3
    np.testing.assert_array_equal(batches.log_density(z), log_density)


@pytest.mark.parametrize("compiled", [True, False])
def test_rows_are_marked_by_what_went_wrong(model, z, compiled):
    log_density, gradient, status = evaluator(model, 2, compiled=compiled).log_density_gradient(z)
    threw, not_finite = z[:, 0] > 3, z[:, 0] < -3
    assert threw.any()
    assert not_finite.any()
    np.testing.assert_array_equal(status == batch.THREW, threw)
    np.testing.assert_array_equal(status == batch.DENSITY_NOT_FINITE, not_finite)
    np.testing.assert_array_equal(status == batch.OK, ~threw & ~not_finite)
    assert np.isnan(log_density[threw]).all()
    assert np.isnan(gradient[threw]).all()
    assert np.isfinite(gradient[status == batch.OK]).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_gradient_that_is_not_finite_is_marked(compiled):
    code = "parameters { real x; } model { target += acos(x); }"
    model = StanModel(stan_code=code, engine="embedded")
    _, gradient, status = evaluator(model, 1, compiled=compiled).log_density_gradient(
        np.array([[0.5], [1.0], [0.0]])
    )
    assert gradient[1, 0] == -np.inf
    np.testing.assert_array_equal(status, [batch.OK, batch.GRADIENT_NOT_FINITE, batch.OK])


@pytest.mark.parametrize("compiled", [True, False])
def test_every_coordinate_of_a_gradient_is_looked_at(compiled):
    code = "parameters { vector[3] x; } model { target += acos(x[3]) - x[1]; }"
    model = StanModel(stan_code=code, engine="embedded")
    points = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 1.0]])
    _, _, status = evaluator(model, 1, compiled=compiled).log_density_gradient(points)
    np.testing.assert_array_equal(status, [batch.OK, batch.GRADIENT_NOT_FINITE])


@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (2,), (1, 3, 2)])
def test_draws_of_another_shape_are_refused(model, shape):
    """The loop in C would read beyond them."""
    for call in (model.log_density_gradient, model.log_density, model.constrain):
        with pytest.raises(ValueError, match=r"shape \(B, 2\)"):
            call(np.zeros(shape))


def test_threads_are_limited_to_what_the_engine_allows(monkeypatch):
    def open_without_threads(*arguments):
        loaded, decision = engine.open_model(*arguments)
        return replace(loaded, thread_safe=False), decision

    monkeypatch.setattr("stanflow.stan.model.open_model", open_without_threads)
    code = "parameters { real x; } model { x ~ normal(0, 1); }"
    assert StanModel(stan_code=code, engine="embedded", threads=2).threads == 1
    monkeypatch.undo()
    assert StanModel(stan_code=code, engine="embedded", threads=2).threads == 2
    with pytest.raises(UsageError, match="threads must be at least 1"):
        StanModel(stan_code=code, engine="embedded", threads=0)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.usefixtures("_built")
def test_a_large_batch_wakes_other_threads_and_a_small_one_does_not(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, numpy as np\n"
        "from stanflow.stan.model import StanModel\n"
        "y = np.zeros(20_000)\n"
        "code = 'data { int N; vector[N] y; } parameters { real m; } model { y ~ normal(m, 1); }'\n"
        "data = {'N': len(y), 'y': y}\n"
        "model = StanModel(stan_code=code, data=data, engine='embedded', threads=3)\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); model.log_density_gradient(np.zeros((1, 1))); small = count()\n"
        "model.log_density_gradient(np.zeros((500, 1))); large = count()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert count() == 1\n"
        "    model.log_density_gradient(np.zeros((500, 1)))\n"
        "    os._exit(count())\n"
        "forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "print(small - before, large - before, forked)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "2", "3"]


def test_each_row_has_a_generator_of_its_own(model):
    """The same seed in another row, batch or order gives the same draw."""
    z, seeds = np.zeros((6, 2)), np.array([5, 6, 7, 7, 6, 5], dtype=np.uint32)
    values, _ = evaluator(model, 2).constrain(z, seeds, include_tp=True, include_gq=True)
    np.testing.assert_array_equal(values, values[::-1])
    assert len(np.unique(values[:3, -1])) == 3


def test_an_empty_batch_is_an_empty_answer(model):
    for compiled in (True, False):
        log_density, gradient, status = evaluator(model, 2, compiled=compiled).log_density_gradient(
            np.empty((0, 2))
        )
        assert log_density.shape == status.shape == (0,)
        assert gradient.shape == (0, 2)


@pytest.mark.usefixtures("_built")
def test_calls_from_several_python_threads_do_not_mix(model, z):
    expected = evaluator(model, 1).log_density_gradient(z)[0]
    wrong = []

    def work(rows):
        for _ in range(200):
            found = evaluator(model, 2).log_density_gradient(np.ascontiguousarray(z[rows]))[0]
            if not np.array_equal(found, expected[rows], equal_nan=True):
                wrong.append(rows)

    threads = [
        threading.Thread(target=work, args=(slice(i, None, 4),), daemon=True) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "one waits for helpers that have left"
    assert wrong == []


@pytest.mark.usefixtures("_built")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_pool_works_in_a_forked_child(model, z):
    expected = evaluator(model, 2).log_density_gradient(z)[0]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        queue.put(evaluator(model, 2).log_density_gradient(z)[0])

    process = context.Process(target=child)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    np.testing.assert_array_equal(queue.get(), expected)


def test_the_package_works_without_the_compiled_loop(tmp_path):
    """As after an installation without a C compiler: same numbers, and `doctor` says so."""
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: (\n"
        "    None if name == 'stanflow.kernels._kernels' else find_spec(name, *a))\n"
        "from stanflow.cli.main import main\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, script, "doctor"], capture_output=True, text=True, check=True
    )
    assert "compiled loop         not built" in run.stdout


def test_cores_are_those_this_process_may_use():
    assert 1 <= batch.available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("5000 100000", 1), ("", 8)]
)
def test_a_share_of_the_processors_counts_as_so_many_cores(monkeypatch, tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(batch, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert batch.available_cores() == cores
