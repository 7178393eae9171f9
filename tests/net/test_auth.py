"""Credentials: which header they fill, which keys are refused, and that none is shown."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import SecretStr

from streamfold.errors import ConfigurationError
from streamfold.net.auth import (
    SCHEMES,
    auth_headers,
    checked_headers,
    checked_key,
    checked_query,
    revealed,
)
from streamfold.secret import Secret, redact

KEY = "canary-0123456789"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scheme", "header", "value"),
    [
        ("bearer", "authorization", f"Bearer {KEY}"),
        ("x-api-key", "x-api-key", KEY),
        ("api-key", "api-key", KEY),
        ("x-goog-api-key", "x-goog-api-key", KEY),
    ],
)
async def test_every_scheme(scheme: str, header: str, value: str) -> None:
    """A scheme fills one header, and names the secret that no text may show."""
    assert scheme in SCHEMES
    assert await auth_headers(scheme, Secret(KEY)) == ({header: value}, [KEY])


@pytest.mark.anyio
async def test_no_key_no_header() -> None:
    """Without a scheme or without a key nothing is sent."""
    assert await auth_headers(None, Secret(KEY)) == ({}, [])
    assert await auth_headers("bearer", None) == ({}, [])


@pytest.mark.anyio
async def test_a_callable_gives_a_fresh_token_each_time() -> None:
    """A callable is asked for every attempt, sync or async."""
    tokens = iter(["token-one", "token-two"])

    async def later() -> str:
        return "token-three"

    assert await auth_headers("bearer", lambda: next(tokens)) == (
        {"authorization": "Bearer token-one"},
        ["token-one"],
    )
    assert (await auth_headers("bearer", lambda: next(tokens)))[1] == ["token-two"]
    assert (await auth_headers("bearer", later))[1] == ["token-three"]


@pytest.mark.anyio
@pytest.mark.parametrize("given", [f"{KEY}\n", "", None, 7, KEY.encode()])
async def test_a_callable_that_gives_no_token(given: Any) -> None:
    """What a callable returns is checked like a key, and not shown either."""
    with pytest.raises(ConfigurationError) as caught:
        await auth_headers("bearer", lambda: given)
    assert "api_key callable" in str(caught.value)
    assert KEY not in str(caught.value)


BAD = [
    ("", "is empty"),
    (f"{KEY}\n", "a line end at its end"),
    (f"{KEY}\r\n", f"a line end at position {len(KEY)}"),
    (f"\t{KEY}", "a tab at position 0"),
    (f"{KEY} ", "a blank at its end"),
    (f"{KEY[:5]} {KEY[5:]}", "a blank at position 5"),
    (f"{KEY}\0", "a control character at its end"),
    (f"{KEY}é", "not ASCII at its end"),
    (f"{KEY}\x7f", "at its end"),
    (f"“{KEY}”", "not ASCII at position 0"),
]


@pytest.mark.parametrize(("value", "says"), BAD)
def test_keys_that_no_header_can_carry(value: str, says: str) -> None:
    """The error says what is wrong and where, and never the key."""
    with pytest.raises(ConfigurationError) as caught:
        checked_key(value, "the environment variable X")
    text = str(caught.value)
    assert text.startswith("the environment variable X ")
    assert says in text
    assert KEY not in text
    assert KEY[5:] not in text


def test_a_good_key() -> None:
    """Any visible ASCII is a key."""
    good = "".join(map(chr, range(0x21, 0x7F)))
    assert checked_key(good, "api_key").reveal() == good


class TestSecret:
    def test_shows_itself_nowhere(self) -> None:
        """Only `reveal` gives the value away."""
        secret = Secret(KEY)
        for text in (str(secret), repr(secret), f"{secret}", f"{secret:>30}", repr([secret])):
            assert KEY not in text
        assert secret.reveal() == KEY

    def test_is_not_pickled(self) -> None:
        """A pickle would hold the value."""
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret(KEY))

    def test_is_a_value(self) -> None:
        """Copies and equal secrets are the same to a dict."""
        secret = Secret(KEY)
        assert copy.copy(secret) is copy.deepcopy(secret) is secret
        assert {secret: 1}[Secret(KEY)] == 1
        assert secret != Secret("other")
        assert secret != KEY
        assert not Secret("")


class TestRedact:
    @pytest.mark.parametrize(
        "key",
        [
            "sk-abcdefghijklmnop1234",
            "sk-ant-api03-abcdefghijklmnop",
            "sk-proj-abcdefghijklmnop_1234",
            "AIza" + "a" * 35,
            "hf_" + "b" * 30,
            "gsk_" + "c" * 40,
            "xai-" + "d" * 40,
            "AKIA" + "E" * 16,
        ],
    )
    def test_what_has_the_shape_of_a_key(self, key: str) -> None:
        """Keys of known shapes go, whoever they belong to."""
        assert redact(f"bad key {key}.") == "bad key ***."

    def test_the_callers_own_keys(self) -> None:
        """A key that was sent goes wherever it is quoted, whatever its shape."""
        assert redact(f"<{KEY}> and {KEY}", [KEY]) == "<***> and ***"

    def test_bearer_tokens(self) -> None:
        """What follows "Bearer" is a token."""
        assert redact("Authorization: Bearer abc.def-ghi_jkl=") == "Authorization: Bearer ***"

    def test_ordinary_text_stays(self) -> None:
        """Prose is not a key, and a key of three letters would blank it out."""
        text = "the task-list of the disk-drive and a bearer of news"
        assert redact(text, ["the"]) == text


class TestHeaders:
    def test_those_that_tell_are_secrets(self) -> None:
        """By their names; they are revealed where the request is made, and named as secrets."""
        given = {"X-Team": "blue", "X-Api-Key": KEY, "Cookie": Secret(KEY), "Auth": SecretStr(KEY)}
        headers = checked_headers(given, "default_headers")
        assert KEY not in repr(headers)
        assert checked_headers(headers, "default_headers") == headers
        sent, secrets = revealed(headers)
        assert sent == {"x-team": "blue", "x-api-key": KEY, "cookie": KEY, "auth": KEY}
        assert secrets == [KEY] * 3
        assert revealed({}) == ({}, [])

    @pytest.mark.parametrize(
        "name", ["key", "KEY", "api_key", "api-key", "apikey", "access_token", "token", "secret"]
    )
    def test_no_key_in_a_query(self, name: str) -> None:
        """Addresses are logged on the way; other parameters are passed on as text."""
        with pytest.raises(ConfigurationError, match=name) as caught:
            checked_query({"v": 1, name: KEY}, "default_query")
        assert KEY not in str(caught.value)
        assert checked_query({"v": 1, "keyboard": "x"}, "q") == {"v": "1", "keyboard": "x"}
