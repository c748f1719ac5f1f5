"""How the client speaks HTTP: tokens, problems, pages, streams. RFC 9457; WHATWG HTML, 9.2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

TIMEOUT_S = 30.0
"""An answer that takes longer is given up; streams may be silent for longer."""
STREAM_SILENCE_S_MAX = 60.0
"""The API sends a comment every 15 s, so a longer silence is a dead connection."""


class ApiError(Exception):
    """The API refused: `status` and the problem's own words."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('detail', '')}")
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One live event. `last_id`: send it as last_event_id to go on behind this event."""

    name: str
    data: Any
    last_id: str | None


class Transport:
    """One address and one token; `http` may be given to use a connection of one's own."""

    def __init__(self, address: str, token: str, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(base_url=address, timeout=TIMEOUT_S)
        self._http.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def every(self, fetch: Callable[..., Any], *of: str, **parameters: Any) -> Iterator[Any]:  # noqa: ANN401 - any operation's
        """Yield every item of all pages of an operation, such as `every(client.list_hubs)`."""
        after = None
        while True:
            page = fetch(*of, after=after, **parameters)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def json(self, method: str, path: str, **request: Any) -> Any:  # noqa: ANN401 - typed by the operations
        """Return the JSON of an answer.

        Raises:
            ApiError: the API refused.
        """
        return json.loads(self.content(method, path, **request))

    def content(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
        body: object = None,
    ) -> bytes:
        """Return the bytes of an answer.

        Raises:
            ApiError: the API refused.
        """
        response = self._http.request(
            method, path, params=_given(params), headers=_given(headers), json=body
        )
        _require_success(response)
        return response.content

    def events(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Iterator[Event]:
        """Yield the events of a stream until it ends.

        Raises:
            ApiError: the API refused.
        """
        timeout = httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S_MAX)
        with self._http.stream(
            method, path, params=_given(params), headers=_given(headers), timeout=timeout
        ) as response:
            if response.is_error:
                response.read()
            _require_success(response)
            yield from _events(response.iter_lines())


def path_segment(text: str) -> str:
    """Return a path's segment, quoted."""
    return quote(str(text), safe="")


def _events(lines: Iterator[str]) -> Iterator[Event]:
    name, data, last_id = "message", "", None
    for line in lines:
        key, _, value = line.partition(": ")
        match key:
            case "id":
                last_id = value
            case "event":
                name = value
            case "data":
                data += value
            case "" if data:
                yield Event(name=name, data=json.loads(data), last_id=last_id)
                name, data = "message", ""


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value is not None}


def _require_success(response: httpx.Response) -> None:
    if response.is_error:
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        raise ApiError(response.status_code, problem)
