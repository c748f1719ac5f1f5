"""The units that devices send. UCUM codes; MDC unit codes of IEEE 11073-10101.

Conversion factors: NIST Special Publication 811 (2008), Appendix B.8: conventional millimetre of
mercury 133.3224 Pa (exactly 133.322 387 415), avoirdupois pound 0.453 592 37 kg, inch 0.0254 m,
degree Fahrenheit t/degC = (t/degF - 32) / 1.8, thermochemical calorie 4.184 J.
Glucose: 180.156 g/mol (C6H12O6), so 1 mmol/L is 18.0156 mg/dL.
"""

from __future__ import annotations

from gateway.quantity import Unit

MMHG = Unit(name="mmHg", ucum="mm[Hg]", mdc=266016)
KPA = Unit(name="kPa", ucum="kPa", mdc=265987, scale=1 / 0.133322387415)
PER_MIN = Unit(name="/min", ucum="/min", mdc=264864)
CELSIUS = Unit(name="°C", ucum="Cel", mdc=268192)
FAHRENHEIT = Unit(name="°F", ucum="[degF]", mdc=266560, scale=5 / 9, offset=-160 / 9)
KG = Unit(name="kg", ucum="kg", mdc=263875)
LB = Unit(name="lb", ucum="[lb_av]", mdc=263904, scale=0.45359237)
KG_PER_M2 = Unit(name="kg/m²", ucum="kg/m2", mdc=264096)
CM = Unit(name="cm", ucum="cm", mdc=263441)
INCH_TO_CM = Unit(name="in", ucum="[in_i]", scale=2.54)
PERCENT = Unit(name="%", ucum="%", mdc=262688)
ML = Unit(name="mL", ucum="mL", mdc=263762)
LITRE_TO_ML = Unit(name="L", ucum="L", scale=1000)
STEP = Unit(name="steps", ucum="{steps}", mdc=268800)
METRE = Unit(name="m", ucum="m", mdc=263424)
KCAL = Unit(name="kcal", ucum="kcal", mdc=270528)
MINUTE = Unit(name="min", ucum="min", mdc=264352)
SECOND = Unit(name="s", ucum="s", mdc=264320)
KJ = Unit(name="kJ", ucum="kJ")
MMOL_PER_L = Unit(name="mmol/L", ucum="mmol/L", mdc=266866)
MG_PER_DL = Unit(name="mg/dL", ucum="mg/dL", mdc=264274, scale=1 / 18.0156)
