"""Questions on texts, their answers stretches of these: SQuAD v1.1's JSON (Rajpurkar et al. 2016), and made-up facts.

A file is read whole and checked: what is wrong with it is one line that names the article and the question. An
answer's `answer_start` that is off is mended to the nearest place where the text stands, and counted. Of SQuAD v2.0
the questions without an answer (is_impossible) are left out, and counted.
"""

import gzip
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.data import files
from lmjax.errors import UserError

NAME, HOME = "squad", "https://rajpurkar.github.io/SQuAD-explorer/"
# The development set put together again from the explorer's pages, whose training set is not to be had.
REBUILT = "4982c0b006f18e7f683fe919c64eb4a5e60b20b46dbb2527c547cd9b3bc4119a"


class Answer(NamedTuple):
    """text: as the file gives it. start, end: the characters of the context where it stands."""

    text: str
    start: int
    end: int


class Example(NamedTuple):
    """A question. title: of its article. answers: what annotators marked; none where it is only asked."""

    id: str
    title: str
    context: str
    question: str
    answers: tuple[Answer, ...] = ()


class Squad(NamedTuple):
    """The questions of a file in their order; answers whose place was mended; questions left out."""

    name: str
    examples: list[Example]
    mended: int = 0
    impossible: int = 0

    def said(self) -> str:
        """What was read, in words."""
        counts = [f"{len(self.examples):,} questions on {len(contexts(self.examples)):,} paragraphs of "
                  f"{len(titles(self.examples))} articles"]  # fmt: skip
        counts += [f"{self.mended:,} answers moved to where they stand"] if self.mended else []
        counts += [f"{self.impossible:,} questions without an answer left out"] if self.impossible else []
        return f"{self.name}: {', '.join(counts)}"


def titles(examples) -> list[str]:
    """The articles in the order they come in."""
    return list(dict.fromkeys(example.title for example in examples))


def contexts(examples) -> list[str]:
    return list(dict.fromkeys(example.context for example in examples))


def load_squad(data: str, data_dir=None) -> Squad:
    """Read "squad", the development set below `data_dir` (or LMJAX_DATA), "facts", made up, or a file by its path.

    A file is SQuAD's JSON, plain or .gz. UserError in one line where it is missing or not of that form.
    """
    if data == "facts":
        return Squad("facts", facts(articles=150, seed=0))
    if data != NAME:
        path = Path(data).expanduser()
        if not data or not path.is_file():
            raise UserError(f"data={data} is no file and no set of ours: expected squad, facts, or the path of a "
                            "file in SQuAD's JSON")  # fmt: skip
        return read_squad(files.read_bytes(path), path)
    folder = files.own_dir(data_dir)
    path = files.locate(files.File("dev", "dev-v1.1.json", HOME, 0, ""), "squad-v1.1", folder)
    if path is None:
        where = folder / "squad-v1.1" if folder else "your folder (no --data_dir or LMJAX_DATA is given)"
        raise UserError(f"squad: dev-v1.1.json is not in {where}: fetch it from {HOME} and put it there, or name any "
                        "file of that form as --data=PATH")  # fmt: skip
    content = files.read_bytes(path)
    found = read_squad(content, path)
    rebuilt = hashlib.sha256(content).hexdigest() == REBUILT
    return found._replace(name="SQuAD v1.1 dev" + (", rebuilt" if rebuilt else ""))


def read_squad(content: bytes, name) -> Squad:
    """The questions in a file's bytes. UserError, with its `name`, article and question, where it is not the form."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON: {error}; expected SQuAD's form") from None
    examples, mended, impossible, seen = [], 0, 0, set()
    for n, article in enumerate(_of(tree, "data", list, str(name)), 1):
        title = _of(article, "title", str, f"{name}, article {n}", f"article {n}")
        place = f"{name}, article {n} ({title})"
        for m, paragraph in enumerate(_of(article, "paragraphs", list, place), 1):
            here = f"{place}, paragraph {m}"
            context = _of(paragraph, "context", str, here)
            for q, item in enumerate(_of(paragraph, "qas", list, here), 1):
                id = _of(item, "id", str, f"{here}, question {q}")
                at = f"{place}, question {id}"
                if id in seen:
                    raise UserError(f"{at}: its id stands in the file twice; expected one for each question")
                seen.add(id)
                question = _of(item, "question", str, at)
                if item.get("is_impossible") is True:
                    impossible += 1
                    continue
                answers = []
                for answer in _of(item, "answers", list, at):
                    text, start = _of(answer, "text", str, at), _of(answer, "answer_start", int, at)
                    found = locate(text, start, context)
                    if found is None:
                        raise UserError(f"{at}: the answer {_short(text)} is not in its context; expected a stretch "
                                        "of it")  # fmt: skip
                    mended += found[0] != start
                    answers.append(Answer(text, *found))
                if not answers:
                    raise UserError(f"{at} has no answer: expected one, or is_impossible (SQuAD v2.0)")
                examples.append(Example(id, title, context, question, tuple(answers)))
    if not examples:
        raise UserError(f"{name} holds no question that has an answer: expected SQuAD's form with some")
    return Squad(str(name), examples, mended, impossible)


_KINDS = {str: "text", int: "a whole number", list: "a list"}


def _of(tree, key: str, kind, place: str, default=None):
    """tree[key], of a kind. UserError where it is missing (and has no default) or another."""
    if not isinstance(tree, dict):
        raise UserError(f"{place} is {_short(tree)}: expected an object with {key!r}, as in SQuAD's form")
    if key not in tree and default is not None:
        return default
    if key not in tree:
        raise UserError(f"{place} has no {key!r}: expected {_KINDS[kind]} there, as in SQuAD's form")
    if not isinstance(tree[key], kind) or isinstance(tree[key], bool):
        raise UserError(f"{place}: {key!r} is {_short(tree[key])}: expected {_KINDS[kind]}")
    return tree[key]


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def locate(text: str, start: int, context: str) -> tuple[int, int] | None:
    """(start, end) of an answer's text in its context, nearest to where it is said to be; None where it is nowhere.

    Spaces of another kind or number, and capitals, count as the same.
    """
    if not text.strip():
        return None
    if start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    pattern = r"\s+".join(map(re.escape, text.split()))
    found = list(re.finditer(pattern, context)) or list(re.finditer(pattern, context, re.IGNORECASE))
    return min((one.span() for one in found), key=lambda span: abs(span[0] - start), default=None)


def splits(data: str, valid: str, test: str, valid_articles: int, test_articles: int, data_dir=None):
    """(train, valid, test, what they are in words), each a list of Example: of load_squad's `data` by articles, or of
    files of their own where `valid` and `test` name such."""
    whole = load_squad(data, data_dir)
    others = {name: load_squad(path) for name, path in (("valid", valid), ("test", test)) if path}
    cut = [0 if name in others else n for name, n in (("valid", valid_articles), ("test", test_articles))]
    train, *parts = split_articles(whole, *cut)
    parts = [others[name].examples if name in others else part for name, part in zip(("valid", "test"), parts)]
    found = [train, *parts]
    sizes = [f"{len(part):,} questions of {len(titles(part))} articles" for part in found]
    return *found, f"{whole.said()}; train {sizes[0]}, validation {sizes[1]}, test {sizes[2]}"


def split_articles(squad: Squad, valid: int, test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """(train, valid, test) by articles in the order of their titles: `test` at the end, `valid` in front of them."""
    names = sorted(titles(squad.examples))
    if len(names) <= valid + test:
        raise UserError(f"{squad.name} has {len(names)} articles: expected more than the {valid} of validation and the "
                        f"{test} of the test; give files as --valid and --test, or ask for fewer")  # fmt: skip
    cut = len(names) - test
    parts = names[: cut - valid], names[cut - valid : cut], names[cut:]
    return tuple([e for e in squad.examples if e.title in set(part)] for part in parts)


def write_squad(path, examples: list[Example]) -> None:
    """A file in SQuAD's form, .gz by its name."""
    articles = {}
    for e in examples:
        item = {"id": e.id, "question": e.question,
                "answers": [{"text": a.text, "answer_start": a.start} for a in e.answers]}  # fmt: skip
        articles.setdefault(e.title, {}).setdefault(e.context, []).append(item)
    data = [
        {"title": title, "paragraphs": [{"context": context, "qas": items} for context, items in paragraphs.items()]}
        for title, paragraphs in articles.items()
    ]
    content = json.dumps({"version": "1.1", "data": data}, ensure_ascii=False).encode()
    Path(path).write_bytes(gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def read_predictions(path) -> dict[str, str]:
    """{question id: answer} of a prediction file, as SQuAD's script reads it; plain or .gz."""
    try:
        found = json.loads(files.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}; expected one object, question id to answer") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is {_short(found)}: expected one object, question id to answer")
    for id, answer in found.items():
        if not isinstance(answer, str):
            raise UserError(f"{path}: the answer to {id} is {_short(answer)}: expected text")
    return found


# Facts: nothing to download, and nothing to know but what the paragraph says.

RELATIONS = (
    ("lives in", "Where does {} live?", "Who lives in {}?", "place"),
    ("works as a", "What does {} work as?", "Who works as a {}?", "job"),
    ("was born in", "When was {} born?", "Who was born in {}?", "year"),
    ("likes", "Whom does {} like?", "Who likes {}?", "person"),
    ("comes from", "Which country does {} come from?", "Who comes from {}?", "country"),
)  # fmt: skip
JOBS = ("baker", "teacher", "doctor", "farmer", "painter", "tailor", "sailor", "lawyer", "miner", "nurse", "cook",
        "judge", "singer", "writer", "dancer", "weaver")  # fmt: skip


def facts(articles: int, seed: int, paragraphs: int = 10, people: int = 3) -> list[Example]:
    """Paragraphs of facts on `people` people, two questions each, in `articles` whose names are their own.

    A name is made of syllables, so that the answer to a question of another article cannot be known, only read.
    """
    rng, found = np.random.default_rng(seed), []
    taken = set()

    def name() -> str:
        while True:
            word = "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(3))
            if word not in taken:
                taken.add(word)
                return word.capitalize()

    for article in range(articles):
        title = f"Family {name()}"
        for p in range(paragraphs):
            who = [name() for _ in range(people)]
            lines, asked = [], []
            for one in who:
                for verb, forward, backward, kind in RELATIONS:
                    if rng.random() < 0.3:
                        continue
                    what = {"place": name, "country": name, "person": name, "job": lambda: str(rng.choice(JOBS)),
                            "year": lambda: str(rng.integers(1500, 2000))}[kind]()  # fmt: skip
                    lines.append((one, verb, what))
                    asked.append((forward.format(one), what, one) if rng.random() < 0.5
                                 else (backward.format(what), one, what))  # fmt: skip
            order = rng.permutation(len(lines))
            context = " ".join(f"{lines[i][0]} {lines[i][1]} {lines[i][2]}." for i in order)
            values = [what for *_, what in lines]
            unique = [i for i in range(len(lines)) if values.count(values[i]) == 1]
            for i in rng.permutation(unique)[:2]:
                question, answer, _ = asked[i]
                sentence = f"{lines[i][0]} {lines[i][1]} {lines[i][2]}."
                at = context.index(sentence) + (0 if answer == lines[i][0] else sentence.rindex(answer))
                id = f"{zlib.crc32(f'{seed} {title} {p} {question}'.encode()):08x}{article:04d}{p:02d}"
                found.append(Example(id, title, context, question, (Answer(answer, at, at + len(answer)),)))
    return found
