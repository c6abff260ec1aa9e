"""What the core install weighs: packages, megabytes, and the time `import holdfast` takes."""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks._measure import Report, arguments, publish

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = {"packages": 12, "megabytes": 12, "import_ms": 150}
IMPORTS: Final = 9
NOT_OURS: Final = {"pip", "setuptools"}


def main() -> None:
    options = arguments("weight", __doc__).parse_args()

    with tempfile.TemporaryDirectory(prefix="holdfast-weight-") as scratch:
        python = install(Path(scratch))
        versions = installed(python)
        figures = {
            "packages": len(versions.keys() - {"holdfast"}),
            "megabytes": round(megabytes(python), 2),
            "import_ms": round(import_ms(python), 1),
        }

    publish(
        Report(
            name="weight",
            figures=figures,
            versions={"python": platform.python_version()} | versions,
            remarks={name: f"target <= {target}" for name, target in TARGETS.items()},
        ),
        options,
    )


def install(scratch: Path) -> Path:
    """A clean virtual environment with holdfast as a user gets it, without extras; its interpreter."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", scratch / "dist", cwd=ROOT)
    (wheel,) = (scratch / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", scratch / "venv")
    python = scratch / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return python


def installed(python: Path) -> dict[str, str]:
    listed = json.loads(run(python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"))
    return {package["name"]: package["version"] for package in listed if package["name"] not in NOT_OURS}


def megabytes(python: Path) -> float:
    """The size of site-packages without pip, setuptools and bytecode."""
    site_packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    files = (path.relative_to(site_packages) for path in site_packages.rglob("*") if path.is_file())
    return sum((site_packages / file).stat().st_size for file in files if counts(file)) / 1e6


def counts(file: Path) -> bool:
    package = file.parts[0].partition("-")[0]
    return package not in NOT_OURS | {"_distutils_hack", "distutils"} and "__pycache__" not in file.parts


def import_ms(python: Path) -> float:
    """A cold import in a new process, less what the bare interpreter takes."""
    return statistics.median(cold_ms(python, "import holdfast")) - statistics.median(cold_ms(python, "pass"))


def cold_ms(python: Path, program: str) -> list[float]:
    return [once_ms(python, program) for _ in range(IMPORTS)]


def once_ms(python: Path, program: str) -> float:
    started = time.perf_counter()
    run(python, "-I", "-c", program)
    return (time.perf_counter() - started) * 1000


def run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
