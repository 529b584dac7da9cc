"""launch/serve.py at the command line: what it refuses in a line, and where it may listen."""

import importlib.util
import json
import socket
import sys
from pathlib import Path

import pytest

from lmjax.run import flags
from lmjax.serve import server

SCRIPT = Path(__file__).resolve().parents[2] / "launch/serve.py"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """call(*words) -> (status, stderr)."""
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(server.KEY, raising=False)
    spec = importlib.util.spec_from_file_location("launch_serve", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def call(*words):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        with pytest.raises(SystemExit) as ended:
            flags.run(module.main, module.Config)
        return ended.value.code, capsys.readouterr().err

    return call


@pytest.fixture
def taken():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_what_a_user_gets_wrong_is_one_line(call, tmp_path, taken):
    for name, experiment in (("other", "ngram_ptb"), ("begun", "gpt_char")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"experiment": experiment, "config": {}}))
    (tmp_path / "short.key").write_text("abc\n")
    (tmp_path / "good.key").write_text("a-long-enough-key\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = f"--port={free.getsockname()[1]}"
    for words, says in (
        ([], "expected one of --workdir"),
        (["--workdir=nope", port], "--workdir=nope holds no run"),
        (["--workdir=other", port], "--workdir=other is a run of ngram_ptb: expected one of classify"),
        (["--workdir=begun", port], "begun/config.json"),
        (["--model=nope", port], "nope"),
        (["--workdir=begun", f"--port={taken}"], "cannot be listened at (Address already in use): choose another"),
        (["--workdir=begun", "--host=0.0.0.0"], "--host=0.0.0.0 without a key"),
        (["--workdir=begun", "--host=0.0.0.0", "--api_key_file=short.key"], "expected one key of at least 8"),
        (["--workdir=begun", "--api_key_file=none.key"], "--api_key_file=none.key cannot be read"),
        (["--workdir=begun", "--port=99999"], "--port=99999"),
        (["--workdir=begun", "--limits.tokens=1"], "--limits.tokens=1"),
    ):
        status, err = call(*words)
        assert (status, err.count("\n")) == (2, 1), err
        assert says in err


@pytest.mark.parametrize(
    ("host", "mine"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("localhost.example", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_own(host, mine):
    assert server.loopback(host) is mine
