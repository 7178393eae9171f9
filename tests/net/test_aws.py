"""AWS: signatures as its published test suite has them, and where the credentials come from.

The cases are those of the Signature Version 4 test suite (AWS General Reference) that are POSTs of
what we send: they go through the call that every model makes, to a client that looks at them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.credentials
import botocore.session
import httpx
import pytest

from streamfold.chat_models import init_chat_model
from streamfold.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    PermissionDeniedError,
    RequestTimeoutError,
)
from streamfold.limits import DEFAULT_LIMITS, Timeouts
from streamfold.net import aws
from streamfold.net.aws import AwsCredentials
from streamfold.net.clients import Connections
from streamfold.net.transport import Call, stream_batches
from streamfold.secret import Secret
from streamfold.testing import EmbeddedProvider
from streamfold.wire import bedrock
from streamfold.wire.request import HTTPRequest

pytestmark = pytest.mark.anyio

ACCESS = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDry"
    "pNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
KEYS = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET}
MODEL = "us.anthropic.claude-sonnet-4-20250514-v1:0"


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment, a home and an instance without AWS."""
    import os

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def in_2015(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the test suite."""
    monkeypatch.setattr(aws, "_now", lambda: datetime(2015, 8, 30, 12, 36, tzinfo=UTC))


def suite(**more: Any) -> AwsCredentials:
    return AwsCredentials(region="us-east-1", service="service", **KEYS, **more)


# ---- signatures ----------------------------------------------------------------------------------

SCOPE = f"AWS4-HMAC-SHA256 Credential={ACCESS}/20150830/us-east-1/service/aws4_request, "
HOST = "https://example.amazonaws.com"
FORM = {"content-type": "application/x-www-form-urlencoded"}

CASES = [
    ("post-vanilla", "/", {}, b"", None, "host;x-amz-date",
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ("post-vanilla-query", "/?Param1=value1", {}, b"", None, "host;x-amz-date",
     "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"),
    ("post-x-www-form-urlencoded", "/", FORM, b"Param1=value1", None,
     "content-type;host;x-amz-date",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ("post-sts-header-before", "/", {}, b"", TOKEN, "host;x-amz-date;x-amz-security-token",
     "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"),
]  # fmt: skip


@pytest.mark.usefixtures("in_2015")
@pytest.mark.parametrize(
    ("target", "headers", "body", "token", "names", "signature"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
async def test_the_published_suite(
    target: str, headers: Any, body: bytes, token: str | None, names: str, signature: str
) -> None:
    credentials = suite(aws_session_token=token)
    added, secrets = await credentials.sign("POST", HOST + target, headers, body)
    assert added == {
        "x-amz-date": "20150830T123600Z",
        **({"x-amz-security-token": token} if token else {}),
        "authorization": f"{SCOPE}SignedHeaders={names}, Signature={signature}",
    }
    assert set(secrets) == {SECRET, added["authorization"], signature, *([token] if token else [])}


class Server:
    """A client of the caller's that answers by itself and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.threads: list[int] = []
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0) if self.answers else httpx.Response(200, content=WHOLE)


WHOLE = json.dumps(
    {"output": {"message": {"content": [{"text": "a"}]}}, "stopReason": "end_turn"}
).encode()


def call(server: Server, credentials: AwsCredentials, **fields: Any) -> Call:
    return Call(
        **{
            "request": HTTPRequest(path="/", body=b"Param1=value1"),
            "base_url": HOST,
            "decoder": bedrock.Decoder,
            "connections": Connections(http_client=server.client),
            "timeouts": Timeouts(),
            "limits": DEFAULT_LIMITS,
            "stream": False,
            "auth": "sigv4",
            "key": credentials,
            "headers": FORM,
            **fields,
        }
    )


async def run(made: Call) -> None:
    async for _ in stream_batches(made):
        pass


@pytest.mark.usefixtures("in_2015")
async def test_the_published_suite_through_a_call() -> None:
    """What leaves the client has the signature of the suite: other headers are not signed."""
    server = Server()
    await run(call(server, suite(), headers={**FORM, "x-other": "1"}))
    (sent,) = server.asked
    assert (sent.method, str(sent.url), sent.content) == ("POST", HOST + "/", b"Param1=value1")
    assert sent.headers["authorization"].endswith(CASES[2][-1])
    assert sent.headers["x-amz-date"] == "20150830T123600Z"


async def test_each_attempt_is_signed_anew(
    monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    times = iter(datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(5))
    monkeypatch.setattr(aws, "_now", lambda: next(times))
    server = Server(httpx.Response(503), httpx.Response(429))
    await run(call(server, suite()))
    dates = [sent.headers["x-amz-date"] for sent in server.asked]
    assert dates == ["20260101T000000Z", "20260101T000001Z", "20260101T000002Z"]
    assert len({sent.headers["authorization"] for sent in server.asked}) == 3


@pytest.mark.parametrize(
    "model",
    [MODEL, "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_as_awss_own_sdk(
    model: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same address, byte for byte, and the signature that botocore would give it."""
    server = Server()
    ours = init_chat_model(
        model, model_provider="bedrock", region_name="us-east-1", http_client=server.client, **KEYS
    )
    if stream:
        assert [chunk.text async for chunk in ours.astream("hi")] == ["a"]
    else:
        assert (await ours.ainvoke("hi")).text == "a"
    (sent,) = server.asked

    session = botocore.session.Session()
    session.set_credentials(ACCESS, SECRET)
    client = session.create_client("bedrock-runtime", region_name="us-east-1")
    seen: list[Any] = []

    def stop(request: Any, **_: Any) -> Any:
        seen.append(request)
        raise InterruptedError

    client.meta.events.register("before-send.bedrock-runtime.*", stop)
    asked = client.converse_stream if stream else client.converse
    with pytest.raises(InterruptedError):
        asked(modelId=model, messages=[{"role": "user", "content": [{"text": "hi"}]}])
    client.close()
    assert str(sent.url) == seen[0].url
    assert json.loads(sent.content) == json.loads(seen[0].body)

    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    theirs = AWSRequest(
        "POST", seen[0].url, {"content-type": sent.headers["content-type"]}, sent.content
    )
    credentials = botocore.credentials.Credentials(ACCESS, SECRET)
    SigV4Auth(credentials, "bedrock", "us-east-1").add_auth(theirs)
    then = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr(aws, "_now", lambda: then)
    await ours.ainvoke("hi") if not stream else [chunk async for chunk in ours.astream("hi")]
    assert server.asked[1].content == sent.content
    assert server.asked[1].headers["authorization"] == theirs.headers["Authorization"]


async def test_the_host_that_is_signed_is_the_one_that_is_asked() -> None:
    """With its port, on the wire: a server of ours sees what was signed."""
    with EmbeddedProvider() as provider:
        model = init_chat_model(
            MODEL, model_provider="bedrock", base_url=provider.url, region_name="eu-west-1", **KEYS
        )
        async with model:
            await model.ainvoke("hi")
    (sent,) = provider.requests
    date = sent.headers["x-amz-date"]
    again = AwsCredentials(region="eu-west-1", **KEYS)
    quoted = MODEL.replace(":", "%3A")
    with pytest.MonkeyPatch.context() as patch:
        now = datetime.strptime(date, "%Y%m%dT%H%M%SZ")
        patch.setattr(aws, "_now", lambda: now)
        url = f"http://{sent.headers['host']}/model/{quoted}/converse"
        added, _ = await again.sign("POST", url, sent.headers, sent.body)
    assert sent.headers["authorization"] == added["authorization"]


# ---- bearer keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["parameter", "variable"])
async def test_an_api_key_is_sent_as_it_is(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of AWS is needed for it: no credentials, no botocore, streaming included."""
    without_botocore(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    params = {"api_key": "bedrock-key"} if given == "parameter" else {}
    if given == "variable":
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key")
    with EmbeddedProvider() as provider:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", provider.url)
        async with init_chat_model(MODEL, model_provider="bedrock", **params) as model:
            whole = await model.ainvoke("hi")
            pieces = [chunk.text async for chunk in model.astream("hi")]
    assert "".join(pieces) == whole.text != ""
    for request in provider.requests:
        assert request.headers["authorization"] == "Bearer bedrock-key"
        assert "x-amz-date" not in request.headers


@pytest.mark.parametrize(
    ("params", "scheme"),
    [
        ({}, "Bearer around"),
        ({"api_key": "given"}, "Bearer given"),
        (KEYS, "AWS4-HMAC-SHA256"),
        ({"credentials_profile_name": "work"}, "AWS4-HMAC-SHA256"),
        ({"api_key": "given", "credentials_profile_name": "work"}, "Bearer given"),
    ],
    ids=["ambient", "api_key", "keys", "profile", "api_key for the region of a profile"],
)
async def test_what_is_given_goes_before_what_is_around(
    params: dict[str, Any], scheme: str, no_aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API key or a pair of AWS keys as a parameter, over both in the environment."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "around")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDAROUND")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    write_config(no_aws, "[profile work]\nregion = us-east-1\n")
    credentials = "[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = secret\n"
    (no_aws / "credentials").write_text(credentials, encoding="utf-8")
    with EmbeddedProvider() as provider:
        fields = {"base_url": provider.url, "region_name": "us-east-1", **params}
        async with init_chat_model(MODEL, model_provider="bedrock", **fields) as model:
            await model.ainvoke("hi")
    (request,) = provider.requests
    authorization = request.headers["authorization"]
    assert authorization.startswith(scheme)
    assert "AKIDAROUND" not in authorization


async def test_two_ways_to_authorise() -> None:
    """An API key next to AWS keys, both as parameters: which of them is meant cannot be told."""
    with pytest.raises(ConfigurationError, match="api_key and aws_access_key_id"):
        init_chat_model(MODEL, model_provider="bedrock", api_key="k", region="us-east-1", **KEYS)


async def test_copies_share_the_credentials_that_were_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A source such as SSO or an instance's metadata is asked once, not by each `bind`."""
    asked = []
    look = AwsCredentials._look_for_credentials

    def counted(credentials: AwsCredentials) -> Any:
        asked.append(credentials)
        return look(credentials)

    monkeypatch.setattr(AwsCredentials, "_look_for_credentials", counted)
    with EmbeddedProvider() as provider:
        fields = {"base_url": provider.url, "region_name": "us-east-1", **KEYS}
        async with init_chat_model(MODEL, model_provider="bedrock", **fields) as model:
            copy = model.model_copy(update={"temperature": 0.5, "profile": {}})
            for each in (model, model.bind(stop=["x"]), model.with_config(tags=["a"]), copy):
                await each.ainvoke("hi")
            assert len(asked) == 1
            other = model.model_copy(update={"aws_secret_access_key": "another"})
            await other.ainvoke("hi")
    assert len(asked) == 2


async def test_the_scheme_with_a_plain_key_is_a_bearer_token() -> None:
    server = Server()
    await run(call(server, Secret("bedrock-key")))  # type: ignore[arg-type]
    assert server.asked[0].headers["authorization"] == "Bearer bedrock-key"


# ---- the region ----------------------------------------------------------------------------------


def write_config(home: Path, text: str) -> None:
    (home / "config").write_text(text, encoding="utf-8")


async def test_where_the_region_is_looked_for(
    no_aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameter, AWS_REGION, AWS_DEFAULT_REGION, the profile that is named, the default one."""
    write_config(
        no_aws, "[default]\nregion = eu-south-1\n[profile work]\nregion = eu-north-1\n[profile x]\n"
    )
    assert AwsCredentials().find_region() == "eu-south-1"
    assert AwsCredentials(profile="work").find_region() == "eu-north-1"
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert AwsCredentials().find_region() == "eu-north-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    assert AwsCredentials().find_region() == "us-west-1"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert AwsCredentials().find_region() == "us-west-2"
    assert AwsCredentials(region="us-gov-west-1").find_region() == "us-gov-west-1"
    server = Server()
    model = init_chat_model(
        MODEL, model_provider="bedrock", region="us-east-2", api_key="k", http_client=server.client
    )
    await model.ainvoke("hi")
    assert server.asked[0].url.host == "bedrock-runtime.us-east-2.amazonaws.com"


async def test_no_region(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to set, and, without botocore, that profiles are not read."""
    says = "the AWS region is missing: set AWS_REGION or AWS_DEFAULT_REGION, or give region_name="
    with pytest.raises(ConfigurationError, match=says):
        AwsCredentials().find_region()
    write_config(no_aws, "[profile x]\n")
    with pytest.raises(ConfigurationError, match=says):
        AwsCredentials(profile="x").find_region()
    with pytest.raises(ConfigurationError, match=rf"{says} \(.*nowhere"):
        AwsCredentials(profile="nowhere").find_region()
    with pytest.raises(ConfigurationError, match=says):
        init_chat_model(MODEL, model_provider="bedrock", **KEYS)
    without_botocore(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"only read with botocore: pip install "):
        AwsCredentials().find_region()


@pytest.mark.parametrize(
    "region", ["", "us east 1", "evil.example/", "us-east-1.evil", "US-EAST-1"]
)
async def test_what_is_no_region(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes part of the address the key is sent to."""
    with pytest.raises(ConfigurationError, match=r"region_name is .*expected an AWS region"):
        AwsCredentials(region=region).find_region()
    if region:
        monkeypatch.setenv("AWS_REGION", region)
        with pytest.raises(ConfigurationError, match="the environment variable AWS_REGION is"):
            AwsCredentials().find_region()


# ---- credentials ---------------------------------------------------------------------------------


async def signed_by(credentials: AwsCredentials) -> tuple[str, str | None]:
    """Whose access key, and with which token."""
    added, _ = await credentials.sign("POST", HOST + "/", {}, b"")
    access = added["authorization"].split("Credential=")[1].split("/")[0]
    return access, added.get("x-amz-security-token")


class SecretStr:
    """pydantic's."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


async def test_where_credentials_are_looked_for(
    no_aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, the profile that is named, botocore's chain."""
    (no_aws / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = s\n"
        "[work]\naws_access_key_id = WORK\naws_secret_access_key = s\naws_session_token = t\n",
        encoding="utf-8",
    )
    region = {"region": "us-east-1"}
    assert await signed_by(AwsCredentials(**region)) == ("DEFAULT", None)
    assert await signed_by(AwsCredentials(profile="work", **region)) == ("WORK", "t")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "u")
    assert await signed_by(AwsCredentials(**region)) == ("ENV", "u")
    assert await signed_by(AwsCredentials(profile="work", **region)) == ("WORK", "t")
    given = AwsCredentials(profile="work", **KEYS, **region)
    assert await signed_by(given) == (ACCESS, None)


@pytest.mark.parametrize("wrap", [str, Secret, SecretStr])
async def test_keys_in_any_wrapping(wrap: Any) -> None:
    keys = {name: wrap(value) for name, value in KEYS.items()}
    given = AwsCredentials(region="us-east-1", **keys, aws_session_token=wrap("t"))
    assert await signed_by(given) == (ACCESS, "t")


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({"aws_access_key_id": ACCESS}, "aws_secret_access_key is missing"),
        ({"aws_secret_access_key": SECRET}, "aws_access_key_id is missing"),
        ({"aws_session_token": TOKEN}, "aws_access_key_id is missing"),
    ],
)
async def test_half_a_pair_of_keys(keys: Any, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        AwsCredentials(region="us-east-1", **keys)


async def test_no_credentials() -> None:
    with pytest.raises(ConfigurationError, match=r"set AWS_ACCESS_KEY_ID and .*BEARER_TOKEN"):
        await signed_by(AwsCredentials(region="us-east-1"))
    with pytest.raises(ConfigurationError, match=r"no AWS credentials: .*\(nowhere\)"):
        await signed_by(AwsCredentials(region="us-east-1", profile="nowhere"))


async def test_half_a_pair_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    with pytest.raises(ConfigurationError, match="no AWS credentials: Partial credentials"):
        await signed_by(AwsCredentials(region="us-east-1"))


def without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "botocore"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)


async def test_without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to install, and what works without."""
    without_botocore(monkeypatch)
    with pytest.raises(ConfigurationError) as caught:
        await signed_by(suite())
    assert 'pip install "streamfold[bedrock]"' in str(caught.value)
    assert "AWS_BEARER_TOKEN_BEDROCK" in str(caught.value)


async def test_a_source_that_is_out_of_reach_is_tried_again(quick_retries: None) -> None:
    """A call whose credentials cannot be fetched is a connection that failed."""
    from botocore.exceptions import ConnectTimeoutError

    credentials = AwsCredentials(region="us-east-1")
    asked = 0

    class Flaky:
        def get_frozen_credentials(self) -> Any:
            nonlocal asked
            asked += 1
            if asked < 3:
                raise ConnectTimeoutError(endpoint_url="http://169.254.169.254")
            return botocore.credentials.Credentials(ACCESS, SECRET).get_frozen_credentials()

    credentials._found = Flaky()
    server = Server()
    with pytest.raises(ConnectError, match="out of reach"):
        await run(call(server, credentials, max_retries=0))
    await run(call(server, credentials))
    assert (asked, len(server.asked)) == (3, 1)


async def test_credentials_are_refreshed_when_they_are_due() -> None:
    """Each request is signed with those of its moment."""
    credentials = AwsCredentials(region="us-east-1")
    names = iter(["FIRST", "SECOND"])

    class Rotating:
        def get_frozen_credentials(self) -> Any:
            made = botocore.credentials.Credentials(next(names), "s")
            return made.get_frozen_credentials()

    credentials._found = Rotating()
    assert [(await signed_by(credentials))[0] for _ in range(2)] == ["FIRST", "SECOND"]


# ---- what must not happen ------------------------------------------------------------------------


class Slow:
    """Credentials that take their time, and say in which thread they were asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads: set[int] = set()

    def get_frozen_credentials(self) -> Any:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        return botocore.credentials.Credentials(ACCESS, SECRET).get_frozen_credentials()


async def test_the_event_loop_never_waits_for_credentials() -> None:
    credentials = AwsCredentials(region="us-east-1")
    credentials._found = slow = Slow(0.0)
    await run(call(Server(), credentials))
    assert slow.threads
    assert threading.get_ident() not in slow.threads


async def test_waiting_for_credentials_has_a_limit() -> None:
    credentials = AwsCredentials(region="us-east-1")
    credentials._found = Slow(1.0)
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError) as caught:
        await run(call(Server(), credentials, timeouts=Timeouts(first_event=0.1), max_retries=0))
    assert caught.value.limit == "first_event"
    assert time.monotonic() - began < 0.9


async def test_no_secret_is_shown(every_log: pytest.LogCaptureFixture) -> None:
    """Not in an error that quotes the request, as AWS's do, nor in a log at any level, nor in a
    repr; AWS quotes the canonical request, which has the session token in it."""

    def quoting(request: httpx.Request) -> httpx.Response:
        quoted = dict(request.headers)
        text = f"The request signature we calculated does not match: {quoted} {SECRET}"
        headers = {"x-amzn-errortype": "InvalidSignatureException:http://x/"}
        return httpx.Response(403, headers=headers, json={"message": text})

    server = Server()
    server.client = httpx.AsyncClient(transport=httpx.MockTransport(quoting))
    credentials = suite(aws_session_token=TOKEN)
    with pytest.raises(PermissionDeniedError) as caught:
        await run(call(server, credentials))
    error = caught.value
    assert error.type == "InvalidSignatureException"
    shown = [str(error), repr(error), str(error.args), str(error.body), repr(credentials)]
    shown += [record.getMessage() for record in every_log.records]
    for text in shown:
        assert SECRET not in text
        assert TOKEN not in text
        assert "Signature=" not in text
    assert "does not match" in str(error)


async def test_a_model_does_not_show_its_keys() -> None:
    model = init_chat_model(
        MODEL, model_provider="bedrock", region_name="us-east-1", aws_session_token=TOKEN, **KEYS
    )
    bound = model.bind(temperature=0.5)
    for text in (repr(model), str(model), repr(bound)):
        assert SECRET not in text
        assert TOKEN not in text


def test_a_fork_does_not_inherit_a_lock() -> None:
    """The child gets one of its own, whoever held that of the parent."""
    credentials = suite()
    credentials._process += 1  # as in a child
    with credentials._lock:
        signing = credentials.sign("POST", HOST + "/", {}, b"")
        with suppress(TimeoutError):
            added, _ = asyncio.run(asyncio.wait_for(signing, 5))
    assert added["authorization"].startswith("AWS4-HMAC-SHA256 ")


async def test_many_at_once() -> None:
    """Several calls of one model look for its credentials once."""
    import anyio

    looked: list[int] = []

    class Counting(AwsCredentials):
        def _look_for_credentials(self) -> Any:
            looked.append(1)
            time.sleep(0.02)
            return super()._look_for_credentials()

    credentials = Counting(region="us-east-1", **KEYS)
    server = Server()
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(run, call(server, credentials))
    assert (len(looked), len(server.asked)) == (1, 8)


async def test_a_refused_key_is_the_vendors_error() -> None:
    server = Server(httpx.Response(401, json={"message": "no"}))
    with pytest.raises(AuthenticationError, match="no"):
        await run(call(server, suite()))
