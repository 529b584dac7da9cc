"""BLEU (Papineni et al. 2002) by the sacrebleu library, whose signature says how it was taken (Post 2018)."""

from collections.abc import Sequence
from typing import NamedTuple

from lmjax.errors import UserError, install


class Bleu(NamedTuple):
    """score: 0 to 100. signature: sacrebleu's, which two scores must share to be compared."""

    score: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "none") -> Bleu:
    """Of a whole test set, line by line.

    tokenize: "none" where the lines are tokens with spaces between, as multi-bleu.perl and torchtext score them; "13a"
    for plain text, sacrebleu's own standard. Case is as it stands.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise UserError("BLEU needs the sacrebleu library: " + install("translate")) from None
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references: expected one for each")
    metric = BLEU(tokenize=tokenize, force=True)
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Bleu(score, str(metric.get_signature()))
