"""Wire formats: bytes to fields and back, as their standards say it. Pure."""
