"""What every service stands on: settings, logs, metrics and health, broker, database, processes."""
