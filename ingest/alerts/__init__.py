"""Alerts: rules evaluated on the time of measurement, for every reading, beside the ingest path.

    changes -> readings -> points -> episodes -> reconcile -> alerts, events -> webhooks
    (platform)  (store)    (gateway.guidelines)   (pure)       one transaction

The evaluation follows the feed of changes in transactions of its own, so ingest does not wait for it,
and moves its place on in the same transaction, so that nothing is evaluated twice or not at all.
"""
