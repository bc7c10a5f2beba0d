"""The reference: NUTS by CmdStan, one process a chain.

The processes are started here rather than by cmdstanpy, so that an interrupted run leaves none
behind, queued chains included.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import stanio

from stanflow.arrays import FloatArray
from stanflow.errors import EngineError, NumericsError, reason
from stanflow.reference.cmdstan_program import Executable
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import (
    STATISTICS,
    WARMUP_THAT_ADAPTS_THE_METRIC,
    ChainStarts,
    NutsRun,
    NutsSettings,
    complaint,
    split_warmup,
)
from stanflow.stan.batch import available_cores
from stanflow.stan.model import StanModel

_SIGNIFICANT_FIGURES = 17  # a float64 survives being written and read
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_TO_END = 5.0
_CONFIGURATION = re.compile(r"^ *\w+ =.*\n", re.MULTILINE)
_CONSOLE_LINES_KEPT = 60


def run(
    model: StanModel,
    settings: NutsSettings,
    starts: ChainStarts | None,
    executable: Executable,
    progress: NutsProgress | None,
) -> NutsRun:
    """Run NUTS by CmdStan, chains in parallel up to the cores.

    Parameters
    ----------
    model : StanModel
        The program and its data.
    settings : NutsSettings
        How NUTS is run.
    starts : ChainStarts, optional
        Where the chains start; otherwise as Stan starts them, uniform on (-2, 2).
    executable : Executable
        The program as CmdStan compiled it.
    progress : NutsProgress, optional
        Told of iterations.

    Raises
    ------
    EngineError
        The executable is of another program.
    NumericsError
        A chain failed; `detail` has CmdStan's own words.
    """
    with tempfile.TemporaryDirectory(prefix="stanflow-nuts-") as scratch:
        folder = Path(scratch)
        (folder / "data.json").write_text(model.data.json, encoding="utf-8")
        chains = [
            _Chain(number, folder, _command(executable, folder, number, settings, starts))
            for number in range(1, settings.chains + 1)
        ]
        _run_to_the_end(chains, model, executable, progress)
        return _read(chains, model, executable, settings)


# ---- Running chains ---------------------------------------------------------------------------


def _command(
    executable: Executable,
    folder: Path,
    chain: int,
    settings: NutsSettings,
    starts: ChainStarts | None,
) -> list[str]:
    """Write a chain's input files and return its command line (CmdStan guide, "MCMC sampling")."""
    adapt = ["adapt", f"delta={settings.adapt_delta!r}"]
    metric = [f"metric={settings.metric}"]
    init = []
    if starts is not None:
        init_file, metric_file = folder / f"init-{chain}.json", folder / "metric.json"
        init_file.write_text(stanio.dump_stan_json(starts.parameters[chain - 1]), encoding="utf-8")
        metric_file.write_text(
            json.dumps({"inv_metric": starts.inverse_metric.tolist()}), encoding="utf-8"
        )
        init = [f"init={init_file}"]
        metric.append(f"metric_file={metric_file}")
        if settings.warmup < WARMUP_THAT_ADAPTS_THE_METRIC:
            # So short, Stan keeps the metric, though it says that it shortens the stages. Said
            # outright, it holds for versions that do as they say, too.
            adapt += ["init_buffer=0", "window=0", f"term_buffer={settings.warmup}"]
    return [
        str(executable.path),
        f"id={chain}",
        "data",
        f"file={folder / 'data.json'}",
        *init,
        "random",
        f"seed={settings.seed}",
        "output",
        f"file={folder / f'chain-{chain}.csv'}",
        f"sig_figs={_SIGNIFICANT_FIGURES}",
        "refresh=0",
        "method=sample",
        f"num_samples={settings.draws}",
        f"num_warmup={settings.warmup}",
        "save_warmup=1",
        *adapt,
        "algorithm=hmc",
        *metric,
        "engine=nuts",
        f"max_depth={settings.max_treedepth}",
    ]


@dataclass
class _Chain:
    """One chain: its process, and how much of its CSV file has been looked at."""

    number: int
    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    columns: tuple[str, ...] | None = None
    iterations: int = 0
    _looked_at: int = field(default=0, repr=False)

    @property
    def csv(self) -> Path:
        return self.folder / f"chain-{self.number}.csv"

    @property
    def console(self) -> Path:
        return self.folder / f"chain-{self.number}.txt"

    def start(self) -> None:
        with self.console.open("wb") as console:
            # Some programs make CmdStan write a file of its own choice into the current folder.
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def look(self) -> bool:
        """Read what was written since the last look; say whether the header was in it."""
        if not self.csv.is_file():
            return False
        columns_before = self.columns
        with self.csv.open("rb") as stream:
            stream.seek(self._looked_at)
            written = stream.read()
        lines, newline, _ = written.rpartition(b"\n")
        self._looked_at += len(lines) + len(newline)
        for line in lines.split(b"\n") if newline else ():
            if line.startswith(b"#") or not line:
                continue
            if self.columns is None:
                self.columns = tuple(line.decode("utf-8", "replace").strip().split(","))
            else:
                self.iterations += 1
        return self.columns is not columns_before

    def draws(self) -> FloatArray:
        """Read all that the finished chain has written, warmup included."""
        with self.csv.open(encoding="utf-8") as stream:
            rows = (line for line in stream if line.strip() and not line.startswith("#"))
            next(rows)
            return np.loadtxt(rows, delimiter=",", ndmin=2)

    def end(self) -> None:
        """End the process, if it still runs."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _run_to_the_end(
    chains: list[_Chain], model: StanModel, executable: Executable, progress: NutsProgress | None
) -> None:
    """Run all chains, as many at once as there are cores; leave no process behind."""
    waiting, running = list(chains), list[_Chain]()
    cores = available_cores()
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                running.append(waiting.pop(0))
                running[-1].start()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for chain in list(running):
                assert chain.process is not None
                status = chain.process.poll()
                if chain.look():
                    _check_columns(chain.columns, model, executable)
                if progress is not None:
                    progress.show(chain.number, chain.iterations)
                if status is not None:
                    running.remove(chain)
                    _check_status(chain, status, executable)
    except OSError as error:
        raise EngineError(f"{executable.path} cannot be run: {reason(error)}") from None
    finally:
        for chain in running:
            chain.end()


def _check_columns(
    columns: tuple[str, ...] | None, model: StanModel, executable: Executable
) -> None:
    if columns == (*STATISTICS, *model.columns):
        return
    ours, theirs = model.columns, (columns or ())[len(STATISTICS) :]
    odd = next(
        (i for i, (o, t) in enumerate(zip(ours, theirs, strict=False)) if o != t),
        min(len(ours), len(theirs)),
    )
    own, other = (names[odd] if odd < len(names) else "none" for names in (ours, theirs))
    raise EngineError(
        f"{executable.path} is of another program than {model.program.label}: where this one has "
        f"the column {own}, it has {other}"
    )


def _check_status(chain: _Chain, status: int, executable: Executable) -> None:
    if status == 0:
        return
    if status == -signal.SIGINT:
        raise KeyboardInterrupt
    console = chain.console.read_text(encoding="utf-8", errors="replace")
    said = console[max((match.end() for match in _CONFIGURATION.finditer(console)), default=0) :]
    detail = "\n".join(said.strip().splitlines()[-_CONSOLE_LINES_KEPT:])
    if status < 0:
        name = signal.Signals(-status).name
        raise NumericsError(f"chain {chain.number} of CmdStan was ended by {name}", detail)
    if "stage=data initialization" in said and not executable.of_the_program:
        raise EngineError(
            f"{executable.path} refuses the data, which the program accepts, so it is of another "
            f"program: {complaint(said)}",
            detail,
        )
    raise NumericsError(f"chain {chain.number} of CmdStan failed: {complaint(said)}", detail)


# ---- Results ----------------------------------------------------------------------------------


def _read(
    chains: list[_Chain], model: StanModel, executable: Executable, settings: NutsSettings
) -> NutsRun:
    draws = []
    for chain in chains:
        chain.look()
        _check_columns(chain.columns, model, executable)
        table = chain.draws()
        if len(table) != settings.warmup + settings.draws:
            raise NumericsError(
                f"chain {chain.number} of CmdStan ended well, but wrote {len(table)} draws instead "
                f"of {settings.warmup + settings.draws}; is there room in {chain.folder.parent}?"
            )
        draws.append(table)
    by_chain = np.stack(draws)
    return split_warmup(
        executable.version,
        by_chain[..., len(STATISTICS) :],
        by_chain[..., : len(STATISTICS)],
        settings.warmup,
    )
