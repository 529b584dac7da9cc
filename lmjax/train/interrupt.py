"""SIGTERM and SIGINT: save and leave within seconds, in whatever phase; a second one leaves at once.

    with interrupts() as interrupt:
        interrupt.publish(None)               # nothing to save yet: a signal ends the program where it stands
        ...
        interrupt.withdraw()                  # from here on only the main thread can save, between two steps
        for ...:
            state, metrics = step(state, batch)
            if interrupt.requested:
                interrupt.leaving()           # however long the save takes
                save(state)
                raise Interrupted
            interrupt.publish(lambda: save(state))
            evaluate(state)                   # a phase that may be long, and leaves the state alone
            interrupt.withdraw()

Python runs a signal's handler in the main thread, between two bytecodes: not while XLA compiles or a step computes. So
the wake-up pipe of the C handler is read by a thread of its own. Where the main thread does not come to a safe point in
time, that thread calls the published function and ends the process. The exit status is 128 + signal, as in a shell.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import deque

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# One signal may arrive twice: `timeout` and batch systems send it to the process and to its group, a terminal sends
# ctrl-C to a script and to what it runs, and the script passes it on.
_ECHO = 0.3  # seconds


class Interrupts:
    """What `interrupts` hands out."""

    def __init__(self, grace=8.0, agree=None):
        self._signal, self._alive, self._agree = None, 0.0, agree
        self._grace, self._paces = grace, deque([0.0], maxlen=4)  # seconds between the last questions
        self._save, self._free, self._busy, self._leaving = None, False, False, False
        self._lock = threading.Lock()  # held for good by the thread that ends the process

    @property
    def requested(self):
        """The signal that asked for the end, or None. Who asks is alive: the time to a safe point starts anew.

        In several processes all have to ask as often: they hear at the same question of a signal that came to any.
        """
        now = time.monotonic()
        if self._alive:
            self._paces.append(now - self._alive)
        self._alive = now
        return self._signal if self._agree is None else self._agree(self._signal)

    @property
    def came(self):
        """The signal that came to this process, or None."""
        return self._signal

    def publish(self, save):
        """From now on `save()`, called from any thread, saves the run, and has it on the disk when it returns.

        None: there is nothing to lose, and a signal raises `SystemExit(128 + signal)` in the main thread.
        """
        with self._lock:
            self._save, self._free, self._busy = save, save is None, False

    def withdraw(self):
        """Until the next `publish` only the main thread can save: the buffers belong to a step that is under way."""
        with self._lock:
            self._save, self._free, self._busy = None, False, True

    def leaving(self):
        """The main thread has seen the signal and is saving: from now on only a second one cuts that short."""
        with self._lock:
            self._leaving = True

    def _handle(self, signum, frame):
        """In the main thread, as soon as that runs Python again."""
        self._signal = self._signal or signum
        if self._free:
            raise SystemExit(128 + self._signal)  # no ValueError, which what is under way might catch

    def _watch(self, pipe):
        """The thread that reads the wake-up pipe: one byte a signal, and a 0 to end."""
        first, taken_over = None, False
        while True:
            patience = self._grace
            if self._busy:  # a step's end brings the state back, and is near
                patience = max(2 * self._grace, 3 * max(self._paces))
            quiet = first is None or taken_over or self._leaving
            left = 0.0 if quiet else max(first, self._alive) + patience - time.monotonic()
            if not quiet and left <= 0:
                taken_over = True
                threading.Thread(target=self._take_over, daemon=True).start()
            elif select.select([pipe], [], [], None if quiet else min(left, 0.2))[0]:
                for signum in os.read(pipe, 64):
                    if signum == 0:
                        return
                    if signum not in SIGNALS:  # every signal that has a Python handler comes through here
                        continue
                    if first is None:
                        first, self._signal = time.monotonic(), signum
                        self._say(signum)
                    elif time.monotonic() - first > _ECHO:
                        os._exit(128 + signum)

    def _take_over(self):
        """Saves and ends the process in the main thread's place, which stops where it next calls us."""
        with self._lock:
            if self._leaving:
                return
            try:
                if self._save is not None:
                    self._save()
                elif self._busy:
                    _tell("not saved: the step under way does not end; the last checkpoint stands")
            except BaseException as error:
                _tell(f"not saved: {error}")
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(128 + self._signal)

    def _say(self, signum):
        does = "leaving" if self._free else "saving at the next step"
        _tell(f"{signal.Signals(signum).name}: {does}; once more to leave at once")


def _tell(line):
    """Past sys.stderr, whose lock the main thread may hold. On a terminal a progress line stands there already."""
    with contextlib.suppress(OSError):
        os.write(2, (f"\n{line}\n" if os.isatty(2) else f"{line}\n").encode())


@contextlib.contextmanager
def interrupts(grace=8.0, agree=None):
    """Handles SIGTERM and SIGINT inside the block; the handlers before come back after it.

    grace: seconds in which the main thread may come to a safe point; while the state is withdrawn twice as many, or
    three times as long as one of the last steps took.
    agree(signal): the signal that came to any of several processes, see processes.agreement.
    A signal that was ignored (by `nohup`, or in a script's background job) stays ignored. Outside the main thread,
    where Python allows no handlers, `requested` stays None.
    """
    interrupt = Interrupts(grace, agree)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=interrupt._watch, args=(reading,), name="interrupts", daemon=True)
    watcher.start()
    old_pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    old = {s: signal.getsignal(s) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    for s in old:
        signal.signal(s, interrupt._handle)
    os.register_at_fork(after_in_child=lambda: _forget(interrupt, old))
    try:
        yield interrupt
    finally:
        with interrupt._lock:  # held by `_take_over`: then this is as far as the main thread gets
            for s, handler in old.items():
                signal.signal(s, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(old_pipe)
            os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)


def _forget(interrupt, handled):
    """In a forked worker: it dies by a signal as any process does, and does not report it through our pipe."""
    for s in handled:
        if signal.getsignal(s) == interrupt._handle:
            signal.signal(s, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
