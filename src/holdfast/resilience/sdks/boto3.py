"""boto3: every service's client, as `boto3.client("s3")` makes it."""

from typing import Any

from holdfast.outcome import Cause, Effect
from holdfast.resilience.sdks.kinds import is_any
from holdfast.resilience.sdks.sdk import Asked, Row, Sdk, loaded

_LOOKS = ("batch_get_", "describe_", "get_", "head_", "list_", "lookup_", "search_", "select_")
_LOOKS_TOO = frozenset({"query", "scan", "transact_get_items"})
_WITHOUT_CREDENTIAL = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "NoAuthTokenError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
)


class Boto3(Sdk):
    """A client of AWS: keyed where the service's model declares a token, such as ClientToken."""

    name = "boto3"
    clients = frozenset({"botocore.BaseClient"})
    packages = frozenset({"botocore", "boto3", "urllib3"})
    takes_keys = True
    status = ("response", "ResponseMetadata", "HTTPStatusCode")
    code = ("response", "Error", "Code")
    headers = ("response", "ResponseMetadata", "HTTPHeaders")
    request_id = ("response", "ResponseMetadata", "RequestId")
    rows = (
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html; S3's SlowDown has status 503
        Row(
            "botocore.ClientError",
            Cause.THROTTLED,
            codes=frozenset(
                {
                    "BandwidthLimitExceeded",
                    "EC2ThrottledException",
                    "LimitExceededException",
                    "PriorRequestNotComplete",
                    "ProvisionedThroughputExceededException",
                    "RequestLimitExceeded",
                    "RequestThrottled",
                    "RequestThrottledException",
                    "SlowDown",
                    "ThrottledException",
                    "Throttling",
                    "ThrottlingException",
                    "TooManyRequestsException",
                    "TransactionInProgressException",
                }
            ),
        ),
        # 400, and yet the service may have read the request.
        Row(
            "botocore.ClientError",
            Cause.UNKNOWN,
            codes=frozenset({"IDPCommunicationError", "RequestTimeout", "RequestTimeoutException"}),
            reason="timeout",
        ),
        # https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
        Row(
            "botocore.ClientError",
            Cause.CREDENTIAL,
            codes=frozenset(
                {
                    "AuthFailure",
                    "ExpiredToken",
                    "ExpiredTokenException",
                    "IncompleteSignature",
                    "InvalidAccessKeyId",
                    "InvalidClientTokenId",
                    "InvalidSignatureException",
                    "InvalidToken",
                    "MissingAuthenticationToken",
                    "SignatureDoesNotMatch",
                    "TokenRefreshRequired",
                    "UnrecognizedClientException",
                }
            ),
        ),
        *(Row(f"botocore.{name}", Cause.CREDENTIAL) for name in _WITHOUT_CREDENTIAL),
        # Found before anything is sent.
        Row("botocore.ParamValidationError", None),
        Row("botocore.MissingParametersError", None),
        Row("botocore.ValidationError", None),
        Row("botocore.DataNotFoundError", None),
        Row("botocore.BaseEndpointResolverError", None),
    )

    def is_exchange(self, owner: object, name: str) -> bool:
        return name in _operations(owner)

    def effect(self, asked: Asked) -> Effect:
        if asked.name.startswith(_LOOKS) or asked.name in _LOOKS_TOO:
            return Effect.READ
        return Effect.KEYED if _tokens(asked) else Effect.ONCE

    def key(self, asked: Asked) -> str:
        return next((str(asked.kwargs[token]) for token in _tokens(asked) if asked.kwargs.get(token)), "")

    def keyed(self, asked: Asked, key: str) -> Asked:
        # botocore itself makes a token for each call, and so another one for each attempt.
        tokens = {token: key for token in _tokens(asked) if not asked.kwargs.get(token)}
        return asked.given(**tokens) if tokens or self.key(asked) else super().keyed(asked, key)

    def retries(self, client: Any) -> str:
        retries: dict[str, object] = client.meta.config.retries or {}
        return (
            ""
            if retries.get("total_max_attempts") == 1
            else 'boto3.client(…, config=Config(retries={"total_max_attempts": 1}))'
        )

    def failed(self, text: str) -> Exception:
        return loaded("botocore.exceptions", "HTTPClientError")(error=text)


def _operations(client: Any) -> dict[str, str]:
    found: dict[str, str] = client.meta.method_to_api_mapping
    return found


def _tokens(asked: Asked) -> list[str]:
    """The parameters by which the service knows a repeated call."""
    client: Any = getattr(asked.method, "__self__", None)
    if not is_any(client, Boto3.clients):
        return []
    operation = client.meta.service_model.operation_model(_operations(client)[asked.name])
    return list(operation.idempotent_members)
