"""A typed Python client of Hearth's REST API, made from the API's own description.

with Client("http://127.0.0.1:8420", token) as hearth:
    for resident in hearth.every(hearth.list_residents):
        print(hearth.read_latest(resident["id"]))
"""

from __future__ import annotations

from hearth_client.operations import Client
from hearth_client.transport import ApiError, Event

__all__ = ["ApiError", "Client", "Event"]
