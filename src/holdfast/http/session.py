"""One provider's HTTP connection: every exchange guarded, every answer a value or a cause."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Required, TypedDict, TypeVar, Unpack, overload

from pydantic import BaseModel, ValidationError

from holdfast.clock import Clock
from holdfast.errors import CallFailed, InvalidInput
from holdfast.http.origin import address, origin, require_https
from holdfast.http.transports import HttpRequest, HttpResponse, Transport
from holdfast.http.vendor import Blotter, HttpVendor, SignsRequests, cause_of
from holdfast.http.wire import JsonOut, VendorError, decode_json, encode_form, encode_json, one_line
from holdfast.outcome import Cause, Effect
from holdfast.resilience.guard import Guard
from holdfast.resilience.retry import parse_milliseconds, parse_retry_after
from holdfast.values import Secret

__all__ = ["Bearer", "Bearers", "Http", "HttpVendor", "Options", "Params"]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Params = Mapping[str, str | int]

_DEFAULT_HEADERS: Final = {"accept": "application/json", "accept-encoding": "gzip, deflate", "user-agent": "holdfast"}
_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-zm-trackingid", "paypal-debug-id", "x-amzn-requestid")
_LONGEST_TEXT: Final = 200
_LONGEST_WAIT: Final = 30 * 86400.0  # what a vendor asks beyond it is no time any calendar holds
_LONGEST_READ: Final = 32 * 1024  # of a text that may fill the whole answer; so long, a secret cut in half is cut off
_HAPPENED: Final = {
    Cause.THROTTLED: "throttled",
    Cause.REFUSED: "refused for now",
    Cause.CREDENTIAL: "refused our credential",
    Cause.REJECTED: "rejected",
    Cause.MISMATCH: "did something else",
}


class Bearer(Protocol):
    """A token in use; greater generations are newer."""

    @property
    def value(self) -> Secret: ...
    @property
    def generation(self) -> int: ...


class Bearers(Protocol):
    """Where bearer tokens come from; `tokens.TokenSource` is one."""

    async def current(self) -> Bearer:
        """A token that is good for a while."""
        ...

    async def newer(self, refused: Bearer) -> Bearer:
        """A token of a later generation than the one the vendor refused."""
        ...


class Options(TypedDict, total=False):
    """What every verb takes; named once, because five verbs with two results each would repeat it fifteen times."""

    operation: Required[str]
    """Our name of the exchange: in messages, signals and circuits."""
    effect: Required[Effect]
    json: JsonOut
    form: Params | None
    content: bytes | None
    """The body as it is, for one that is signed; its content type is for `headers` to say."""
    params: Params | None
    headers: Mapping[str, str] | None
    timeout: float | None
    """Seconds, of each attempt."""
    key_valid: Callable[[], bool] | None
    """Whether the vendor still remembers the key of a KEYED exchange."""
    scope: str
    """What of the vendor's limits it falls under beside the credential's: a host, a chat; not a secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One call as asked for, the same bytes in every attempt."""

    method: str
    url: str
    operation: str
    effect: Effect
    content: bytes
    headers: dict[str, str]


class Http:
    """One provider's connection: `await http.get("/checkout/abc", Checkout, operation="fetch")`.

    An id pasted into a path goes through `wire.segment`; a path that is a whole address gets neither the vendor's
    headers nor its token, unless it has the same origin as `base_url`.
    """

    def __init__(
        self, vendor: HttpVendor, transport: Transport, guard: Guard, clock: Clock, *, tokens: Bearers | None = None
    ) -> None:
        """Raises InsecureSetup: the base URL is plain http to another machine."""
        require_https(vendor.base_url, vendor.name)
        self._vendor = vendor
        self._transport = transport
        self._guard = guard
        self._clock = clock
        self._tokens = tokens
        self._signer = vendor if isinstance(vendor, SignsRequests) else None
        self._blotter = Blotter(vendor)
        self._fails_with_2xx = any(200 <= (key if isinstance(key, int) else key[0]) < 300 for key in vendor.causes)

    async def get(
        self,
        path: str,
        model: type[M],
        *,
        operation: str,
        effect: Effect = Effect.READ,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> M:
        """Look: the answer as `model`."""
        return await self.request(
            "GET", path, model, operation=operation, effect=effect, params=params, headers=headers, timeout=timeout
        )

    @overload
    async def post(self, path: str, model: type[M], **options: Unpack[Options]) -> M: ...
    @overload
    async def post(self, path: str, model: None, **options: Unpack[Options]) -> None: ...
    async def post(self, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None:
        """Ask for something to be done: the answer as `model`, or nothing where `model` is None."""
        return await self.request("POST", path, model, **options)

    @overload
    async def put(self, path: str, model: type[M], **options: Unpack[Options]) -> M: ...
    @overload
    async def put(self, path: str, model: None, **options: Unpack[Options]) -> None: ...
    async def put(self, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None:
        """Replace: the answer as `model`, or nothing where `model` is None."""
        return await self.request("PUT", path, model, **options)

    @overload
    async def patch(self, path: str, model: type[M], **options: Unpack[Options]) -> M: ...
    @overload
    async def patch(self, path: str, model: None, **options: Unpack[Options]) -> None: ...
    async def patch(self, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None:
        """Change: the answer as `model`, or nothing where `model` is None."""
        return await self.request("PATCH", path, model, **options)

    @overload
    async def delete(self, path: str, model: type[M], **options: Unpack[Options]) -> M: ...
    @overload
    async def delete(self, path: str, model: None, **options: Unpack[Options]) -> None: ...
    async def delete(self, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None:
        """Remove: the answer as `model`, or nothing where `model` is None."""
        return await self.request("DELETE", path, model, **options)

    @overload
    async def request(self, method: str, path: str, model: type[M], **options: Unpack[Options]) -> M: ...
    @overload
    async def request(self, method: str, path: str, model: None, **options: Unpack[Options]) -> None: ...
    @overload
    async def request(self, method: str, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None: ...
    async def request(self, method: str, path: str, model: type[M] | None, **options: Unpack[Options]) -> M | None:
        """Any verb: one guarded exchange.

        Raises:
            CallFailed: By its cause; `effect` decided whether it was tried again.
            InvalidInput: A body or path that cannot be sent as it is.
        """
        call = self._call(method, path, options)
        at_home = origin(call.url) == origin(self._vendor.base_url)
        bearer = await self._tokens.current() if self._tokens and at_home else None

        async def exchange() -> M | None:
            sent = self._headers(call, bearer, at_home=at_home)
            return self._read(call, sent, await self._answer(call, sent), model)

        async def refresh() -> None:
            nonlocal bearer
            if self._tokens and bearer:
                bearer = await self._tokens.newer(bearer)

        return await self._guard.run(
            exchange,
            effect=call.effect,
            operation=call.operation,
            refresh=refresh if bearer else None,
            key_valid=options.get("key_valid"),
            timeout=options.get("timeout"),
            scope=options.get("scope", ""),
        )

    async def run(
        self,
        exchange: Callable[[Transport, Clock], Awaitable[T]],
        *,
        operation: str,
        effect: Effect,
        key_valid: Callable[[], bool] | None = None,
        timeout: float | None = None,
        scope: str = "",
    ) -> T:
        """An exchange that a vendor's own package makes, over our transport and by our clock: guarded as any other.

        What the package raises, `exchange` says by cause: whatever else leaves it counts for nothing, and is not
        repeated.

        Raises:
            CallFailed: By its cause; `effect` decided whether it was tried again.
        """

        async def made() -> T:
            return await exchange(self._transport, self._clock)

        return await self._guard.run(
            made, effect=effect, operation=operation, key_valid=key_valid, timeout=timeout, scope=scope
        )

    async def aclose(self) -> None:
        """Close the connection; closing twice is harmless."""
        await self._transport.aclose()

    def _call(self, method: str, path: str, options: Options) -> _Call:
        content, content_type = _body(options)
        return _Call(
            method=method,
            url=address(self._vendor.base_url, path, options.get("params") or {}, self._vendor.name),
            operation=options["operation"],
            effect=options["effect"],
            content=content,
            headers=content_type | _lower(options.get("headers") or {}),
        )

    def _headers(self, call: _Call, bearer: Bearer | None, *, at_home: bool) -> Mapping[str, str]:
        headers = dict(_DEFAULT_HEADERS)
        if at_home:
            headers |= _lower(self._vendor.headers())
            if self._signer:
                headers |= _lower(self._signer.sign(call.method, call.url, call.content, self._clock.now()))
        if bearer:
            headers["authorization"] = f"Bearer {bearer.value.reveal()}"
        return headers | call.headers

    async def _answer(self, call: _Call, sent: Mapping[str, str]) -> HttpResponse:
        request = HttpRequest(method=call.method, url=call.url, headers=tuple(sent.items()), content=call.content)
        try:
            return await self._transport.send(request)
        except CallFailed as error:
            raise CallFailed.of(
                error.cause,
                f"{self._vendor.name}: {call.operation} {error}{_advice(error.cause, call.effect, None)}",
                provider=self._vendor.name,
                operation=call.operation,
                status=error.status,
                reason=error.reason,
                hard=error.hard,
                local=error.local,
            ) from error.__cause__

    def _read(self, call: _Call, sent: Mapping[str, str], response: HttpResponse, model: type[M] | None) -> M | None:
        success = 200 <= response.status < 300
        if not success or self._fails_with_2xx:
            said = self._said(response)
            if not success or said.code:
                raise self._refusal(call, sent, response, said)
        parsed = _parse(response.content, model)
        if not isinstance(parsed, _Unreadable):
            return parsed
        raise CallFailed.of(
            Cause.UNKNOWN,
            f"{self._vendor.name}: {call.operation} was answered with {response.status}, "
            f"but {self._clean(parsed.why, sent)}" + _advice(Cause.UNKNOWN, call.effect, None),
            provider=self._vendor.name,
            operation=call.operation,
            status=response.status,
            reason="unreadable",
            request_id=self._clean(_request_id(response), sent),
        )

    def _said(self, response: HttpResponse) -> VendorError:
        try:
            return self._vendor.read_error(response)
        except Exception:  # a border: the vendor's body is hostile input, and the status alone already says enough
            return VendorError()

    def _refusal(self, call: _Call, sent: Mapping[str, str], response: HttpResponse, said: VendorError) -> CallFailed:
        cause = said.cause or cause_of(self._vendor.causes, response.status, said.code)
        retry_after = said.retry_after if said.retry_after is not None else self._retry_after(response)
        if retry_after is not None:
            retry_after = min(max(retry_after, 0.0), _LONGEST_WAIT)
        happened = _HAPPENED.get(cause, "failed")
        code, words = self._clean(said.code, sent), self._clean(said.message, sent)
        which = f"{response.status}, code {code}" if code else str(response.status)
        return CallFailed.of(
            cause,
            f"{self._vendor.name}: {call.operation} {happened} ({which}){': ' if words else ''}{words}"
            + _advice(cause, call.effect, retry_after),
            provider=self._vendor.name,
            operation=call.operation,
            status=response.status,
            code=code,
            reason=said.reason or ("redirect" if 300 <= response.status < 400 else ""),
            narrow=said.narrow,
            retry_after=retry_after,
            request_id=self._clean(_request_id(response), sent),
            hard=response.status >= 500 and cause in (Cause.UNKNOWN, Cause.REFUSED),
        )

    def _clean(self, text: str, sent: Mapping[str, str]) -> str:
        """A vendor's text fit for our messages: secrets first, for half of one would no longer be recognised."""
        return _short(one_line(self._blotter.blot(text[:_LONGEST_READ], sent)))

    def _retry_after(self, response: HttpResponse) -> float | None:
        exact = parse_milliseconds(response.header("retry-after-ms"))
        if exact is not None:
            return exact
        return parse_retry_after(response.header("retry-after"), date=response.header("date"), now=self._clock.now())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _body(options: Options) -> tuple[bytes, dict[str, str]]:
    json, form, content = options.get("json"), options.get("form"), options.get("content")
    if [json, form, content].count(None) < 2:
        raise InvalidInput("a request has one body: json, form or content")
    if json is not None:
        return encode_json(json), {"content-type": "application/json"}
    if form is not None:
        return encode_form(form).encode(), {"content-type": "application/x-www-form-urlencoded"}
    return content or b"", {}


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A value, and no exception: one that is raised meanwhile keeps the parser's own, which quotes the body."""

    why: str


def _parse(content: bytes, model: type[M] | None) -> M | _Unreadable | None:
    if model is None:  # a proxy's or a login page is no answer, whatever its status says
        return _Unreadable("the body is a page") if content.lstrip()[:1] == b"<" else None
    try:
        document = decode_json(content)
    except ValueError:
        return _Unreadable("the body is not JSON" if content else "there is no body")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        return _Unreadable(f"the body does not fit {model.__name__}: {_misfits(error)}")
    except Exception as error:  # a border: a validator of the model may raise anything, and the effect has happened
        return _Unreadable(f"the body does not fit {model.__name__}: {type(error).__name__}")


def _misfits(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    named = [f"{'.'.join(map(str, detail['loc']))} ({detail['type']})" for detail in details[:3]]
    return ", ".join(named) + (f" and {len(details) - 3} more" if len(details) > 3 else "")


def _advice(cause: Cause, effect: Effect, retry_after: float | None) -> str:
    match cause:
        case Cause.UNKNOWN if effect is not Effect.READ:
            return "; it may have happened, so look before you repeat it"
        case Cause.NOT_SENT:
            return "; nothing was sent"
        case Cause.CREDENTIAL:
            return "; check the credential, or rotate it"
        case Cause.THROTTLED | Cause.REFUSED if retry_after is not None:
            return f"; ask again in {retry_after:.0f} s"
        case _:
            return ""


def _request_id(response: HttpResponse) -> str:
    return next((value for name in _REQUEST_IDS if (value := response.header(name))), "")
