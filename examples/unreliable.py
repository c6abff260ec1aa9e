"""A vendor on loopback that fails as it is told: what the examples call in place of the real one."""

import json
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOST = None
"""In place of an answer: the request is read, and may have taken effect, but its answer never arrives."""
Answer = tuple[int, Mapping[str, object]] | None
Seen = tuple[str, str]
"""Path and idempotency key of a request that arrived."""


@contextmanager
def vendor(*answers: Answer) -> Generator[tuple[str, list[Seen]]]:
    """A server that gives these answers, the last one for ever; its address, and what it saw."""
    script, seen = list(answers), list[Seen]()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            seen.append((self.path, self.headers.get("idempotency-key") or ""))
            answer = script.pop(0) if len(script) > 1 else script[0]
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, body = answer
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Not on the screen, which is the example's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()
