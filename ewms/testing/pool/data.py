"""What pools and images are built from: the project's `containers` directory."""

import hashlib
from pathlib import Path

import ewms


def containers_dir() -> Path:
    """The directory with recipes and image definitions, in a work tree or in the installed package."""
    package = Path(ewms.__file__).parent
    installed = package / "_containers"
    return installed if installed.is_dir() else package.parent / "containers"


def file_digest(path: Path) -> str:
    """A short name for a file's bytes."""
    return digest(path.read_bytes())


def digest(*parts: bytes | str) -> str:
    """A short name for exactly these parts."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]
