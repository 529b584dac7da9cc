"""Lines of your own through a trained translator.

    bash launch/run.sh experiments/translate.py --workdir=runs/translate_multi30k/001 --text="Ein Hund schläft."

translates one line, or with --input=FILE each line of it into --output=FILE or to the screen, by beam search (Sutskever
et al. 2014; length penalty of Wu et al. 2016). Lines are cut into tokens as the run's were; so is what comes out.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run of translate_multi30k")
    text: str = setting("", "a line to translate")
    input: str = setting("", "a UTF-8 file of lines to translate, plain or .gz")
    output: str = setting("", "file to write the translations to; default: the screen")
    beam: int = setting(5, "hypotheses of a sentence; 1: greedy", low=1)
    alpha: float = setting(1.0, "of the length penalty, ((offset + length) / (offset + 1))^alpha", low=0.0)
    offset: float = setting(5.0, "of the length penalty: 5 is GNMT's, 0 divides by length^alpha as fairseq", low=0.0)
    checkpoint: str = setting("best", "by validation loss, or the last", choices=("best", "last"))


def main(config):
    from lmjax.data import files
    from lmjax.data.text import decode
    from lmjax.run.output import written
    from lmjax.run.tasks import translating

    if not config.workdir:
        raise UserError("no --workdir: give the folder of a run, such as --workdir=runs/translate_multi30k/001")
    if bool(config.text) == bool(config.input):
        raise UserError("give a line as --text or a file as --input, one of the two")
    lines = [config.text]
    if config.input:
        lines = decode(files.read_bytes(config.input), config.input).removesuffix("\n").split("\n")
    translator = translating.load(config.workdir, config.checkpoint)
    lines = [translator.tokens(line) for line in lines]
    settings = {"width": config.beam, "alpha": config.alpha, "offset": config.offset}
    said = translating.translate(translator, lines, **settings)
    with written(config.output) as out:
        print("\n".join(said), file=out)


if __name__ == "__main__":
    flags.run(main, Config)
