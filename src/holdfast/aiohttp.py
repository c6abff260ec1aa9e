"""What sends by aiohttp: `GuardedTransport("crm", inner=AiohttpTransport())` (extra `fast`)."""

from holdfast.http.aiohttp_transport import AiohttpTransport

__all__ = ["AiohttpTransport"]
