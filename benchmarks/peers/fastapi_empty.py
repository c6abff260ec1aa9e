"""An endpoint of FastAPI's that does nothing: uvicorn serves it, with uvloop and httptools."""

import sys

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.post("/hook")
async def hook() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
