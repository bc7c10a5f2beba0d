"""What the embedded engine cannot do, and says so; what is known of its compiled programs."""

import base64
import os

import pytest

from stanflow.errors import BeyondEmbeddedError, DataError, EngineError
from stanflow.stan import embedded
from stanflow.stan.model import StanModel


def test_a_program_beyond_the_embedded_engine_names_the_other():
    code = "parameters { tuple(real, real) t; } model { t.1 ~ normal(0, 1); t.2 ~ normal(0, 1); }"
    with pytest.raises(EngineError, match=r"cannot run .*STuple.*--engine native") as caught:
        StanModel(stan_code=code, engine="embedded")
    assert "doctor" in str(caught.value)


def test_what_the_embedded_engine_lacks_in_transformed_data_is_not_the_datas_fault():
    code = (
        "transformed data { real t = trace([[1, 2], [3, 4]]); } "
        "parameters { real x; } model { x ~ normal(t, 1); }"
    )
    with pytest.raises(BeyondEmbeddedError, match=r"cannot run .*unsupported function trace"):
        StanModel(stan_code=code, engine="embedded")


def test_quantities_that_the_embedded_engine_would_leave_out_are_refused():
    code = """
    parameters { real x; } model { x ~ normal(0, 1); }
    generated quantities { complex z = to_complex(x, 2); }
    """
    with pytest.raises(EngineError, match=r"cannot compute the generated quantities"):
        StanModel(stan_code=code, engine="embedded")
    assert "STANLI_NO_INTERPRETER" not in os.environ
    empty = "parameters { real x; } model { x ~ normal(0, 1); } generated quantities { if (1) { } }"
    assert StanModel(stan_code=empty, engine="embedded").columns == ("x",)


def test_a_size_that_only_the_engine_can_work_out_is_the_datas_fault():
    code = "data { int N; vector[N ? N : 1] y; } parameters { real x; } model { x ~ normal(0, 1); }"
    with pytest.raises(DataError, match="refuses the data"):
        StanModel(stan_code=code, data={"N": -2, "y": []}, engine="embedded")


def test_arrays_of_tuples_as_data_name_the_other_engine():
    code = (
        "data { array[2] tuple(int, real) t; } parameters { real x; } model { x ~ std_normal(); }"
    )
    with pytest.raises(EngineError, match="--engine native"):
        StanModel(stan_code=code, data={"t": [(1, 2.0), (3, 4.0)]}, engine="embedded")


@pytest.mark.parametrize(
    "near_miss",
    [
        lambda payload: payload.replace(b"poisson_lpmf\x00", b"poisson_lpmf\x02"),
        lambda payload: payload.replace(b"normal_lpdf\x01", b"normal_lpdf\x03"),
        lambda payload: payload.replace(b"gamma_lpdf\x01", b"gamma_lpdf\x00"),
    ],
)
def test_a_compiled_program_that_only_resembles_the_format_is_not_trusted(near_miss, monkeypatch):
    compile_program = embedded.stanli.stan_to_mir

    def other_format(code, **options):
        mir = compile_program(code, **options)
        payload = base64.b64decode(mir.removeprefix(embedded._MIR_PREFIX))
        return embedded._MIR_PREFIX + base64.b64encode(near_miss(payload)).decode()

    embedded._flag_is_understood.cache_clear()
    assert embedded._flag_is_understood()
    embedded._flag_is_understood.cache_clear()
    monkeypatch.setattr(embedded.stanli, "stan_to_mir", other_format)
    assert not embedded._flag_is_understood()
    embedded._flag_is_understood.cache_clear()


def test_names_that_merely_end_like_a_density_are_left_alone():
    name = b"x" * 8 + b"_lpdf"
    call = b"\x04\x00" + (len(name) + 1).to_bytes(4, "little") + name + b"\x01"
    mir = embedded._MIR_PREFIX + base64.b64encode(call).decode()
    assert embedded._clear_flags(mir) == mir


def test_the_meaning_of_the_density_flag_is_confirmed_before_use(monkeypatch):
    """With another format of the compiled program, no constant is reported as known."""
    embedded._flag_is_understood.cache_clear()
    monkeypatch.setattr(embedded, "_MIR_PREFIX", "STANLI9:")
    model = StanModel(
        stan_code="parameters { real x; } model { x ~ normal(0, 1); }", engine="embedded"
    )
    constant = model.normalizing_constant
    embedded._flag_is_understood.cache_clear()
    assert not constant.known
    assert "cannot be told" in constant.reason
