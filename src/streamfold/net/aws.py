"""AWS: where the credentials are, which region, and Signature Version 4 for each attempt.

botocore (the extra ``streamfold[bedrock]``) finds and refreshes credentials and knows the canonical
form of a request. It is imported when it is first needed, and asked in a thread, since it reads
files and may speak to the network. With an API key (``AWS_BEARER_TOKEN_BEDROCK``) nothing here
needs it but a region that is only in a profile.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from ..errors import ConfigurationError, ConnectError
from ..secret import Secret
from .auth import Signer

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["AwsCredentials"]

_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PIP: Final = 'pip install "streamfold[bedrock]"'


class AwsCredentials(Signer):
    """Signs requests for one region of AWS.

    - `region`: None looks at AWS_REGION, AWS_DEFAULT_REGION and the profile, in this order;
    - `profile`: a name in ``~/.aws/config`` or ``~/.aws/credentials``;
    - the three keys: as `Secret`, str or pydantic's SecretStr. Without them, botocore's default
      chain: environment, profile, SSO, container, instance, ...;
    - `service`: as it is written in signatures.

    Credentials are looked for when the first request is signed, and refreshed when they are due.
    Raises ConfigurationError for half a pair of keys.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        aws_access_key_id: Any = None,
        aws_secret_access_key: Any = None,
        aws_session_token: Any = None,
        service: str = "bedrock",
    ) -> None:
        self._region = region
        self._profile = profile
        self._service = service
        self._keys = tuple(
            _as_secret(key) for key in (aws_access_key_id, aws_secret_access_key, aws_session_token)
        )
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._session: Session | None = None
        self._found: Any = None
        access, secret, token = self._keys
        if (access is None) != (secret is None) or (token is not None and access is None):
            missing = "aws_access_key_id" if access is None else "aws_secret_access_key"
            raise ConfigurationError(
                f"{missing} is missing: expected aws_access_key_id together with "
                "aws_secret_access_key, or none of the two"
            )

    def __repr__(self) -> str:
        return f"AwsCredentials(region={self._region!r}, profile={self._profile!r})"

    def find_region(self) -> str:
        """The region. Raises ConfigurationError if there is none, or what is there is none."""
        found, source = self._region, "region_name"
        for name in _REGIONS:
            if found is None and os.environ.get(name):
                found, source = os.environ[name], f"the environment variable {name}"
        if found is None:
            with self._alone():
                found = self._region_of_profile()
            source = "the region of the AWS profile"
        if not isinstance(found, str) or not re.fullmatch(r"[a-z0-9-]+", found):
            raise ConfigurationError(
                f"{source} is {found!r}: expected an AWS region such as 'us-east-1'"
            )
        self._region = found
        return found

    async def sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[dict[str, str], list[str]]:
        """The headers that make the request an authorised one, and the secrets in them."""
        signed = {name: value for name, value in headers.items() if _is_signed(name)}
        return await anyio.to_thread.run_sync(
            self._sign, method, url, signed, body, abandon_on_cancel=True
        )

    def _alone(self) -> threading.Lock:
        """botocore's sessions are for one thread at a time. A lock that was held when the process
        forked is held for ever in the child, which gets one of its own."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    # ---- in the thread ---------------------------------------------------------------------------

    def _sign(
        self, method: str, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[dict[str, str], list[str]]:
        credentials = self._credentials()
        region = self.find_region()
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        auth = SigV4Auth(credentials, self._service, region)
        added = {"x-amz-date": _now().strftime("%Y%m%dT%H%M%SZ")}
        if credentials.token:
            added["x-amz-security-token"] = credentials.token
        request = AWSRequest(method, url, headers={**headers, **added}, data=body)
        request.context["timestamp"] = added["x-amz-date"]
        # Not by `add_auth`: it logs the canonical request, and with it the session token.
        canonical = auth.canonical_request(request)
        signature = auth.signature(auth.string_to_sign(request, canonical), request)
        names = auth.signed_headers(auth.headers_to_sign(request))
        added["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        hidden = (credentials.secret_key, credentials.token, added["authorization"], signature)
        return added, [str(secret) for secret in hidden if secret]

    def _credentials(self) -> Any:
        """The keys as they are now, refreshed if they are due."""
        with self._alone():
            botocore = _botocore()
            try:
                if self._found is None:
                    self._found = self._look_for_credentials()
                return self._found.get_frozen_credentials()
            except (botocore.HTTPClientError, botocore.ConnectionError) as error:
                raise ConnectError(
                    f"no AWS credentials, for their source is out of reach ({error})",
                    retryable=True,
                ) from None
            except (botocore.BotoCoreError, botocore.ClientError) as error:
                raise ConfigurationError(f"no AWS credentials: {error}") from None

    def _look_for_credentials(self) -> Any:
        access, secret, token = self._keys
        if access is not None and secret is not None:
            from botocore.credentials import Credentials

            return Credentials(access.reveal(), secret.reveal(), token.reveal() if token else None)
        found = self._own_session().get_credentials()
        if found is None:
            raise ConfigurationError(
                "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_BEARER_TOKEN_BEDROCK, or configure a profile ('aws configure'), or give "
                "aws_access_key_id= and aws_secret_access_key=, credentials_profile_name= or "
                "api_key="
            )
        return found

    def _own_session(self) -> Session:
        if self._session is None:
            from botocore.session import Session

            self._session = Session(profile=self._profile)
        return self._session

    def _region_of_profile(self) -> str:
        how = f"set {' or '.join(_REGIONS)}, or give region_name="
        try:
            botocore = _botocore()
        except ConfigurationError:
            raise ConfigurationError(
                f"the AWS region is missing: {how} (profiles are only read with botocore: {_PIP})"
            ) from None
        try:
            found = self._own_session().get_config_variable("region")
        except botocore.BotoCoreError as error:
            raise ConfigurationError(f"the AWS region is missing: {how} ({error})") from None
        if not found:
            raise ConfigurationError(f"the AWS region is missing: {how}")
        return str(found)


def _botocore() -> Any:
    """The exceptions of botocore, which stand for it being there."""
    try:
        import botocore.exceptions
    except ImportError:
        raise ConfigurationError(
            f"AWS credentials need botocore: {_PIP}; or use an API key, which does not "
            "(AWS_BEARER_TOKEN_BEDROCK or api_key=)"
        ) from None
    return botocore.exceptions


def _as_secret(key: Any) -> Secret | None:
    if key is None or isinstance(key, Secret):
        return key
    if hasattr(key, "get_secret_value"):  # pydantic's SecretStr
        key = key.get_secret_value()
    return Secret(str(key))


def _is_signed(name: str) -> bool:
    """AWS demands these. Others are left out: a proxy on the way may change them."""
    return name.lower() == "content-type" or name.lower().startswith("x-amz")


def _now() -> datetime:
    return datetime.now(UTC)
