"""Service quality: whether outcomes get worse, where, for whom, and whether it is chance. Pure."""
