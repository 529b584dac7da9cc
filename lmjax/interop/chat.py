"""What a chat model wants to read: ChatML, the form of SmolLM2, Qwen and others.

Their files hold the form as a program in a template language. It is not run: it is looked at for whether it writes
ChatML, and for the system message it puts in front where there is none.
"""

import re

from lmjax.errors import UserError

START, END = "<|im_start|>", "<|im_end|>"


def chatml(messages: list[tuple[str, str]], template: str | None) -> str:
    """The prompt behind which the assistant's answer begins, which ends in END. messages: (role, text) in turn.

    template: of the model's files. UserError where it is not ChatML.
    """
    if not template or START not in template or END not in template:
        raise UserError("this model has no chat template of the ChatML kind: leave out --chat, or choose a chat model")
    if messages[:1] and messages[0][0] != "system" and (system := default_system(template)):
        messages = [("system", system), *messages]
    return "".join(f"{START}{role}\n{text}{END}\n" for role, text in messages) + f"{START}assistant\n"


def default_system(template: str) -> str:
    """The system message of a template's own, "" for none."""
    found = re.search(re.escape(START) + r"system(?:\n|\\n)([^{}'\"|]+)" + re.escape(END), template)
    return found[1] if found else ""
