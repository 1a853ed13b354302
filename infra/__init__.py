"""Shared by every stage; knows servers, keys and bytes, and no word of any clinical domain."""
