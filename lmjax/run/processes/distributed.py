"""This process among those of a run: joined to them as the environment says, silent unless it is the first, watched.

launch/multiprocess.py sets the variables, see `environment`. Without them nothing happens: one process is the run.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path

from lmjax.errors import UserError

SAID = ("COORDINATOR", "PROCESSES", "PROCESS", "STARTUP", "PULSE")
EVERY = 0.5  # seconds between signs of life
PRIVATE = {"checkpoints", "tensorboard", "trace", ".lock", "metrics.jsonl", "speed.jsonl"}  # the first process's alone


def environment(*, coordinator="", processes=0, process=0, startup=600, pulse=-1, launched="") -> dict[str, str]:
    """The variables of one process. coordinator: host:port of process 0, "" to let JAX find all three out (SLURM, TPU,
    Kubernetes, Open MPI). startup: seconds to wait for the others. pulse: a file descriptor for signs of life."""
    said = dict(zip(SAID, (coordinator, processes, process, startup, pulse), strict=True)) | {"LAUNCHED": launched}
    return {f"LMJAX_{name}": str(value) for name, value in said.items()}


class Pulse:
    """What this process tells who watches it, twice a second, from a thread: that it is alive, and how far it is.

    A frozen process tells nothing; one that waits for ever tells the same step again and again.
    """

    def __init__(self, file: int = -1):
        self.file, self.came = file, lambda: None
        self.phase, self.step, self.count, self.facts = "starting", 0, 0, {}
        if file >= 0:
            os.set_blocking(file, False)
            os.set_inheritable(file, False)
            threading.Thread(target=self._tell, name="pulse", daemon=True).start()

    def beat(self, phase: str, step: int | None = None):
        """The program has come to here. phase: training, where one step follows another; else anything."""
        self.phase, self.step, self.count = phase, self.step if step is None else step, self.count + 1

    def tell(self):
        said = {"phase": self.phase, "step": self.step, "count": self.count, "signal": self.came(), **self.facts}
        os.write(self.file, json.dumps(said).encode() + b"\n")

    def _tell(self):
        while True:
            try:
                self.tell()
            except BlockingIOError:
                pass  # it will read them
            except OSError:  # it is dead: nobody would start this again
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(EVERY)


pulse = Pulse()  # of this process, set by `join`
joined = False


def asked() -> bool:
    """Whether a launcher started this process, and not another that a process of a run starts."""
    return joined or "LMJAX_PROCESSES" in os.environ


def join():
    """Makes this process one of several, before JAX makes its devices; all but the first are silent from now on."""
    global pulse, joined
    if not asked():
        return
    joined = True
    address, *numbers = (os.environ.pop(f"LMJAX_{name}") for name in SAID)
    processes, process, startup, file = map(int, numbers)
    pulse = Pulse(file)
    if processes != 1:
        import jax

        times = {"initialization_timeout": startup, "shutdown_timeout_seconds": startup,
                 "heartbeat_timeout_seconds": 10 * startup}  # fmt: skip
        # Who watches us names a dead process sooner than JAX does, and in one line.
        pulse.beat("connecting")
        if address:
            given = {"cluster_detection_method": "deactivate"}
            jax.distributed.initialize(address, processes, process, **given, **times)
        else:
            try:
                jax.distributed.initialize(**times)
            except ValueError as error:
                raise UserError(f"--detect finds no cluster ({error}): run under srun, or give --coordinator") from None
        process = jax.process_index()
    pulse.facts["process"] = process
    pulse.beat("starting")
    if processes != 1:
        print_alone(process == 0)


def print_alone(speaks: bool):
    """The standard output is Python's alone, where this process speaks: gloo greets each new circle of devices."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if speaks:
        sys.stdout = os.fdopen(ours, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def leave(status: int):
    """Ends a joined process. Only who succeeds waits for the others: they may wait for ever in turn."""
    if not asked():
        sys.exit(status)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    if status == 0:
        pulse.beat("leaving")
        if (jax := sys.modules.get("jax")) and jax.distributed.is_initialized():
            jax.distributed.shutdown()
    os._exit(status)  # all is written; taking JAX down in order may take many seconds


def pack(folder: Path) -> bytes:
    """The files that an experiment may read again in its workdir, as a zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if not PRIVATE.intersection(name.parts):
                file.write(path, name)
    return out.getvalue()


def unpack(packed: bytes, folder: Path):
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        file.extractall(folder)
