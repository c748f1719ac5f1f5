"""Everything dies at random under load, and at the end every reading is looked for: `hearth chaos`.

    faults (what, when) > conductor (does it) > hubs, ingest, broker, database behind proxies
    load (readings by number) > journal (what each hub took) > comparison (lost, doubled, altered)

Real parts: the hubs' files, storage and uplink (`edge`), Mosquitto, TimescaleDB, ingest's workers.
Simulated: the devices, which are a generator that a hub's storage takes readings from.
"""
