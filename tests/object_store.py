"""A real server that speaks the S3 protocol, on the loopback: one for all tests of a process."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import s3fs
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.server import ThreadedMotoServer

BUCKET = "podium"

# A connection each: threads of a server that is away would go on answering on those that were kept open.
MotoRequestHandler.protocol_version = "HTTP/1.0"


@dataclass
class ObjectStore:
    """The server, which can be away and come back with all it had."""

    server: ThreadedMotoServer
    url: str

    def __post_init__(self) -> None:
        self.address = self.server.get_host_and_port()

    @property
    def files(self) -> s3fs.S3FileSystem:
        """Its files as somebody sees them who does not go through our code."""
        return s3fs.S3FileSystem(use_listings_cache=False)

    def list(self, below: str = "") -> list[str]:
        """Names of all files in a folder below the prefix."""
        folder = f"{self.url.removeprefix('s3://')}/{below}".rstrip("/") + "/"
        return sorted(name.removeprefix(folder) for name in self.files.find(folder))

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        host, port = self.address
        self.server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
        self.server.start()

    def ask_for_keys(self, wanted: bool) -> None:
        """From now on: refuse whom the server does not know."""
        host, port = self.address
        httpx.post(f"http://{host}:{port}/moto-api/reset-auth", content=b"0" if wanted else b"inf").raise_for_status()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    store = ObjectStore(server, f"s3://{BUCKET}")
    host, port = store.address
    environment = {
        "AWS_ACCESS_KEY_ID": "a key",
        "AWS_SECRET_ACCESS_KEY": "its secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_MAX_ATTEMPTS": "1",  # a server that is away is away at once
    }
    retries, s3fs.S3FileSystem.retries = s3fs.S3FileSystem.retries, 1
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield store
    s3fs.S3FileSystem.retries = retries
    store.server.stop()


@pytest.fixture
def object_store(s3_server: ObjectStore, request: pytest.FixtureRequest) -> ObjectStore:
    """A prefix of this test alone, in a bucket that exists."""
    s3_server.files.mkdirs(BUCKET, exist_ok=True)
    s3_server.url = f"s3://{BUCKET}/{abs(hash(request.node.nodeid))}"
    return s3_server
