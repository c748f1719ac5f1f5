"""Who was measured by a device that several share: found by the household's own history."""
