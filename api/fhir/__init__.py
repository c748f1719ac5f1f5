"""FHIR R4 under /fhir, straight from the time series: no resource is stored, each is made when asked.

Spec: HL7 FHIR R4 (4.0.1), its vital signs profiles, and the HL7 Personal Health Device guide 2.0.0
("PHD guide" below). What an Observation says is derived from the registry of signs.
"""
