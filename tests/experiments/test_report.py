"""The table of results: RESULTS.md is what the records give, and the page is whole, holds all it shows and says it."""

import html.parser
import json
import shutil
from pathlib import Path

import pytest

from experiments import report as script
from lmjax.errors import UserError
from lmjax.run import record
from lmjax.run.reports import pages, report, rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/results"


@pytest.fixture(scope="module")
def known():
    return rows.find()


def test_the_table_is_what_the_records_give(capsys):
    script.main(script.Config(check=True))
    assert capsys.readouterr().out.strip() == ""  # no record is said not to hold, no line differs


@pytest.fixture
def few(tmp_path):
    """Some records and their table in a folder of their own."""
    for name in ("gpt_char/nanogpt_cpu", "classify/r8_lstm", "text_gan/coco_seqgan", "bert_pretrain/tiny"):
        shutil.copytree(RESULTS / name, tmp_path / "results" / name)
    shutil.copy(RESULTS / "text_gan/curve.png", tmp_path / "results/text_gan/curve.png")
    return tmp_path


def test_an_edited_table_is_told(few, capsys):
    check = script.Config(results=str(few / "results"), check=True)
    script.main(script.Config(results=str(few / "results"), output=str(few)))
    assert capsys.readouterr().out.startswith("2 reproduced, 1 short, 0 partial, 1 own, ")
    assert (few / "RESULTS.html").read_text().startswith("<!doctype html>")
    script.main(check)
    table = few / "RESULTS.md"
    assert "1.807 ± 0.004 (3)" in table.read_text()
    table.write_text(table.read_text().replace("1.807", "1.707", 1))
    with pytest.raises(UserError, match="differs from the records in 2 lines"):
        script.main(check)
    assert "+| **nanogpt_cpu**" in capsys.readouterr().out
    with pytest.raises(UserError, match="is no folder"):
        script.main(script.Config(results=str(few / "nowhere")))


def test_rows_their_variants_and_what_came_before(few, known):
    table = report.lines(known, rows.records(few / "results"))
    found = {name: [(line.title, line.standing, line.verdict) for line in lines] for name, lines in table.items()}
    assert [line for line in found["classify"] if "r8" in line[0]] == [
        ("r8_lstm", "row", "reproduced"), ("r8_lstm --vectors=vectors.txt", "other", "partial"),
    ]  # fmt: skip
    assert [line for line in found["bert_pretrain"] if "tiny" in line[0]] == [
        ("tiny", "row", "own"), ("tiny", "earlier", "own"), ("tiny", "earlier", "own"),
        ("tiny --lr=5e-4 --steps=2400 --model.context=64 --warmup=100", "other", "own"),
    ]  # fmt: skip
    assert ("nanogpt_gpu", "row", "not run") in found["gpt_char"]
    figure = report.figures(next(line for line in table["gpt_char"] if line.title == "nanogpt_gpu"))[0][0]
    assert (figure.ours, figure.published, figure.source) == ("", "1.4697", "nanoGPT README (V)")
    counts = report.counts(table)
    assert counts == {"reproduced": 2, "short": 1, "partial": 0, "own": 1, "not run": sum(counts.values()) - 4}
    names = {row.name for row in known}
    assert {f"{name}/{line[0]}" for name, lines in found.items() for line in lines if line[1] == "row"} <= names
    shown = {f"{name}/{line[0]}" for name, lines in found.items() for line in lines}
    assert {row.name for row in known if row.preset} <= shown


def test_a_record_of_a_lost_preset_is_still_shown(few, known):
    table = report.lines([row for row in known if row.name != "classify/r8_lstm"], rows.records(few / "results"))
    assert [line.help for line in table["classify"] if "r8" in line.title] == ["no preset any more"] * 2


def test_the_newest_of_a_day_is_the_row(few):
    newest = rows.records(few / "results")["bert_pretrain/tiny"]
    assert [kept.folder.name for kept in newest] == ["2026-11-25-4", "2026-11-25-3", "2026-11-25-2", "2026-11-25"]
    (few / "results/bert_pretrain/tiny/2026-11-25-4").rename(few / "results/bert_pretrain/tiny/2026-11-25-10")
    assert rows.records(few / "results")["bert_pretrain/tiny"][0].folder.name == "2026-11-25-10"


@pytest.mark.parametrize(
    ("values", "shown"),
    [([114.5, 114.0], "114.2 ± 0.35 (2)"), ([9.0131], "9.013"), ([7.0], "7"), ([0.02119], "0.0212"),
     ([0.0, 0.0], "0 ± 0 (2)"), ([13244.5], "13244"), ([-0.76881, -0.5], "-0.6344 ± 0.1901 (2)"),
     ([1.0, float("nan")], "not finite in 1 of 2")],
)  # fmt: skip
def test_figures_are_shown_by_four_digits(values, shown):
    assert report.spread(record._spread(values)) == shown


class Page(html.parser.HTMLParser):
    """The page's tags: unclosed ones, pictures without words, what is fetched from elsewhere, and its text."""

    VOID = ("meta", "img", "input", "path", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.tags, self.words = [], [], [], []
        self.feed(text)
        self.wrong += self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img" and not attributes.get("alt"):
            self.wrong.append("img without alt")
        if tag == "svg" and not attributes.get("aria-label"):
            self.wrong.append("svg without a name")
        for name in ("src", "href"):
            if not (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,")):
                self.wrong.append(attributes[name])

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole(few, known):
    path = few / "results/classify/r8_lstm/2026-11-25/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"notes": "<script>alert('x')</script> & more"}))
    (path.parent / "sample.txt").write_text("a <b> sample")
    shutil.copy(RESULTS / "text_gan/curve.png", path.parent / "confusion.png")
    text = pages.page(report.lines(known, rows.records(few / "results")))
    page = Page(text)
    assert page.wrong == []
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1  # ours
    said = "".join(page.words)
    for words in ("<script>alert('x')</script> & more", "a <b> sample", "1.807 ± 0.004", "wants a GPU", "Texygen (V)"):
        assert words in said
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        "confusion of classify r8_lstm", "curve of text_gan",
    ]  # fmt: skip
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert sections == [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    curves = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert "loss in validation against the step: 1.802 to 1.81 at step 2,000" in curves
    assert text.count("Texygen (V)") == 2  # of two rows, each with eight figures of its
    assert len(text) < 600_000


def test_a_curve_has_a_line_for_each_seed_and_lane():
    drawn = pages.curve(RESULTS / "gpt_char/nanogpt_cpu/2026-11-24", ["validation_loss"])
    assert (drawn.count('class="valid"'), drawn.count('class="train"'), drawn.count('class="lane"')) == (3, 3, 0)
    drawn = pages.curve(RESULTS / "seqgan/mle/2026-11-25", ["nll_oracle"])
    assert (drawn.count('class="valid"'), drawn.count('class="lane"')) == (1, 5)
    assert "nll oracle in validation" in drawn
    assert pages.curve(RESULTS / "linear_text/imdb_bow/2026-11-24", []) == ""
