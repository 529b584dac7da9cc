"""What requests look like, by pydantic: OpenAI's fields, and ours of the routes that OpenAI has not.

A field that no request may have is named with the remedy; one that changes nothing here (`user`, `metadata`) is taken.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator


def unless(*neutral):
    """A field that is known and not supported: only null and the values that change nothing are taken."""

    def check(value):
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise ValueError("is not supported by this server: leave it out")
        return value

    return Annotated[Any, BeforeValidator(check)]


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Request(Form):
    model: Annotated[str, StringConstraints(max_length=256)] | None = None
    user: str | None = None


Stop = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Writing(Request):
    """What completions and chats share. A null is as good as nothing."""

    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    n: int | None = Field(None, ge=1, le=1024)
    stop: Stop | list[Stop] | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    metadata: dict | None = None
    service_tier: str | None = None
    store: bool | None = None
    presence_penalty: unless(0, 0.0) = None
    frequency_penalty: unless(0, 0.0) = None
    logit_bias: unless({}) = None

    @model_validator(mode="after")
    def _options(self):
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream=true only: leave it out")
        if unknown := set(self.stream_options or ()) - {"include_usage", "include_obfuscation"}:
            raise ValueError(f"unknown field stream_options.{min(unknown)}: leave it out")
        return self


Ids = list[Annotated[int, Field(ge=0, lt=2**31)]]


class Completion(Writing):
    prompt: str | list[str] | Ids | list[Ids]
    max_tokens: int | None = Field(None, ge=1)
    echo: bool | None = None
    best_of: unless(1) = None
    logprobs: unless() = None
    suffix: unless("") = None


class Part(Form):
    type: Literal["text"]
    text: str


class Message(Form):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Chat(Writing):
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    logprobs: unless(False) = None
    top_logprobs: unless(0) = None
    response_format: unless({"type": "text"}) = None
    modalities: unless(["text"]) = None
    tools: unless([]) = None
    tool_choice: unless("none") = None
    parallel_tool_calls: unless(True, False) = None
    functions: unless([]) = None
    function_call: unless("none") = None
    audio: unless() = None
    prediction: unless() = None
    reasoning_effort: unless("none") = None
    verbosity: unless("medium") = None
    web_search_options: unless() = None


class Embedding(Request):
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class Texts(Request):
    """Of /v1/classify, /v1/tag (words with spaces between them, `word|NN` for a tagger that reads parts of speech) and
    /v1/translate."""

    input: str | list[str]


class Question(Form):
    question: str
    context: str


class Questions(Request):
    """Of /v1/answer: one question and its text, or a list of them as `input`."""

    question: str | None = None
    context: str | None = None
    input: list[Question] | None = None

    @model_validator(mode="after")
    def _one(self):
        both = self.question is not None and self.context is not None
        if both == (self.input is not None) or (self.question is None) != (self.context is None):
            raise ValueError("expected question and context, or input, a list of objects with both")
        return self

    def asked(self) -> list[tuple[str, str]]:
        return [(one.question, one.context) for one in ([self] if self.input is None else self.input)]
