"""Service quality: are outcomes getting worse, where, for whom, and is it chance."""
