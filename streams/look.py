"""What a process of the pool does with images: opens their sealed objects, and gives what their pixels are like.

A process of its own, since a hostile file may kill it; so nothing of the worker is imported here, and what is heavy
only where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO

from infra.errors import BadMessage, ObjectMissing, SealBroken
from infra.objects import CHUNK, Claim, Objects

if TYPE_CHECKING:
    from streams.imaging.describe import Described
    from streams.imaging.export import Exported
    from streams.imaging.register import Registration

PREVIEW = "preview"
AWAY = "away"  # the store is: not the image's fault, so it is asked again


def look(claim: Claim) -> Described | str:
    """What the pixels of an object are like, with a sealed preview left beside it; AWAY while the store is.

    Raises BadMessage.
    """
    from streams.imaging.describe import describe

    try:
        with _opened(claim) as file:
            found = describe(file)
        with Objects.local().create(*claim.companion(PREVIEW)) as writer:
            writer.write(found.preview)
            writer.finish()
    except OSError:
        return AWAY
    return found


def picture(claim: Claim, frame: int | None, window: str, steps: Sequence[str]) -> bytes:
    """A PNG of one frame. Raises BadMessage, UsageError."""
    from streams.imaging.render import render

    with _opened(claim) as file:
        return render(file, frame, window, steps)


def laid(prior: Claim, follow_up: Claim, frames: tuple[int | None, int | None]) -> tuple[Registration, bytes]:
    """How a follow-up lies on its prior, and a PNG: the prior in red, the follow-up as it then lies in cyan.

    Raises BadMessage: not_registered, and what decoding may; UsageError.
    """
    from streams.imaging.render import overlaid

    with _opened(prior) as one, _opened(follow_up) as other:
        return overlaid(one, other, frames)


def exported(claim: Claim, out: str, secret: bytes, options: tuple[str, ...], allow_unclean: bool) -> Exported:
    """The image without its patient, in the file `out`, which is there whole or not at all.

    Raises BadMessage: pixels_not_clean, and what decoding may.
    """
    from streams.imaging.deidentify import Option
    from streams.imaging.export import export

    chosen = frozenset(Option(one) for one in options)
    try:
        with _opened(claim) as file, open(out, "wb") as made:
            return export(file, made, secret, chosen, allow_unclean=allow_unclean)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(out)
        raise


@contextmanager
def _opened(claim: Claim) -> Iterator[BinaryIO]:
    try:
        with BufferedReader(Objects.local().open(claim), CHUNK) as file:
            yield file
    except (ObjectMissing, SealBroken) as error:
        raise BadMessage(error.reason) from None
