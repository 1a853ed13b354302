"""Collect: read feeds, seal what they send, publish it, and answer only once it is durable."""
