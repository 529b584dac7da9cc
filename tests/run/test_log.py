"""The log: the same bytes whether or not the run was killed, and what a terminal or a file is shown."""

import io
import json
import random

import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.run import curves
from lmjax.run.log import Log, read

TOTAL = 100
TORN = [b'{"step": 1', b'{"step": 110, "kind": "train"}', b"\x00\x00\xff", b"12\n", b"{}\n"]


def take(log, first, last):
    """Steps as the loop takes them: a train line every 10, a validation every 25, each a function of the step."""
    for step in range(first + 1, last + 1):
        log.progress(step)
        if step % 10 == 0:
            log.train(step, {"loss": np.float32(np.random.default_rng(step).normal()), "weight": 7}, 0.1, 10)
        if step % 25 == 0:
            log.metrics(step, {"loss": step / 3})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with Log(folder, TOTAL, 768, quiet=True) as log:
        log.resume(0)
        take(log, 0, TOTAL)
    return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_killed_and_resumed_leaves_the_same_bytes(tmp_path, whole, seed):
    rng, at, path = random.Random(seed), 0, tmp_path / "metrics.jsonl"
    for _ in range(4):
        log = Log(tmp_path, TOTAL, 768, quiet=True)
        log.resume(at)
        stop = rng.randint(at, TOTAL)
        take(log, at, stop)
        log.close()
        at = rng.randint(at, stop)  # the newest checkpoint lies somewhere before
        if path.exists() and rng.random() < 0.7:  # the line being written when the process was killed
            with open(path, "ab") as file:
                file.write(rng.choice(TORN))
    with Log(tmp_path, TOTAL, 768, quiet=True) as log:
        log.resume(at)
        take(log, at, TOTAL)
    assert path.read_bytes() == whole
    assert [line["step"] for line in read(tmp_path / "speed.jsonl")] == list(range(10, TOTAL + 1, 10))


def test_what_is_still_owed_at_a_checkpoint_is_said_once(tmp_path):
    for _ in range(2):  # the second start goes on from step 50, whose lines are there already
        with Log(tmp_path, TOTAL, quiet=True) as log:
            log.resume(50)
            log.train(50, {"loss": 1.0}, 0.1, 10)
            log.metrics(50, {"loss": 2.0})
    assert [(line["step"], line["kind"]) for line in read(tmp_path / "metrics.jsonl")] == [(50, "train"), (50, "valid")]


def test_a_new_start_forgets_an_old_log(tmp_path):
    for _ in range(2):
        with Log(tmp_path, TOTAL, quiet=True) as log:
            log.resume(0)
            log.metrics(5, {"loss": 1.0})
    assert len(read(tmp_path / "metrics.jsonl")) == 1


def test_numbers_are_written_by_their_shortest_digits(tmp_path):
    with Log(tmp_path, TOTAL, quiet=True) as log:
        values = {"a": np.float32(0.1), "b": 0.1, "c": jnp.float32(1.3), "d": jnp.bfloat16(1.5), "e": np.int32(3)}
        values |= {"f": 4, "g": float("nan"), "h": np.float32("inf")}
        log.metrics(1, values)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == (
        '{"step": 1, "kind": "valid", "a": 0.1, "b": 0.1, "c": 1.3, "d": 1.5, "e": 3, "f": 4, "g": null, "h": null}\n'
    )


def test_times_stay_out_of_the_metrics(tmp_path):
    with Log(tmp_path, TOTAL, 768, quiet=True) as log:
        log.train(10, {"loss": 1.0}, 0.5, 10)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 10, "kind": "train", "loss": 1.0}\n'
    assert read(tmp_path / "speed.jsonl") == [{"step": 10, "seconds": 0.5, "tokens_per_second": 15360.0}]


def test_a_file_is_shown_plain_lines(tmp_path):
    out = io.StringIO()
    with Log(tmp_path, TOTAL, 768, out=out) as log:
        take(log, 0, TOTAL)
        log.say("[bold]done")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("step 10/100  loss ")
    assert "7.7k tokens/s" not in lines[0]
    assert "76.8k tokens/s" in lines[0]
    assert lines[-1] == "[bold]done"
    assert len(lines) == 7  # the first and the last interval, four validations, and that
    assert "\x1b" not in out.getvalue()


def test_a_terminal_is_shown_a_bar(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with Log(tmp_path, TOTAL, 768, out=out) as log:
        take(log, 0, TOTAL)
        log.say("[bold]done")
    assert "step 100/100" in out.getvalue()
    assert "tokens/s" in out.getvalue()
    assert "[bold]done" in out.getvalue()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # the cursor comes back


def test_quiet_and_homeless_logs_say_and_write_nothing(tmp_path, capsys):
    with Log(tmp_path / "unused", TOTAL, quiet=True) as log:
        log.say("nothing")
    with Log(None, TOTAL, quiet=True) as log:
        log.resume(0)
        take(log, 0, TOTAL)
        log.sync()
        assert log.curves() is None
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_what_was_logged(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 (the format that is read below)

    with Log(tmp_path, TOTAL, quiet=True) as log:
        log.metrics(5, {"loss": 1.5})
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found = file.read_bytes(), {}
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        found |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
        data = data[16 + size :]
    assert found == {"valid/loss": (5, 1.5)}


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    with Log(tmp_path, TOTAL, quiet=True) as log:
        assert log.curves() is None
        take(log, 0, TOTAL)
        path = log.curves()
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": 1, "kind": "train", "loss": 2.0}],
        [{"step": 1, "kind": "valid", "validation_loss": 2.0}],
        [{"step": 1, "kind": "train", "loss": None}, {"step": 2, "kind": "train", "loss": 1.0}],
    ],
)
def test_a_single_point_can_be_drawn(tmp_path, lines):
    pytest.importorskip("matplotlib")
    assert curves.draw(lines, tmp_path / "c.png", "one").exists()


def test_a_log_without_a_loss_is_not_drawn(tmp_path):
    assert curves.draw([{"step": 1, "kind": "test", "accuracy": 3.0}], tmp_path / "c.png", "none") is None
    assert json.loads("[]") == list(tmp_path.iterdir())
