"""Every fault, on real sockets and in process: what holdfast's provider is told is the same."""

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from holdfast.errors import CallFailed
from holdfast.http.session import Http
from holdfast.http.transports import HttpxTransport, Transport
from holdfast.outcome import Cause
from holdfast.providers import LNbits
from holdfast.testing.clock import ManualClock
from holdfast.testing.faults import (
    FAULTS,
    AuthExpired,
    BadChunk,
    BadGzip,
    BadJson,
    Bandwidth,
    ClockSkew,
    Close,
    ConflictingLengths,
    Dns,
    Dribble,
    Fault,
    GarbageStatus,
    Hang,
    Html,
    HugeHeader,
    Latency,
    RateLimited,
    Refused,
    Reset,
    Stage,
    Stall,
    Status,
    TlsError,
    Truncate,
    WrongType,
)
from holdfast.testing.simulators.edge import Edge
from holdfast.testing.simulators.in_process import InProcess
from holdfast.testing.simulators.lnbits import LNbitsSimulator
from holdfast.values import Money, Secret
from tests.providers.support import connection, offer_request
