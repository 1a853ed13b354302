"""What a process of the pool does with one image: open its object, look at its pixels, leave a sealed preview beside.

A process of its own, since a hostile file may kill it; so nothing of the worker is imported here.
"""

from __future__ import annotations

from io import BufferedReader
from typing import TYPE_CHECKING

from infra.errors import BadMessage, ObjectMissing, SealBroken
from infra.objects import CHUNK, Claim, Objects

if TYPE_CHECKING:
    from streams.imaging.describe import Described

PREVIEW = "preview"
AWAY = "away"  # the store is: not the image's fault, so it is asked again


def look(claim: Claim) -> Described | str:
    """What the pixels of an object are like; AWAY while its store does not answer. Raises BadMessage."""
    from streams.imaging.describe import describe

    store = Objects.local()
    try:
        with BufferedReader(store.open(claim), CHUNK) as file:
            found = describe(file)
        with store.create(*claim.companion(PREVIEW)) as writer:
            writer.write(found.preview)
            writer.finish()
    except (ObjectMissing, SealBroken) as error:
        raise BadMessage(error.reason) from None
    except OSError:
        return AWAY
    return found
