"""Discovery sessions: which clients scan an adapter, with which filters. BlueZ 5.87, src/adapter.c."""

from __future__ import annotations

from firmware_sim.bluez import names
from firmware_sim.bluez.discovery import ALL, Filter, Heard, parse_filter
from firmware_sim.bluez.objects import Call


class Sessions:
    """The clients that discover; each has one session, and a filter that it may set before."""

    def __init__(self) -> None:
        self._filters: dict[str, Filter] = {}
        self._discovering: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._discovering)

    @property
    def wants_every_signal(self) -> bool:
        """Whether every change of signal strength is told (src/adapter.c: `has_proximity`)."""
        return any(f.rssi_dbm_min is not None for f in self._active())

    @property
    def wants_duplicates(self) -> bool:
        """Whether data that has not changed is told again."""
        return any(f is not ALL and f.duplicate_data for f in self._active())

    def match(self, heard: Heard, rssi_dbm: int) -> bool:
        """Tell whether any session wants an advertisement."""
        return any(f.matches(heard, rssi_dbm) for f in self._active())

    def set_filter(self, call: Call) -> None:
        """SetDiscoveryFilter; without options the filter is taken away."""
        options = call.arguments[0]
        if options:
            self._filters[call.sender] = parse_filter(options)
        else:
            self._filters.pop(call.sender, None)

    def start(self, client: str) -> None:
        """Begin a client's session."""
        if client in self._discovering:
            raise names.in_progress("Operation already in progress")
        self._discovering.add(client)

    def stop(self, client: str) -> None:
        """End a client's session."""
        if client not in self._discovering:
            raise names.failed("No discovery started")
        self._discovering.discard(client)

    def client_left(self, client: str) -> None:
        """Forget a client that is no longer on the bus."""
        self._filters.pop(client, None)
        self._discovering.discard(client)

    def clear(self) -> None:
        """End all sessions."""
        self._filters.clear()
        self._discovering.clear()

    def _active(self) -> list[Filter]:
        return [self._filters.get(client, ALL) for client in self._discovering]
