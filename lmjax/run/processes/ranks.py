"""A process of a run of many, as its supervisor sees it: what was heard of it, and what its death tells."""

import json
import signal
import subprocess
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

FINAL = (2, 3)  # statuses that the same command would end with again: bad input, diverged


@dataclass
class Rank:
    """A process under way, and what was heard of it."""

    name: int
    process: subprocess.Popen
    pulse: int  # the reading end of its signs of life
    alive: float  # when it last gave one
    moved: float  # when it last got further
    said: dict = field(default_factory=lambda: {"phase": "starting", "step": 0, "count": 0, "signal": None})
    longest: float = 0.0  # seconds between two steps, so far
    steps: int = 0  # seen since it compiled
    partial: bytes = b""
    errors: deque = field(default_factory=lambda: deque(maxlen=200))  # (time, line) not shown yet
    line: str = ""  # the last one, as far as it has come
    sent: int = 0  # signals that we passed on to it

    def hear(self, data: bytes, now: float):
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.alive = now
            if said["count"] == self.said["count"]:
                self.said = said
                continue
            training = said["phase"] == self.said["phase"] == "training"
            self.steps = self.steps + said["step"] - self.said["step"] if training else 0
            if training and self.steps > 3:  # the first are launched ahead of the device
                self.longest = max(self.longest, now - self.moved)
            self.said, self.moved = said, now

    def limit(self, heartbeat: float, startup: float) -> float:
        """Seconds it may stay where it is while it is alive; the two settings of launch/multiprocess.py."""
        if self.said["phase"] == "finishing":
            return float("inf")
        if self.said["phase"] == "training" and self.steps > 3:
            return max(heartbeat, 5 * self.longest)
        return max(startup, heartbeat)


@dataclass
class Failure:
    """Why a start ended. rank: the guilty one's name; line: of it, without what is done about it."""

    rank: Rank
    line: str
    status: int = 1  # what this program ends with if it gives up


def blame(code: int) -> int:
    """Which of several deaths came first, as far as the way they died tells: the others follow from it."""
    if code == 0:
        return 9
    if code in FINAL:
        return 0
    if code < 0:  # JAX aborts where another process is gone
        return 2 if code == -signal.SIGABRT else 1
    return 3 if code == 1 else 1


def state(pid: int) -> str:
    """Of a process as Linux names it: T is stopped; "" elsewhere."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
