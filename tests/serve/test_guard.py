"""What comes before every route: the key, the host, the size, the time and the form of a request."""

import asyncio
import base64
import json

import pytest

KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def client(served, limits):
    """client(key="", local=False) -> a TestClient of a server with them."""
    from starlette.testclient import TestClient

    from lmjax.serve.app import build

    def client(key="", local=False):
        return TestClient(build(*served[:1], limits, served[1], key=key, local=local), raise_server_exceptions=False)

    return client


def post(client, content, path="/v1/completions", **headers):
    return client.post(path, content=content, headers={"Content-Type": "application/json"} | headers)


def basic(password):
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


PATHS = ("/", "/healthz", "/metrics", "/openapi.json", "/docs", "/v1/models", "/v1/models/tiny", "/v1/completions",
         "/no")  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_every_route_without_the_key_is_401(client, method):
    keyed = client(KEY)
    for path in PATHS:
        for wrong in ({}, {"Authorization": "Bearer nope"}, {"Authorization": KEY}, {"Authorization": basic("nope")},
                      {"Authorization": "Basic \xff"}, {"Authorization": "Bearer"}):  # fmt: skip
            headers = {name: value.encode("latin-1") for name, value in wrong.items()}
            answer = keyed.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, wrong)
            assert method == "HEAD" or answer.json()["error"]["code"] == "invalid_api_key"


def test_with_the_key_they_answer(client):
    keyed = client(KEY)
    for key in (f"Bearer {KEY}", f"bearer  {KEY}", basic(KEY)):
        assert keyed.get("/v1/models", headers={"Authorization": key}).status_code == 200
    headers = {"Authorization": f"Bearer {KEY}"}
    assert keyed.get("/openapi.json", headers=headers).status_code == 200
    assert keyed.get("/docs", headers=headers).status_code == 404
    assert client().get("/openapi.json").status_code == 404  # without a key nothing is described


def test_a_name_that_was_turned_to_this_machine_is_refused(client):
    local = client(local=True)
    for host, status in (("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("bad.example:8000", 403)):
        assert local.get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"prompt": NaN}', 400),
        (b'{"prompt": "a", "metadata": {"any": NaN}}', 400),
        (b'{"prompt": "a", "temperature": Infinity}', 400),
        (b'{"prompt": "a", "temperature": 1e999}', 400),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 10_000, 400),
        (b'{"a":' * 3_000 + b"1" + b"}" * 3_000, 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "\xff"}', 400),
        (b"", 400),
        (b"null", 400),
        (b'"a"', 400),
        (b"[]", 400),
        (b'{"prompt": "' + b"a" * 30_000 + b'"}', 413),
    ],
)
def test_what_is_no_request_is_refused_in_openais_form(client, body, status):
    answer = post(client(), body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_form_of_a_browser_is_no_request(client):
    """Text that any page may send across origins."""
    answer = client().post("/v1/completions", content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("sends", ["slowly", "endlessly"])
def test_a_body_that_does_not_end_is_cut_off(served, limits, sends):
    from lmjax.serve.app import build

    app, said = build(*served[:1], limits, served[1], local=False), []

    async def receive():
        if sends == "slowly":
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    assert said[0]["status"] == {"slowly": 408, "endlessly": 413}[sends]


def test_the_page_may_load_nothing_of_others(client):
    answer = client().get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    for outside in ("http://", "https://", " src=", "@import"):
        assert outside not in answer.text


def test_what_is_drawn_is_never_a_failure(client):
    """Requests near the right form and far from it: whatever comes, it is no 5xx and speaks JSON."""
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    three = {"max_size": 3}
    anything = st.recursive(plain, lambda some: st.lists(some, **three) | st.dictionaries(st.text(), some, **three))
    fields = dict.fromkeys(("model", "stop", "stream", "logit_bias", "stream_options", "x"), anything)
    fields |= {"n": st.integers(-1, 3) | anything, "max_tokens": st.integers(-1, 4) | anything,
               "temperature": st.floats(0, 2) | anything, "top_p": st.floats(0, 1) | anything,
               "top_k": st.integers(0, 2**40), "seed": st.integers(), "echo": st.booleans()}  # fmt: skip
    prompt = st.text("abc", max_size=40) | st.lists(st.integers(-1, 26), max_size=4) | anything
    form = st.fixed_dictionaries({"prompt": prompt}, optional=fields)
    some = client()
    paths = st.sampled_from(["/v1/completions"] * 4 + ["/v1/chat/completions", "/v1/embeddings", "/v1/answer"])

    @hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @hypothesis.given(paths, form | anything)
    def check(path, form):
        answer = post(some, json.dumps(form).encode("utf-8", "surrogatepass"), path)
        assert answer.status_code in (200, 400, 404, 429)
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]

    check()
