"""Alerts: rules evaluated on the time of measurement, for every reading, beside the ingest path.

    changes -> readings -> points -> episodes -> reconcile -> alerts, events -> webhooks
    (platform)  (store)    (gateway.guidelines)   (pure)       one transaction

The evaluation follows the feed of changes in transactions of its own, so ingest does not wait for it,
and moves its place on when they are committed: after a crash something is evaluated again, which
changes nothing, and nothing is left out. Rules of single readings are evaluated at once; those that
look back over days have a place of their own and are evaluated every few minutes (rules.Pace).
"""
