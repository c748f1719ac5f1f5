"""The broker, the database and the message bus that Hearth brings along, for one machine.

For trying, testing and small homes of their own; a hospital gives its own servers by
HEARTH_DATABASE_URL and HEARTH_MQTT_URL. Nothing here changes the system: programs are Debian's
own, unpacked into a folder under HEARTH_HOME, listening on loopback only.
"""
