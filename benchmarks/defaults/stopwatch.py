"""Run a command; write its wall time, peak memory and exit status to a file.

    python stopwatch.py FILE SECONDS COMMAND...

A process of its own, and a small one: a process begins with the peak memory of the one that started
it, and the benchmark itself has loaded much. The command is killed after SECONDS.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    file, limit, *command = sys.argv[1:]
    began = time.perf_counter()
    try:
        status = subprocess.run(command, timeout=float(limit), check=False).returncode
    except subprocess.TimeoutExpired:
        status = None
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    measured = {
        "seconds": seconds,
        "peak_memory_mb": peak / (1e6 if sys.platform == "darwin" else 1e3),
        "status": status,
    }
    Path(file).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
