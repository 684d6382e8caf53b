"""A measurement in a process of its own, and what the operating system says of its memory.

Imports the standard library alone: a measured process must not start with torch in its memory, and
``memory_load`` runs this with an older efface.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MIB = 2**20


def run_alone(benchmark: str, *words: str, processes: int = 1, **environment: str) -> Any:
    """The JSON that ``python -m research.benchmarks.BENCHMARK WORDS`` prints last.

    ``processes``: as many, which torchrun starts; one of them prints.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", f"{processes}"]
    command = [sys.executable, *(launcher if processes > 1 else [])]
    command += ["-m", f"research.benchmarks.{benchmark}", *words]
    done = subprocess.run(  # noqa: S603  # our own module
        command, cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (resident now) or ``VmHWM`` (its maximum so far), as Linux counts them.

    ``getrusage`` would not do: it inherits the maximum of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def reset_peak() -> int:
    """Let ``VmHWM`` start again from what is resident now, which is returned, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")
