"""Labelled texts in the forms people keep them: `label<TAB>text` lines, CSV, JSON lines, and trees of sentiment.

Each reader gives (line number, label, text) of every example, and raises UserError that names file and line.
"""

import csv
import io
import json
import re

from lmjax.data.text import decode
from lmjax.errors import UserError

NEUTRAL = "2"  # of the trees' labels 0 to 4


def read_labelled(content: bytes, name) -> list[tuple[int, str, str]]:
    """By the ending of the file's name, .gz aside: .csv, .jsonl or .json; any other has `label<TAB>text` lines.

    A first line that names a column `label` is a header: the texts are then in the column `text`, or in all others,
    joined. Without one the label is the first column. JSON lines are objects with `label` and `text`.
    """
    ending = str(name).removesuffix(".gz").lower().rpartition(".")[2]
    text = decode(content, name)
    if ending in ("jsonl", "json", "ndjson"):
        return read_json_lines(text, name)
    if ending == "csv":
        return read_table(csv.reader(io.StringIO(text, newline=""), strict=True), name)
    first = next(line for line in text.split("\n") if line.strip()).lower().split("\t")
    if len(first) > 1 and "label" in [cell.strip() for cell in first]:
        return read_table(csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE), name)
    return read_lines(text, name)


def read_lines(text: str, name) -> list[tuple[int, str, str]]:
    """`label<TAB>text` lines."""
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):  # a review may hold other line ends
        if not line.strip():
            continue
        label, tab, rest = line.partition("\t")
        if not tab or not label.strip():
            raise UserError(f"{name}, line {number:,} {'has an empty label' if tab else 'has no tab'}: {_short(line)}; "
                            "expected label<TAB>text")  # fmt: skip
        lines.append((number, label.strip(), rest.strip()))
    return lines


def read_table(reader, name) -> list[tuple[int, str, str]]:
    """Rows of a csv.reader."""
    lines, width, at, text = [], 0, 0, None  # the columns of the label and, where one is named so, of the text
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not width:
                width = len(row)
                names = [cell.strip().lower() for cell in row]
                if "label" in names:
                    at = names.index("label")
                    text = names.index("text") if "text" in names else None
                    continue
            if len(row) != width or width < 2:
                raise UserError(f"{name}, line {reader.line_num:,} has {len(row)} columns: expected "
                                f"{f'{width}, as the first line' if width > 1 else 'a label and a text'}")  # fmt: skip
            label = row[at].strip()
            if not label:
                raise UserError(f"{name}, line {reader.line_num:,} has an empty label: give one, or leave the line out")
            others = [row[text]] if text is not None else [cell for n, cell in enumerate(row) if n != at]
            lines.append((reader.line_num, label, " ".join(others).strip()))
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num:,} is no CSV: {error}; expected label,text") from None
    return lines


def read_json_lines(text: str, name) -> list[tuple[int, str, str]]:
    """An object a line, {"label": ..., "text": "..."}; other keys count for nothing."""
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{name}, line {number:,} is no JSON: {str(error)[:80]}; expected an object a line"
            ) from None
        found = [example.get(key) if isinstance(example, dict) else None for key in ("label", "text")]
        label, words = found
        if not isinstance(words, str) or not isinstance(label, str | int) or not str(label).strip():
            raise UserError(f'{name}, line {number:,}: {_short(line)}; expected {{"label": ..., "text": "..."}}')
        lines.append((number, str(label).strip(), " ".join(words.split())))
    return lines


def read_trees(content: bytes, name, phrases: bool, binary: bool) -> list[tuple[int, str, str]]:
    """Trees `(label child child)` or `(label word)`, one a line (Socher et al. 2013): whole sentences, or with
    `phrases` every node's, each text and label once.

    binary: 0 and 1 are negative, 3 and 4 positive, what is neutral is left out. Words are in
    lower case, as in the files of whole sentences.
    """
    lines, known = [], set()
    for number, line in enumerate(decode(content, name).split("\n"), start=1):
        if not line.strip():
            continue
        nodes = _nodes(line, f"{name}, line {number:,}")
        for label, words in nodes if phrases else nodes[-1:]:
            if binary:
                if label == NEUTRAL:
                    continue
                label = str(int(label > NEUTRAL))
            if phrases and (label, words) in known:
                continue
            known.add((label, words))
            lines.append((number, label, words))
    return lines


def _nodes(line: str, where: str) -> list[tuple[str, str]]:
    """(label, text) of every node of a tree, the whole last."""
    parts = re.findall(r"[()]|[^\s()]+", line)
    found, open_nodes = [], []  # of each open node: its label, and its words so far
    for before, part in zip(["", *parts], parts):
        if part == "(":
            open_nodes.append(["", []])
        elif not open_nodes or (before == "(" and part not in "01234"):
            break
        elif before == "(":
            open_nodes[-1][0] = part
        elif part != ")":
            open_nodes[-1][1].append(part)
        else:
            label, words = open_nodes.pop()
            found.append((label, " ".join(words).lower()))
            if open_nodes:
                open_nodes[-1][1] += words
    else:
        if found and not open_nodes:
            return found
    raise UserError(f"{where} is no tree: {_short(line)}; expected (label child child) and (label word)")


def _short(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:37] + "...")
