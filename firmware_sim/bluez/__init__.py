"""BlueZ as its D-Bus clients see it, over a virtual air: so that an unmodified bleak reads devices.

What each object does follows BlueZ's own sources (5.87, commit 690c16d) and what was seen of BlueZ
5.82 on a real kernel. It knows nothing of homes, models or scenarios: it hears their radios.

Not like the real one: no file descriptors (AcquireNotify, AcquireWrite answer NotSupported), no
Battery1, no resolvable private addresses, no Bluetooth Classic, no server role; a controller drops
no repeated advertisements; a lost bond leaves Connect unanswered, as seen, at once and not after
retries.
"""
