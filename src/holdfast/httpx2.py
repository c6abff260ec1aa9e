"""What is for httpx2, the maintained line of httpx: `from holdfast.httpx2 import GuardedTransport` (extra `httpx2`)."""

from holdfast.http.retrofit_httpx2 import GuardedTransport

__all__ = ["GuardedTransport"]
