"""Clinical statistics and rules by published guidelines, over arrays of many residents at once.

Every rule set names its source and version. What is measured counts by its time of measurement, so
that a result is the same in whatever order readings arrived. Nothing here reads or writes anything.
Hearth supports clinicians; it is no diagnostic device.
"""
