"""One instance of the example app, under uvicorn; `python -m examples.demo.instance web 8000`."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from examples.demo import sabotage
from examples.fastapi_receiver.app import app
from examples.fastapi_receiver.integrations import hub

LINKS = Path(os.environ["DEMO_DIRECTORY"]) / "links.jsonl"


def measure_links() -> None:
    """Write down how long each new link took; nothing else about the hub changes."""
    create = hub.meetings.create

    async def timed(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        meeting = await create(*arguments, **options)
        line = {"reference": meeting.reference, "seconds": time.perf_counter() - begun, "provider": meeting.provider}
        with LINKS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return meeting

    hub.meetings.create = timed  # type: ignore[method-assign]  # a stopwatch around the real thing


def main() -> None:
    """Serve until SIGTERM."""
    measure_links()
    sabotage.apply(os.environ.get("DEMO_SABOTAGE", ""), hub)
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )


if __name__ == "__main__":
    main()
