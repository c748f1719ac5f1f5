"""MQTT to arrays to verdicts to COPY to receipts; the schema and its migrations."""
