"""Our own package as a wheel, made from the running code without a build: quick, and always what runs here."""

import importlib.metadata
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Final

import ewms
from ewms.testing.pool.data import containers_dir

DISTRIBUTION: Final = "ewms-htcondor"

_WHEEL_TEXT: Final = "Wheel-Version: 1.0\nGenerator: ewms\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# Equal content is to give equal bytes: what is built from a wheel is cached by its hash.
_TIMESTAMP: Final = (2020, 1, 1, 0, 0, 0)


def running_wheel(directory: Path) -> Path:
    """A wheel of the package as it is imported here; its dependencies are those of the installed distribution."""
    installed = importlib.metadata.distribution(DISTRIBUTION)
    metadata, scripts = (installed.read_text(name) or "" for name in ("METADATA", "entry_points.txt"))
    version = Parser().parsestr(metadata, headersonly=True)["Version"]
    info = f"ewms_htcondor-{version}.dist-info"
    path = directory / f"ewms_htcondor-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, source in _package_files():
            wheel.writestr(zipfile.ZipInfo(name, _TIMESTAMP), source.read_bytes())
        texts = {"METADATA": metadata, "WHEEL": _WHEEL_TEXT, "entry_points.txt": scripts, "RECORD": ""}
        for name, text in texts.items():
            wheel.writestr(zipfile.ZipInfo(f"{info}/{name}", _TIMESTAMP), text)
    return path


def requirements(wheel: Path) -> list[str]:
    """What the wheel says that it needs, as it stands in its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode(), headersonly=True)
    return sorted(metadata.get_all("Requires-Dist") or [])


def _package_files() -> Iterator[tuple[str, Path]]:
    for prefix, top in (("ewms", Path(ewms.__file__).parent), ("ewms/_containers", containers_dir())):
        for path in sorted(top.rglob("*")):
            inner = path.relative_to(top)
            if (
                path.is_file()
                and "__pycache__" not in inner.parts
                and not (prefix == "ewms" and inner.parts[0] == "_containers")
            ):
                yield f"{prefix}/{inner}", path
