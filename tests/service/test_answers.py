"""Answers that are large come in parts."""

import numpy as np
import pyarrow
import pytest

from .servers import serving

COLUMNS, DRAWS = 110, 10_000
WIDE = f"""
parameters {{ real mu; }}
model {{ mu ~ normal(0, 1); }}
generated quantities {{
  vector[{COLUMNS}] z;
  for (i in 1:{COLUMNS}) z[i] = i == 7 ? not_a_number() : mu + i;
}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("answers") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def url(server):
    job = server.begin("nuts", server.model(WIDE, "wide"), chains=1, warmup=100, draws=DRAWS)
    assert server.wait(job)["status"] == "succeeded"
    return f"/v1/nuts/{job}/draws"


@pytest.fixture(scope="module")
def arrow(server, url):
    answer = server.client.get(url, params={"format": "arrow", "limit": 10**6})
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    return answer.content


def test_draws_come_as_arrow_some_at_a_time(arrow):
    with pyarrow.ipc.open_stream(arrow) as stream:
        batches = list(stream)
    assert sum(batch.num_rows for batch in batches) == DRAWS
    assert len(batches) == 3
    assert batches[0].num_rows * batches[0].num_columns <= 500_000


def test_a_page_of_json_has_a_million_numbers_at_most(server, url, arrow):
    table = pyarrow.ipc.open_stream(arrow).read_all()
    names, rows = table.column_names, []
    while len(rows) < DRAWS:
        page = server.client.get(url, params={"limit": DRAWS, "offset": len(rows)}).json()
        assert list(page) == ["columns", "offset", "total", "rows"]
        assert (page["columns"], page["offset"], page["total"]) == (names, len(rows), DRAWS)
        assert len(page["rows"]) == min(10**6 // len(names), DRAWS - len(rows))
        rows += page["rows"]
    assert {row[names.index("z.7")] for row in rows} == {None}
    found = np.array(rows, dtype=np.float64)
    expected = np.column_stack([column.to_numpy() for column in table.columns])
    np.testing.assert_array_equal(found, expected)


def test_pages_may_be_empty_or_narrow(server, url):
    beyond = server.client.get(url, params={"offset": DRAWS}).json()
    assert (beyond["rows"], beyond["total"]) == ([], DRAWS)
    narrow = server.client.get(url, params={"columns": ["z.2", "mu"], "limit": 5}).json()
    assert narrow["columns"] == ["z.2", "mu"]
    assert [row[0] - row[1] for row in narrow["rows"]] == pytest.approx([2.0] * 5)
    empty = server.client.get(url, params={"format": "arrow", "offset": DRAWS}).content
    assert pyarrow.ipc.open_stream(empty).read_all().num_rows == 0


def test_what_is_not_there_is_said_before_anything_comes(server, url):
    for form in ("json", "arrow"):
        refused = server.client.get(url, params={"format": form, "columns": ["mu", "nu"]})
        assert (refused.status_code, refused.json()["kind"]) == (422, "usage")
