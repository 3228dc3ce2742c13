"""Reads a project's snapshots from a program: freeze, list, iterate, download. Only httpx and the standard library.

    from app.client import Podium

    garden = Podium("https://podium.example.org", key).project("garden")
    for pair in garden.snapshot("May").pairs():
        print(pair["chosen"])
    rows = garden.snapshot("May").to_dataset("pairs", split="train")

A download that breaks off goes on where it was, and what was put together is held against the file's SHA-256.
"""

import base64
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Record = dict[str, Any]

ATTEMPTS = 6  # in a row without a single byte, before a download is given up
TIMEOUT = httpx.Timeout(30, read=600)  # a part of a file that nobody has read yet is measured before it is sent
IN_PASSING = (502, 503, 504)  # what a proxy says while a server restarts


class PodiumClientError(Exception):
    """Something that was asked of Podium was refused, or did not arrive; the message says what to do."""


class Refused(PodiumClientError):
    """Podium answered, and said no. code: stable, as in the API's problems."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class BrokenOff(PodiumClientError):
    """A download did not go on, though it was tried again and again."""


class Damaged(PodiumClientError):
    """What arrived is not what Podium wrote."""


@dataclass(frozen=True)
class Snapshot:
    """Rankings and demonstrations that never change."""

    project: "Project"
    id: int
    name: str
    facts: Record = field(repr=False)  # counts, filter and hashes, as the API has them

    def records(self, format: str, **options: Any) -> Iterator[Record]:
        """The records of any format, one after the other, as they arrive.

        options: ties, labels, style, weights, least_quality, split, shard, num_shards, as docs/exports.md tells them.
        Raises Refused, BrokenOff; Damaged after the last record.
        """
        for line in lines(self._download(format, "jsonl", options).chunks()):
            yield json.loads(line)

    def kwise(self, **options: Any) -> Iterator[Record]:
        """One record a ranking."""
        return self.records("kwise", **options)

    def pairs(self, **options: Any) -> Iterator[Record]:
        """One record a comparison, as TRL's RewardTrainer and DPOTrainer read it."""
        return self.records("pairs", **options)

    def prompts(self, **options: Any) -> Iterator[Record]:
        """Each prompt once."""
        return self.records("prompts", **options)

    def demonstrations(self, **options: Any) -> Iterator[Record]:
        """One record for what a person wrote in one piece, as TRL's SFTTrainer reads it."""
        return self.records("sft", **options)

    def download(self, path: str | Path, format: str = "kwise", **options: Any) -> Path:
        """Write the file; .parquet writes Parquet, else JSON lines. What a broken download left is gone on with.

        Raises Refused, BrokenOff, Damaged, OSError; the file is there whole, or as it was before.
        """
        path = Path(path)
        download = self._download(format, "parquet" if path.suffix == ".parquet" else "jsonl", options)
        beside = path.with_name(f".{path.name}.{hashlib.sha256(download.tag.encode()).hexdigest()[:16]}.part")
        with beside.open("a+b") as file:
            download.go_on_from(file)
            try:
                for chunk in download.chunks():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            except Damaged:
                beside.unlink()
                raise
        beside.replace(path)
        return path

    def to_dataset(self, format: str = "pairs", **options: Any) -> "datasets.Dataset":
        """The records as a `datasets.Dataset`, on the disk in its cache. Raises ImportError without `datasets`."""
        try:
            import datasets
        except ImportError as error:
            raise ImportError("to_dataset needs the package datasets: pip install datasets") from error
        with tempfile.TemporaryDirectory() as folder:
            file = self.download(Path(folder) / f"{format}.parquet", format, **options)
            dataset: datasets.Dataset = datasets.Dataset.from_parquet(str(file))
            return dataset

    def to_pandas(self, format: str = "pairs", **options: Any) -> "pd.DataFrame":
        """The records as a data frame, in memory. Raises ImportError without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs the package pandas: pip install pandas pyarrow") from error
        with tempfile.TemporaryDirectory() as folder:
            return pd.read_parquet(self.download(Path(folder) / f"{format}.parquet", format, **options))

    def card(self) -> str:
        """The dataset card, in Markdown."""
        return self.project.podium.get(f"{self._address}/card").text

    def _download(self, format: str, file: str, options: Record) -> "Download":
        return Download(self.project.podium, f"{self._address}/export", {"format": format, "file": file, **options})

    @property
    def _address(self) -> str:
        return f"{self.project.address}/snapshots/{self.id}"


@dataclass(frozen=True)
class Project:
    """A project that the key's holder may read."""

    podium: "Podium"
    slug: str

    @property
    def address(self) -> str:
        return f"/projects/{self.slug}"

    def snapshots(self) -> list[Snapshot]:
        """All of them, the newest first. Raises Refused."""
        return [self._snapshot(facts) for facts in self.podium.get(f"{self.address}/snapshots").json()]

    def snapshot(self, name: str | int) -> Snapshot:
        """The one of this name or number. Raises Refused."""
        for snapshot in self.snapshots():
            if name in (snapshot.name, snapshot.id):
                return snapshot
        raise Refused("snapshot_not_found", f"{self.slug} has no snapshot {name!r}; snapshots() lists those it has.")

    def freeze(self, name: str, **filter: Any) -> Snapshot:
        """Freeze what the filter selects under the name: kinds, splits, labelers, since, until and more as in the API.

        Raises Refused.
        """
        answer = self.podium.request("POST", f"{self.address}/snapshots", json={"name": name, "filter": filter})
        return self._snapshot(answer.json())

    def _snapshot(self, facts: Record) -> Snapshot:
        return Snapshot(self, facts["id"], facts["name"], facts)


class Podium:
    """An installation of Podium. url: its address.  key: made under Account and keys.

    http: how to reach it, where the usual client does not do (proxies, certificates).
    """

    def __init__(self, url: str, key: str, *, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(timeout=TIMEOUT)
        self._root = f"{url.rstrip('/')}/api/v1"
        self._headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}

    def project(self, slug: str) -> Project:
        return Project(self, slug)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Raises Refused, BrokenOff."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask once; only what reads is asked again when nobody answers. Raises Refused, BrokenOff."""
        attempts = 1 if method == "POST" else ATTEMPTS
        for attempt in range(1, attempts + 1):
            try:
                answer = self._http.request(method, self._root + path, headers=self._headers, **options)
            except httpx.TransportError as error:
                if attempt == attempts:
                    raise BrokenOff(f"{self._root} does not answer ({error}): look whether it runs.") from error
            else:
                if answer.status_code not in IN_PASSING or attempt == attempts:
                    return checked(answer)
            pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def stream(self, path: str, params: Record, headers: dict[str, str]) -> Any:
        """An answer to be read as it arrives."""
        return self._http.stream("GET", self._root + path, params=params, headers=self._headers | headers)


class Download:
    """One file on its way: its bytes in order, however often the line breaks."""

    def __init__(self, podium: Podium, path: str, params: Record) -> None:
        self.podium, self.path = podium, path
        self.params = {name: value for name, value in params.items() if value is not None}
        self.tag = self._described().headers["ETag"]
        self.num_bytes, self.digest = 0, hashlib.sha256()

    def go_on_from(self, file: BinaryIO) -> None:
        """Take what is in the file already for the beginning; the file is at its end then."""
        file.seek(0)
        while chunk := file.read(2**20):
            self._count(chunk)

    def chunks(self) -> Iterator[bytes]:
        """What is still missing. Raises Refused, BrokenOff, and Damaged when all has come and is not what was sent."""
        failures = 0
        while True:
            before = self.num_bytes
            try:
                yield from self._rest()
                break
            except httpx.TransportError as error:
                failures = failures + 1 if self.num_bytes == before else 1
                if failures == ATTEMPTS:
                    raise BrokenOff(
                        f"The download broke off after {self.num_bytes:,} bytes ({error}), and does not go on: look"
                        " whether Podium runs, and begin again; a file goes on where it was."
                    ) from error
                pause(failures)
        self._check()

    def _rest(self) -> Iterator[bytes]:
        headers = {"Range": f"bytes={self.num_bytes}-", "If-Range": self.tag} if self.num_bytes else {}
        with self.podium.stream(self.path, self.params, headers) as answer:
            if answer.status_code == 416:
                return  # there is no byte after those that came
            if answer.status_code in IN_PASSING:
                raise httpx.RemoteProtocolError(f"the server answered {answer.status_code}")
            if answer.is_error:
                answer.read()
            checked(answer)
            if self.num_bytes and answer.status_code != 206:
                raise Damaged("Podium writes this file otherwise than when the download began: begin again.")
            for chunk in answer.iter_raw():
                self._count(chunk)
                yield chunk

    def _count(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        self.digest.update(chunk)

    def _check(self) -> None:
        """Against the hash that the server noted when it came to the end of the file."""
        said = self._described().headers.get("Repr-Digest")
        found = f"sha-256=:{base64.b64encode(self.digest.digest()).decode()}:"
        if said is not None and said != found:
            raise Damaged(f"What arrived has {found}, what Podium wrote {said}: download it again.")

    def _described(self) -> httpx.Response:
        try:
            return self.podium.request("HEAD", self.path, params=self.params)
        except Refused:
            with self.podium.stream(self.path, self.params, {}) as answer:  # an answer to HEAD cannot say why not
                if answer.is_error:
                    answer.read()
                    checked(answer)
            raise


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of what arrives in chunks, without their ends."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def checked(answer: httpx.Response) -> httpx.Response:
    """Raises Refused with the problem's own words."""
    if not answer.is_error:
        return answer
    try:
        problem = answer.json()
        raise Refused(problem["code"], problem["detail"])
    except (ValueError, KeyError, TypeError):
        raise Refused("refused", f"{answer.url} answered {answer.status_code} {answer.reason_phrase}") from None


def pause(attempt: int) -> None:
    """Longer each time: a server that restarts needs seconds."""
    time.sleep(min(2.0 ** (attempt - 1), 15))
