"""Which code and which libraries train here: a stage records both."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")


def code_version() -> str:
    """The package's version, and a hash of the code that trains."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return f"{importlib.metadata.version('podium')}+{digest.hexdigest()[:12]}"


def library_versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}
