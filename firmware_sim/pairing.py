"""Pairing as devices at home do it: Just Works, with a bond. Core 5.4, Vol 3 Part H."""

from __future__ import annotations

from bumble.pairing import PairingConfig, PairingDelegate


class JustWorks(PairingDelegate):
    """Neither shows nor asks for a number; hands out no identity keys: no address is resolvable."""

    def __init__(self, *, accepts: bool = True) -> None:
        self._accepts = accepts
        keys = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY
        super().__init__(
            PairingDelegate.IoCapability.NO_OUTPUT_NO_INPUT,
            local_initiator_key_distribution=keys,
            local_responder_key_distribution=keys,
        )

    async def accept(self) -> bool:
        """Tell whether to pair at all: many devices do so in a special mode only."""
        return self._accepts

    def config(self) -> PairingConfig:
        """Return how to pair with this delegate."""
        return PairingConfig(sc=True, mitm=False, bonding=True, delegate=self)
