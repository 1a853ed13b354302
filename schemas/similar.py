"""The index of patient profiles that `wardstream similar` asks: one document a patient, one index a vocabulary."""

from __future__ import annotations

from typing import Any

from schemas.registry import DOMAINS

OF = DOMAINS["ehr"]
ALIAS = f"{OF.name}-similar"  # begins as the domain's own indices do: an erasure goes through all of these
UNFITTED = "0"  # the version that `up` makes, so that an alias is there before a vocabulary is
PLACE = "place"  # id of the one document of no patient: how far this index has read the domain's


def index(version: str) -> str:
    return f"{ALIAS}-{version}"


def version(index: str) -> str:
    return index.removeprefix(f"{ALIAS}-")


def mapping(dimensions: int = 0) -> dict[str, Any]:
    """`vector` is for the approximate search; `terms` are the exact counts by number of the term in the vocabulary.

    Vectors are kept as they are: in one byte a dimension (int8_hnsw) two of the nearest ten were missed, since
    records are so alike (docs/similar.md).
    """
    vector = {
        "type": "dense_vector",
        "dims": dimensions,
        "index": True,
        "similarity": "cosine",
        "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100},
    }
    properties: dict[str, Any] = {
        "patient_ref": {"type": "keyword"},  # the survivor of a merge
        "merged": {"type": "keyword"},  # every reference of the person, where there are several
        "until": {"type": "date"},  # when the newest document in it was received
        "terms": {"type": "object", "enabled": False},  # {"ids": [...], "counts": [...]}
        "read_index": {"type": "keyword"},
        "read_to": {"type": "long"},  # sequence number
    }
    return {"dynamic": "strict", "properties": properties | ({"vector": vector} if dimensions else {})}
