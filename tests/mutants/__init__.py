"""Parts that lack one safety each: `hearth chaos` with one of them in the cast has to fail."""
