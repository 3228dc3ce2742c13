"""A zip archive as the answer to a request: the whole, or the rest for whoever has its beginning (RFC 9110, 14)."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import Header
from fastapi.responses import Response, StreamingResponse

from app.zip_archives import File, mark_of, zip_chunks, zip_size

Said = Annotated[str | None, Header()]
THE_REST = re.compile(r"bytes=(\d{1,18})-")


def zip_answer(
    folder: str,
    files: Sequence[File],
    range: str | None,
    if_range: str | None,
    *,
    on_start: Callable[[int], None] | None = None,
) -> Response:
    """The archive or its rest, sent as it is written. Its length is told where every file's size is known.

    folder: in which everything lies.  on_start: told the first byte that is sent, unless there is none to send.
    """
    tag, start = entity_tag(folder, files), 0
    headers = {"Content-Disposition": f'attachment; filename="{folder}.zip"', "Accept-Ranges": "bytes", "ETag": tag}
    if all(file.size is not None for file in files):
        size = zip_size(folder, files)
        start = start_of(range) if if_range in (None, tag) else 0
        if start >= size:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}", "ETag": tag})
        headers["Content-Length"] = str(size - start)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    if on_start is not None:
        on_start(start)
    return StreamingResponse(
        zip_chunks(folder, files, skip=start),
        status_code=206 if start else 200,
        media_type="application/zip",
        headers=headers,
    )


def start_of(range: str | None) -> int:
    """Where the rest that is asked for begins; 0: the whole is sent, as to any Range header but one for a rest."""
    asked = THE_REST.fullmatch(range or "")
    return int(asked[1]) if asked else 0


def entity_tag(folder: str, files: Sequence[File]) -> str:
    """Of the archive; known before any of its files is read."""
    return f'"{mark_of(folder, files)}"'
