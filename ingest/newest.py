"""Which readings may have come before: per device, the latest that is stored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.registry import Ids

_NEVER = np.iinfo(np.int64).min


class Newest:
    """Per device, the latest identity time of what is stored, or is being stored by an open flush.

    A device is unknown until the store has been asked for its latest reading: of a memory that is sent
    again in pieces, what this worker has seen of it tells nothing of the later ones.
    """

    def __init__(self) -> None:
        self._latest_ms = np.full(1, _NEVER, np.int64)
        self.forgotten = 0
        """So often something was forgotten."""

    def may_have(self, device_id: Ids, identity_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of readings, (n,) each, which are not later than all that is known of their device."""
        self._make_room(device_id)
        latest = self._latest_ms[device_id]
        earlier: npt.NDArray[np.bool_] = (identity_ms <= latest) | (latest == _NEVER)
        return earlier

    def unknown(self, device_id: Ids) -> Ids:
        """Return those of the devices, once each, of which nothing is known."""
        self._make_room(device_id)
        unknown: Ids = np.unique(device_id[self._latest_ms[device_id] == _NEVER])
        return unknown

    def note(self, device_id: Ids, identity_ms: npt.NDArray[np.int64]) -> None:
        """Take note of readings that are about to be stored, (n,) each; unknown devices stay so."""
        self._make_room(device_id)
        known = self._latest_ms[device_id] != _NEVER
        np.maximum.at(self._latest_ms, device_id[known], identity_ms[known])

    def learn(self, device_id: Ids, latest_ms: npt.NDArray[np.int64], forgotten: int) -> None:
        """Take the store's word on devices, (n,) each, unless something was forgotten meanwhile.

        `forgotten`: what that was before the store was asked.
        """
        if forgotten == self.forgotten:
            self._make_room(device_id)
            np.maximum.at(self._latest_ms, device_id, latest_ms)

    def forget(self, device_ids: Ids | None = None) -> None:
        """Take these devices, or all, as unknown: somebody else may have stored readings."""
        self.forgotten += 1
        if device_ids is None:
            self._latest_ms = np.full(1, _NEVER, np.int64)
        else:
            self._latest_ms[device_ids[device_ids < len(self._latest_ms)]] = _NEVER

    def _make_room(self, device_id: Ids) -> None:
        largest = int(device_id.max(initial=0))
        if largest >= len(self._latest_ms):
            grown = np.full(max(largest + 1, 2 * len(self._latest_ms)), _NEVER, np.int64)
            grown[: len(self._latest_ms)] = self._latest_ms
            self._latest_ms = grown
