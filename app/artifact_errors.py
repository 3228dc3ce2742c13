"""What can be wrong with an artifact store, in words: the named errors of app.artifacts."""

from pathlib import Path
from typing import ClassVar

from app.errors import PodiumError


class ArtifactError(PodiumError):
    """Something of the store cannot be had or left there."""

    code: ClassVar[str] = "artifact_error"

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(f"{message}: {advice}")
        self.message, self.advice = message, advice


class UnknownStore(ArtifactError):
    """PODIUM_ARTIFACTS is a URL that nothing installed here opens."""

    code = "unknown_store"

    def __init__(self, url: str, reason: object) -> None:
        advice = "correct PODIUM_ARTIFACTS, or install what opens it (for s3://, `pip install 'podium[s3]'`)"
        super().__init__(f"the artifact store {url} cannot be opened ({reason})", advice)


class NoSuchStore(ArtifactError):
    """The store answers, and has no such bucket or folder."""

    code = "no_such_store"

    def __init__(self, url: str) -> None:
        advice = "make it, or correct PODIUM_ARTIFACTS"
        super().__init__(f"there is no bucket or folder for the artifact store {url}", advice)


class StoreRefused(ArtifactError):
    """The store knows no such key, or the key may not do this."""

    code = "store_refused"

    def __init__(self, url: str, reason: object) -> None:
        advice = "correct the key in the environment (for s3://, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        super().__init__(f"the artifact store {url} refuses this process ({reason})", advice)


class StoreUnreachable(ArtifactError):
    """The store does not answer now."""

    code = "store_unreachable"

    def __init__(self, url: str, reason: object) -> None:
        advice = "see that it runs and can be reached from here, then resume the round; what was done is kept"
        super().__init__(f"the artifact store {url} cannot be reached ({reason})", advice)


class StoreFull(ArtifactError):
    """The store has no room left."""

    code = "store_full"

    def __init__(self, url: str) -> None:
        super().__init__(f"the artifact store {url} is full", "make room in it, then resume the round")


class NotInStore(ArtifactError):
    """A folder has no manifest in the store: it was never copied there whole."""

    code = "not_in_store"

    def __init__(self, url: str, folder: str) -> None:
        advice = "see whether the machine that made it could copy it, or run the stage that makes it again"
        super().__init__(f"{folder} is not in the artifact store {url}", advice)


class ArtifactAltered(ArtifactError):
    """A file in the store is not the one that was copied there."""

    code = "artifact_altered"

    def __init__(self, url: str, file: str) -> None:
        advice = "bring back the store's earlier version of it, or run the stage that made it again"
        super().__init__(f"{file} in the artifact store {url} is missing or not the file that was put there", advice)


class CacheFull(ArtifactError):
    """There is no room on this machine for what is fetched."""

    code = "disk_full"

    def __init__(self, path: Path) -> None:
        advice = "free some space (fetched results below artifacts/ may be deleted: they are fetched again when needed)"
        super().__init__(f"the disk filled up while {path} was being fetched from the artifact store", advice)
