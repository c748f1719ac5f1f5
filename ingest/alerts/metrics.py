"""What the alerts service counts. No label names a person, a device or a value."""

from __future__ import annotations

from prometheus_client import Counter

EVENTS = Counter("hearth_alerts_events", "What was told of alerts.", ["what"])
READINGS = Counter("hearth_alerts_readings", "Readings that rules were evaluated on.")
DELIVERIES = Counter("hearth_alerts_deliveries", "Attempts to tell a webhook.", ["outcome"])
