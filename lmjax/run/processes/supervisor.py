"""One experiment in many processes, watched: one that dies, freezes or hangs is named, and all go on from the last
checkpoint.

    bash launch/run.sh launch/multiprocess.py --processes=2 experiments/gpt_char.py --workdir=runs/two

starts 2 processes on this host; the experiment's own flags stand behind it. Batches are shared between all devices of
all processes; the first process writes the workdir and prints, the others are silent.

Several hosts, each with its own start of this, the first one's address in all:

    ... --hosts=2 --host=0 --coordinator=10.0.0.1:4321 experiments/gpt_char.py --workdir=runs/two
    ... --hosts=2 --host=1 --coordinator=10.0.0.1:4321 experiments/gpt_char.py --workdir=runs/two

or --detect=true where SLURM (under srun), Kubernetes, a TPU's metadata or Open MPI say all of it. Only the first host
has to see the workdir. The recipes beside this file have jobs of each kind. Several GPUs of one host need none of this:
one process drives them all.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.processes import distributed
from lmjax.run.processes.ranks import FINAL, Failure, Rank, blame, state

HELD = 0.7  # seconds for which a rank's errors wait to be shown: what follows from another's death is not news
LOOK = 0.05  # seconds between looks
SETTLE = 0.3  # seconds in which a death may cause others, before one is named
HEARD = 1.2  # seconds in which a rank that a batch system has signalled itself says so


@dataclass(frozen=True)
class Options:
    processes: int = setting(1, "processes on this host", low=1)
    hosts: int = setting(1, "hosts, each with so many processes and its own start of this", low=1)
    host: int = setting(0, "which of them this is", low=0)
    coordinator: str = setting("", "with --hosts: address:port of the first host. Default: a free port of this one")
    detect: bool = setting(False, "let JAX find the processes out, from SLURM, Kubernetes, TPU or Open MPI")
    gpus: int = setting(0, "GPUs of each process, where several of a host share them out; 0: all", low=0)
    heartbeat: float = setting(30.0, "seconds without a sign of life, or a step, after which a rank is given up", low=1)
    startup: float = setting(600.0, "the same while it begins, compiles or evaluates", low=1)
    restarts: int = setting(3, "starts anew in a row without progress between them before giving up", low=0)

    def __post_init__(self):
        if self.hosts > 1 and not self.coordinator:
            raise ValueError(f"--hosts={self.hosts} needs --coordinator=ADDRESS:PORT of the first beside it")
        if self.host >= self.hosts:
            raise ValueError(f"--host={self.host}: expected a number below --hosts={self.hosts}")
        port = self.coordinator.rpartition(":")[2]
        if self.coordinator and not (port.isdigit() and 0 < int(port) < 65536 and ":" in self.coordinator):
            raise ValueError(f"--coordinator={self.coordinator}: expected ADDRESS:PORT, such as 10.0.0.1:4321")
        if self.detect and (self.processes > 1 or self.hosts > 1 or self.coordinator):
            raise ValueError("--detect finds the processes out: leave --processes, --hosts and --coordinator away")


class Supervisor:
    """Starts the ranks of this host, and starts them anew; `run` gives the exit status."""

    def __init__(self, options: Options, command: list[str], out=None):
        self.options, self.command, self.out = options, command, out or sys.stderr
        self.asked = None  # (signal, when, number of times)
        self.ranks: list[Rank] = []
        self.workdir = None
        self.selector = selectors.DefaultSelector()

    def run(self) -> int:
        reached, failed = 0, 0  # the last step of any start, failures in a row that got no further
        for s in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(s) is not signal.SIG_IGN:
                signal.signal(s, self._signalled)
        while True:
            self.start()
            try:
                ended = self.watch()
            finally:
                self.kill()
            if isinstance(ended, int):
                return ended
            if self.asked:
                self.say(ended.line)
                return self.interrupted()
            step = max(rank.said["step"] for rank in self.ranks)
            failed = 1 if step > reached else failed + 1
            reached = max(reached, step)
            if failed > self.options.restarts:
                self.show(ended.rank, all_of_it=True)
                tries = f"given up after {failed - 1} starts without progress" if failed > 1 else "given up"
                self.say(f"{ended.line}; {tries}; the same command goes on from the last checkpoint")
                return ended.status
            wait = pause(failed)
            self.say(f"{ended.line}; all go on from the last checkpoint in {wait:g} s "
                     f"({failed} of {self.options.restarts})")  # fmt: skip
            until = time.monotonic() + wait
            while time.monotonic() < until and not self.asked:
                time.sleep(LOOK)
            if self.asked:
                return self.interrupted()

    def say(self, line: str):
        print(f"multiprocess: {line}", file=self.out, flush=True)

    def start(self):
        options, self.ranks = self.options, []
        address = options.coordinator
        if not address and not options.detect:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{one.getsockname()[1]}"
        total = 0 if options.detect else options.hosts * options.processes
        script, *words = self.command
        if self.workdir and not any(word.startswith("--workdir") for word in words):
            words = [*words, f"--workdir={self.workdir}"]
        for i in range(options.processes):
            index = options.host * options.processes + i
            reading, writing = os.pipe()
            more = distributed.environment(
                coordinator=address, processes=total, process=index, startup=int(options.startup), pulse=writing,
                launched=launched(options),
            )  # fmt: skip
            if options.gpus:
                more["JAX_LOCAL_DEVICE_IDS"] = ",".join(str(i * options.gpus + n) for n in range(options.gpus))
            silent = index > 0 and not options.detect
            process = subprocess.Popen(
                [sys.executable, script, *words], env=os.environ | more, pass_fds=(writing,), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if silent else None, stderr=subprocess.PIPE,
            )  # fmt: skip
            os.close(writing)
            now = time.monotonic()
            rank = Rank(index, process, reading, now, now)
            self.ranks.append(rank)
            for pipe in (reading, process.stderr.fileno()):
                os.set_blocking(pipe, False)
                self.selector.register(pipe, selectors.EVENT_READ, rank)

    def watch(self):
        """Until all have ended (their exit status) or one has to be given up (a Failure)."""
        looked, dead_since = time.monotonic(), None
        while True:
            self.listen(LOOK)
            now = time.monotonic()
            if now - looked > 5.0:  # we were stopped ourselves
                for rank in self.ranks:
                    rank.alive = rank.moved = now
            looked = now
            self.pass_on(now)
            for rank in self.ranks:
                self.show(rank)
            ended = [rank for rank in self.ranks if rank.process.poll() is not None]
            if any(rank.process.returncode for rank in ended):
                dead_since = dead_since or now
                if (found := self.judge(ended, now - dead_since)) is not None:
                    return found
            elif len(ended) == len(self.ranks):
                self.finish()
                return 0
            elif (found := self.stuck(now)) is not None:
                return found

    def judge(self, ended: list[Rank], since: float):
        """What follows from the ranks that ended, of which at least one failed: None while that is not clear yet.

        since: seconds since the first of them did.
        """
        codes = {rank.name: rank.process.returncode for rank in ended}
        stopped = [128 + s for s in (signal.SIGTERM, signal.SIGINT)]
        if self.asked:
            stopped.append(-self.asked[0])  # before it could say anything
        if all(code in (0, *stopped) for code in codes.values()):
            if not self.asked:  # but a rank was: the others, which may not know of it, are asked too
                self.asked = (max(codes.values()) - 128, time.monotonic(), 1)
            if len(ended) < len(self.ranks) and self.stuck(time.monotonic()) is None:
                return None  # one may be saving still
            self.finish()
            return self.interrupted()
        if since < SETTLE:
            return None
        self.listen(0)
        guilty = min(ended, key=lambda rank: (blame(rank.process.returncode), rank.name))
        code = guilty.process.returncode
        if code in FINAL:
            self.show(guilty, all_of_it=True)
            return code
        return Failure(guilty, self.died(guilty, code), 1 if code < 0 else code)

    def interrupted(self) -> int:
        return 128 + self.asked[0]

    def died(self, rank: Rank, code: int) -> str:
        if code < 0:
            return f"{self.called(rank)} was killed by {signal.Signals(-code).name}{self.at(rank)}"
        last = next((line for _, line in reversed(rank.errors) if line.strip()), "")
        why = f" ({last.strip()[:200]})" if last else ""
        return f"{self.called(rank)} ended with status {code}{self.at(rank)}{why}"

    def stuck(self, now: float):
        """The Failure of a rank that is alive no more, or waits for ever."""
        left = [rank for rank in self.ranks if rank.process.poll() is None]
        for rank in left:
            if (quiet := now - rank.alive) > self.patience(rank):
                how = " (it is stopped)" if state(rank.process.pid) == "T" else ""
                return Failure(rank, f"{self.called(rank)} is frozen{how}{self.at(rank)}: no sign of life for "
                                     f"{quiet:.0f} s")  # fmt: skip
        waiting = [rank for rank in left if now - rank.moved > rank.limit(self.options.heartbeat, self.options.startup)]
        leaving = [rank for rank in self.ranks if rank.process.poll() is not None or rank.said["phase"] == "leaving"]
        if leaving and len(leaving) < len(self.ranks):  # those wait for the others
            waiting = [rank for rank in waiting if rank not in leaving]
        if not waiting:
            return None
        # All wait for the one that is behind; where none is, it is the network, or the devices.
        last = min(waiting, key=lambda rank: (rank.said["step"], rank.said["count"], rank.name))
        behind = last.said["step"], last.said["count"]
        level = [rank for rank in left if (rank.said["step"], rank.said["count"]) == behind]
        who = "every rank" if len(left) > 1 and level == left else self.called(last)
        if stopped := [rank for rank in waiting if state(rank.process.pid) == "T"]:
            last, who = stopped[0], self.called(stopped[0])
        ahead = max(rank.said["step"] for rank in left)
        beside = f", others are at step {ahead}" if ahead > last.said["step"] else ""
        raise_it = "" if last.said["phase"] == "training" else " (--startup allows more)"
        how = "is frozen (it is stopped)" if stopped else "hangs"
        return Failure(last, f"{who} {how}{self.at(last)}: no progress for {now - last.moved:.0f} s{beside}{raise_it}")

    def patience(self, rank: Rank) -> float:
        # While Python starts, JAX connects or takes leave no thread of its can speak.
        mute = rank.said["phase"] in ("starting", "connecting", "leaving")
        return max(self.options.startup, self.options.heartbeat) if mute else self.options.heartbeat

    def called(self, rank: Rank) -> str:
        return f"rank {rank.said.get('process', rank.name)}"

    def first(self, rank: Rank) -> bool:
        return rank.said.get("process", rank.name) == 0

    def at(self, rank: Rank) -> str:
        phase = rank.said["phase"]
        return f" at step {rank.said['step']}" if phase == "training" else f" while {phase}"

    def _signalled(self, signum, frame):
        first, when, times = self.asked or (signum, time.monotonic(), 0)
        self.asked = (first, when, times + 1)

    def pass_on(self, now: float):
        """A signal of ours to the ranks; the first not to those that a batch system has sent it as well."""
        if not self.asked:
            return
        signum, since, times = self.asked
        for rank in self.ranks:
            heard = rank.said["signal"] is not None
            if rank.sent == times or (times == 1 and not heard and now - since < HEARD):
                continue
            rank.sent = times
            if rank.process.poll() is None and not (times == 1 and heard):
                rank.process.send_signal(signum)

    def listen(self, seconds: float):
        for key, _ in self.selector.select(seconds):
            rank, now = key.data, time.monotonic()
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if not data:
                self.selector.unregister(key.fd)
                continue
            if key.fd == rank.pulse:
                rank.hear(data, now)
                self.workdir = rank.said.get("workdir", self.workdir)
            else:
                *lines, rank.line = (rank.line + data.decode(errors="replace")).split("\n")
                rank.errors.extend((now, line) for line in lines)

    def show(self, rank: Rank, all_of_it=False):
        """The first rank's errors as they are once they are old enough; of another only all of them, marked.

        A traceback waits for the rank's end: it goes on, or was another's fault, or the run is given up.
        """
        first = self.first(rank)
        until = float("inf") if all_of_it else time.monotonic() - HELD
        while rank.errors and (first or all_of_it) and rank.errors[0][0] <= until:
            if rank.errors[0][1].startswith("Traceback (most recent") and not all_of_it:
                break
            print(("" if first else f"[{rank.name}] ") + rank.errors.popleft()[1], file=self.out, flush=True)

    def finish(self):
        """Shows what the first rank said last."""
        self.listen(0.05)
        for rank in self.ranks:
            if self.first(rank):
                self.show(rank, all_of_it=True)

    def kill(self):
        """Ends what is left, also what is stopped, and what it started."""
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.process.pid, signal.SIGKILL)
        for rank in self.ranks:
            rank.process.wait()
        self.listen(0)
        for key in list(self.selector.get_map().values()):
            self.selector.unregister(key.fd)
        for rank in self.ranks:
            os.close(rank.pulse)
            rank.process.stderr.close()


def pause(failed: int) -> float:
    """Seconds before a start, after so many failures in a row."""
    return min(60.0, 2.0 ** (failed - 1))


def launched(options: Options) -> str:
    """The words before the experiment, for its record."""
    hosts = f" --hosts={options.hosts}" if options.hosts > 1 else ""
    how = "--detect=true" if options.detect else f"--processes={options.processes}{hosts}"
    return f"launch/multiprocess.py {how}"


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our own words of a command line, and the experiment with its."""
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    return argv[:at], argv[at:]


def main(argv=None) -> int:
    program, *words = sys.argv if argv is None else argv
    name = os.path.basename(program)
    own, command = split(words)
    try:
        options = flags.parse(Options, doc=__doc__, argv=[program, *own])
        if not command:
            raise UserError("no experiment is given: launch/multiprocess.py --processes=2 experiments/gpt_char.py ...")
        if not os.path.isfile(command[0]):
            raise UserError(f"there is no script {command[0]}: expected one such as experiments/gpt_char.py")
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.status
    return Supervisor(options, command).run()
