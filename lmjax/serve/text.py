"""The text of a row as its tokens come: whole characters only, and nothing behind a stop text."""

from collections.abc import Sequence

HALF = "\ufffd"  # what stands for bytes that are no whole character, or not yet


class Text:
    """What comes behind a prompt (token ids), token by token.

    stops: texts that end it, not part of it. Text is held back while it may be the beginning of one, or half a
    character.
    """

    def __init__(self, tokenizer, prompt: Sequence[int], stops: Sequence[str] = ()):
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.ids = [int(token) for token in prompt[-8:]]  # between words stands a space: decoded with what precedes
        self.read = len(self.ids)
        self.held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now; "" where it has to wait."""
        self.ids.append(int(token))
        new = self._new()
        return "" if new.endswith(HALF) else self._past_stops(self._take(new))

    def finish(self) -> str:
        """What was held back, at the end."""
        rest = self._past_stops(self._take(self._new()))
        held, self.held = self.held, ""
        return rest if self.stopped else rest + held

    def _new(self) -> str:
        return self.tokenizer.decode(self.ids)[len(self.tokenizer.decode(self.ids[: self.read])) :]

    def _take(self, new: str) -> str:
        self.ids = self.ids[max(self.read - 8, 0) :] if len(self.ids) > 64 else self.ids
        self.read = len(self.ids)
        return new

    def _past_stops(self, new: str) -> str:
        if self.stopped:
            return ""
        text, self.held = self.held + new, ""
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]
