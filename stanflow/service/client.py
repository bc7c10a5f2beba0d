"""A client of the service, with the verbs of the local interface.

Examples
--------
::

    client = stanflow.Client("http://127.0.0.1:8000", token="...")
    model = client.model("eight_schools.stan")
    fit = client.fit(model, data="eight_schools.json", seed=1).result()
    reference = client.nuts(model, data="eight_schools.json", seed=1).result()
    print(fit["verdict"], client.compare(fit, reference).result()["agreement"])
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pandas as pd
import stanio

from stanflow.errors import DataError, StanFlowError, UsageError, one_line, reason

Data = Mapping[str, Any] | str | PathLike[str] | None

_SECONDS_TO_ANSWER = 120.0
_PATIENCE = 300.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.5, 5.0  # in seconds, before the server is asked again
_AWAY = frozenset({502, 503, 504})
_RESOURCES = {"fit": "fits", "nuts": "nuts", "comparison": "comparisons"}
_ROWS_A_PAGE = 100_000


class ServiceError(StanFlowError):
    """The server refused a request, or a job failed.

    Attributes
    ----------
    problem : dict
        What the server said (RFC 9457); empty where it cannot be reached.
    """

    exit_status = 1

    def __init__(self, message: str, problem: Mapping[str, Any] | None = None) -> None:
        self.problem = dict(problem or {})
        super().__init__(message, str(self.problem.get("output") or ""))


class UnavailableError(ServiceError):
    """The server does not answer for now: it may be starting again."""


@dataclass(frozen=True)
class RemoteModel:
    """A program that the server has compiled."""

    id: str
    name: str
    data: tuple[str, ...]


class Run(Mapping[str, Any]):
    """What came of a job: the keys of ``--json``, and draws.

    Attributes
    ----------
    id, kind : str
    """

    def __init__(self, client: Client, run: str, kind: str, result: Mapping[str, Any]) -> None:
        self.id, self.kind = run, kind
        self._client, self._result = client, result

    def __getitem__(self, key: str) -> Any:
        return self._result[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._result)

    def __len__(self) -> int:
        return len(self._result)

    def __repr__(self) -> str:
        return f"Run({self.kind} {self.id!r})"

    def summary(self, *, weighted: bool = False) -> pd.DataFrame:
        """Return the table of all scalars; of a fit, of its importance-weighted draws if asked."""
        return pd.DataFrame(self["weighted_scalars" if weighted else "scalars"]).set_index("name")

    def draws_pd(self) -> pd.DataFrame:
        """Return all draws, a row each."""
        return self._client._draws(self)

    def save_netcdf(self, path: str | PathLike[str]) -> Path:
        """Write the draws as NetCDF, which ``arviz.from_netcdf`` reads."""
        target = Path(path)
        content = self._client._get(self._url("draws"), format="netcdf").content
        target.write_bytes(content)
        return target

    def save_report(self, path: str | PathLike[str]) -> Path:
        """Write the HTML report of a fit or a comparison."""
        target = Path(path)
        target.write_bytes(self._client._get(self._url("report")).content)
        return target

    def delete(self) -> None:
        """Delete it from the server."""
        self._client._request("DELETE", self._url())

    def _url(self, *parts: str) -> str:
        return "/".join(["/v1", _RESOURCES[self.kind], self.id, *parts])


class Job:
    """A job under way."""

    def __init__(self, client: Client, operation: Mapping[str, Any]) -> None:
        self._client = client
        self.id, self.kind = operation["id"], operation["kind"]

    def status(self) -> str:
        """Return ``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
        return str(self._client._get(self._url()).json()["status"])

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``("step", ...)`` as it trains and ``("operation", ...)`` as its status changes.

        Where training has ended and draws are refined, steps have ``refine``: inverse temperature,
        acceptance, R-hat, log evidence, share and seconds of a round. While the server is away it
        is waited for, as long as the client's `patience` is. Each step and each round is told
        once; the status may be told again.
        """
        last, patience = (-1, 0), self._client._patience()
        while True:
            try:
                for name, told in self._client._events(f"{self._url()}/events"):
                    patience.renew()
                    if name == "step":
                        at = (told["step"], (told.get("refine") or {"round": 0})["round"])
                        if at <= last:  # the server tells all of them again
                            continue
                        last = at
                    yield name, told
                    if name == "operation" and told["done"]:
                        return
                broken = UnavailableError(f"the server told nothing more of the job {self.id}")
            except UnavailableError as error:
                broken = error
            patience.wait(broken)

    def result(self, on_step: Callable[[dict[str, Any]], None] = lambda step: None) -> Run:
        """Wait until the job has ended and return what came of it.

        A server that goes away and comes back meanwhile is waited for: the job goes on with it.

        Parameters
        ----------
        on_step : callable
            Called once with each step that is told of a fit's training, then with each round of
            its refining: the last step, with the round in ``refine``.

        Raises
        ------
        ServiceError
            It failed or was cancelled, or the server was away for longer than the client's
            `patience`.
        """
        operation: dict[str, Any] = {}
        for name, told in self.events():
            if name == "step":
                on_step(told)
            else:
                operation = told
        if operation["status"] != "succeeded":
            failure = operation["failure"] or {"detail": f"the job is {operation['status']}"}
            raise ServiceError(failure["detail"], failure)
        patience = self._client._patience()
        while True:
            try:
                return self._client.run(self.kind, self.id)
            except UnavailableError as error:
                patience.wait(error)

    def cancel(self) -> None:
        """Cancel it."""
        self._client._request("DELETE", self._url())

    def _url(self) -> str:
        return f"/v1/operations/{self.id}"


class _Patience:
    """Waits for a server that is away, longer each time, until that has lasted too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin anew: the server has answered."""
        self._until, self._next = math.inf, _SHORTEST_WAIT

    def wait(self, error: UnavailableError) -> None:
        """Wait before the server is asked again, or raise what it was that it said."""
        now = time.monotonic()
        self._until = min(self._until, now + self._seconds)
        if now >= self._until:
            raise error
        time.sleep(min(self._next, self._until - now))
        self._next = min(2 * self._next, _LONGEST_WAIT)


class Client:
    """A connection to a server.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8000``.
    token : str, optional
        Where the server asks for one.
    timeout : float
        Seconds to wait for an answer; jobs may take longer.
    patience : float
        Seconds for which a server that does not answer is asked again how a job stands: one that is
        started again goes on with its jobs.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = _SECONDS_TO_ANSWER,
        patience: float = _PATIENCE,
    ) -> None:  # fmt: skip
        self._seconds_of_patience = patience
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def model(
        self, stan_file: str | PathLike[str] | None = None, *, stan_code: str | None = None,
        name: str | None = None,
    ) -> RemoteModel:  # fmt: skip
        """Have a program compiled.

        Parameters
        ----------
        stan_file : path, optional
            The program; give this or `stan_code`.
        stan_code : str, optional
            The program as text.
        name : str, optional
            In results; by default the file's.

        Raises
        ------
        ServiceError
            It does not compile.
        UsageError
            The file cannot be read.
        """
        if (stan_file is None) == (stan_code is None):
            raise UsageError("give the Stan program either as a file or as code")
        asked = {"program_code": stan_code if stan_file is None else _text(stan_file)}
        if name is not None or stan_file is not None:
            asked["name"] = name or Path(str(stan_file)).stem
        made = self._post("/v1/models", asked).json()
        return RemoteModel(made["id"], made["name"], tuple(d["declaration"] for d in made["data"]))

    def fit(
        self, model: RemoteModel, data: Data = None, *, key: str | None = None, **options: Any
    ) -> Job:
        """Begin a fit.

        Parameters
        ----------
        model : RemoteModel
        data : mapping or path, optional
        key : str, optional
            A second request with it begins nothing.
        **options
            ``seed``, ``draws``, ``layers``, ...: those of ``stanflow fit``.
        """
        return self._begin(f"/v1/models/{model.id}/fits", data, options, key)

    def nuts(
        self, model: RemoteModel, data: Data = None, *, key: str | None = None, **options: Any
    ) -> Job:
        """Begin a NUTS run; `options` are ``seed``, ``chains``, ``warmup``, ``draws``, ..."""
        return self._begin(f"/v1/models/{model.id}/nuts", data, options, key)

    def compare(self, fit: Run, reference: Run, *, seed: int = 1) -> Job:
        """Begin a comparison of two runs."""
        asked = {"fit": fit.id, "reference": reference.id, "seed": seed}
        return Job(self, self._post("/v1/comparisons", asked).json())

    def run(self, kind: str, run: str) -> Run:
        """Return what came of a job: ``"fit"``, ``"nuts"`` or ``"comparison"``, and its id."""
        found = self._get(f"/v1/{_RESOURCES[kind]}/{run}").json()
        return Run(self, run, kind, found["result"])

    # ---- requests -------------------------------------------------------------------------------

    def _begin(self, url: str, data: Data, options: dict[str, Any], key: str | None) -> Job:
        headers = {} if key is None else {"Idempotency-Key": key}
        asked = {"data": _data(data), "options": options}
        return Job(self, self._post(url, asked, headers).json())

    def _draws(self, run: Run) -> pd.DataFrame:
        import pyarrow

        pages: list[pd.DataFrame] = []
        while not pages or len(pages[-1]) == _ROWS_A_PAGE:
            got = self._get(
                run._url("draws"), format="arrow", limit=_ROWS_A_PAGE,
                offset=_ROWS_A_PAGE * len(pages),
            )  # fmt: skip
            pages.append(pyarrow.ipc.open_stream(got.content).read_all().to_pandas())
        return pd.concat(pages, ignore_index=True)

    def _events(self, url: str) -> Iterator[tuple[str, dict[str, Any]]]:
        name = data = ""
        try:
            with self._http.stream("GET", url) as response:
                if response.is_error:
                    response.read()
                    raise _refused(response)
                for line in response.iter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        data = value
                    elif not line and data:  # what has no end is not whole
                        yield name, json.loads(data)
                        data = ""
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from None

    def _patience(self) -> _Patience:
        return _Patience(self._seconds_of_patience)

    def _post(
        self, url: str, asked: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._request("POST", url, content=_json("request", asked), headers=sent)

    def _get(self, url: str, **parameters: Any) -> httpx.Response:
        return self._request("GET", url, params=parameters)

    def _request(self, method: str, url: str, **what: Any) -> httpx.Response:
        try:
            response = self._http.request(method, url, **what)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from None
        if response.is_error:
            raise _refused(response)
        return response


def _refused(response: httpx.Response) -> ServiceError:
    kind = UnavailableError if response.status_code in _AWAY else ServiceError
    try:
        problem = response.json()
        return kind(problem["detail"], problem)
    except (ValueError, KeyError):
        return kind(f"the server answered {response.status_code}")


def _unreachable(url: object, error: httpx.HTTPError) -> UnavailableError:
    return UnavailableError(f"the server at {url} does not answer: {one_line(error)}")


def _json(name: str, value: Any) -> str:
    """Return a value as JSON.

    Raises
    ------
    UsageError
        JSON has no such value.
    """
    if isinstance(value, Mapping):
        fields = (f"{json.dumps(key)}: {_json(key, inner)}" for key, inner in value.items())
        return f"{{{', '.join(fields)}}}"
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} cannot be sent: it must be a finite number, text, true or false, or a list of "
            f"them, not {value!r}"
        ) from None


def _data(data: Data) -> Mapping[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        try:
            return _read(_text(data))
        except ValueError as error:
            raise UsageError(f"{data} is not JSON: {error}") from None
    read: dict[str, Any] = {}
    for name, value in data.items():
        try:
            read |= _read(stanio.dump_stan_json({name: value}))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the data variable {name} cannot be written as Stan JSON: {one_line(error)}"
            ) from None
    return read


def _read(text: str) -> dict[str, Any]:
    """Read Stan JSON; numbers that are not finite are spelled, as JSON has none."""
    read: dict[str, Any] = json.loads(text, parse_float=_real, parse_constant=str)
    return read


def _real(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else str(number).replace("inf", "Infinity")


def _text(path: str | PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
