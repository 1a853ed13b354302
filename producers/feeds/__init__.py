"""Feeds: framing, answering and telling progress. What a message means is not theirs to know."""
