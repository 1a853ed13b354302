"""How much burned-in text is found and blanked: words drawn into images of pydicom's own files, and those images alone.

    python -m tests.bench.burned_in

A word is covered where 95% of its pixels were blanked. Some cannot be: white on what is white already. `read before`
and `read after`: words of which a reader finds three letters or digits in a row; it has the weights that blanked them,
so it cannot see what they do not. What that hides is `called clean, and a word stands`: less than half of it blanked.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from streams.imaging.burned_in import clean, find
from streams.imaging.display import display
from streams.imaging.pixels import Pixels

FILES = ["693_J2KR", "JPEG-LL", "MR-SIEMENS-DICOM-WithOverlays", "MR2_J2KI", "OBXXXX1A_2frame", "RG1_J2KI"]
FILES += ["bad_sequence", "color-pl"]
FILES += ["eCT_Supplemental", "explicit_VR-UN", "CT_small", "J2K_pixelrep_mismatch", "SC_jpeg_no_color_transform"]
FILES += ["examples_overlay"]
BARE = ["RG3_J2KI", "SC_rgb", "emri_small", "liver_1frame", "MR_small", "image_dfl", "MR2_J2KR", "693_UNCI", "JPEG2000"]
WORDS = "MUSTERMANN^ERIKA|Smith, John A.|Meridian Paula|O'Connor|MRN 4711-0815|ID: A1203948|DOB 12.04.1961|1961-04-12"
WORDS += "|03/01/2026 08:15|Dr. Huang|North Hospital|F 64Y|ACC 20260301|Garcia Lopez Maria|7 Elm St"
FONTS = ["DejaVuSans.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSans-Bold.ttf", ""]  # "": OpenCV's
SIZES = (10, 12, 14, 18, 24, 40)  # pixels high
STYLES = ("white", "black", "faint", "outline", "edge", "boxed", "vertical")
EACH, GAP = 4, 12  # words of an image, pixels between them
Values = np.ndarray[Any, Any]


def image_of(name: str) -> Values:
    with open(get_testdata_file(f"{name}.dcm") or "", "rb") as file:
        pixels = Pixels(file)
        middle = pixels.count // 2
        image = display(pixels.frame(middle), pixels.attributes(middle))
    large = max(image.shape) > 1100
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)) if large else image


def ink(word: str, font: str, size: int) -> Values:
    """0 to 255, a word and a pixel around it."""
    if not font:
        (width, height), base = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, size / 30, 1 + (size >= 22))
        made = np.zeros((height + base + 2, width + 2), np.uint8)
        at, thick = (1, height + 1), 1 + (size >= 22)
        cv2.putText(made, word, at, cv2.FONT_HERSHEY_SIMPLEX, size / 30, 255, thick, cv2.LINE_AA)
        return made
    loaded = ImageFont.truetype(font, size)
    _, _, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), word, font=loaded)
    paper = Image.new("L", (int(right) + 2, int(bottom) + 2))
    ImageDraw.Draw(paper).text((1, 1), word, font=loaded, fill=255)
    return np.asarray(paper)


def draw(image: Values, style: str, size: int, rng: random.Random) -> tuple[Values, list[tuple[str, Values]]]:
    """The image with words that do not overlap, and each with its pixels."""
    made, placed, taken = image.copy(), [], np.zeros(image.shape[:2], bool)
    rows, columns = taken.shape
    for _ in range(EACH):
        word = rng.choice(WORDS.split("|"))
        letters = ink(word, rng.choice(FONTS), size)
        letters = np.rot90(letters) if style == "vertical" else letters
        height, width = letters.shape
        if height + 4 > rows or width + 4 > columns:
            continue
        for _ in range(30):
            x, y = rng.randrange(1, columns - width), rng.randrange(1, rows - height)
            x = rng.choice([1, columns - width - 1]) if style == "edge" else x
            if not taken[max(0, y - GAP) : y + height + GAP, max(0, x - GAP) : x + width + GAP].any():
                break
        else:
            continue
        place = slice(y, y + height), slice(x, x + width)
        taken[place] = True
        share = np.zeros((rows, columns), np.float32)
        share[place] = letters / 255
        mean = float(image[place].mean())
        value = {"black": 0 if mean > 70 else 255, "faint": mean + (55 if mean < 150 else -55), "boxed": 255}.get(
            style, 255 if mean < 170 or style == "outline" else 0
        )
        if style == "boxed":
            made[place] = 0
        if style == "outline":
            made[cv2.dilate((share > 0.3).astype(np.uint8), np.ones((3, 3))) > 0] = 0
        alpha = share[..., None] if image.ndim == 3 else share
        made = np.clip(made * (1 - alpha) + alpha * value, 0, 255).astype(np.uint8)
        placed.append((word, share > 0.3))
    return made, placed


def cases(seed: int) -> Iterator[tuple[str, int, str, Values, list[tuple[str, Values]]]]:
    rng = random.Random(seed)
    for name in FILES:
        image = image_of(name)
        for size in SIZES:
            style = rng.choice(STYLES)
            yield name, size, style, *draw(image, style, size, rng)


def read(image: Values, reader: Any) -> str:
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    return " ".join(text for _, text, _ in reader(colour)[0] or ())


def main(seed: int = 7) -> None:
    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
    plain = Dataset()
    plain.PhotometricInterpretation, plain.WindowCenter, plain.WindowWidth, plain.BitsStored = (
        "MONOCHROME2",
        128,
        256,
        8,
    )
    shares: dict[object, list[float]] = defaultdict(list)
    unclean = legible = readable = images = standing = 0
    for _, size, style, image, words in cases(seed):
        cleaned = clean(image, plain)
        unclean, images = unclean + (not cleaned.clean), images + 1
        blanked = np.zeros(image.shape[:2], bool)
        for box in cleaned.boxes:
            blanked[box.y : box.y + box.height, box.x : box.x + box.width] = True
        before, after = read(image, reader), read(cleaned.values, reader)
        standing += cleaned.clean and any(blanked[letters].mean() < 0.5 for _, letters in words)
        for word, letters in words:
            share = float(blanked[letters].mean())
            for group in ("all", style, size):
                shares[group].append(share)
            parts = re.findall(r"\w{3,}", word)
            readable, legible = (
                readable + any(one in before for one in parts),
                legible + any(one in after for one in parts),
            )
    for group, found in shares.items():
        covered = np.mean(np.array(found) >= 0.95)
        print(f"{group!s:>10}: {len(found):4} words, covered {covered:.3f}, pixels blanked {np.mean(found):.3f}")
    print(f"words read before {readable}, read after {legible}")
    print(f"images {images}, not called clean {unclean}; called clean, and a word stands {standing}")
    wrong, areas = 0, []
    for name in [*FILES, *BARE]:
        image = image_of(name)
        boxes = find(image)
        wrong += bool(boxes)
        areas.append(sum(box.width * box.height for box in boxes) / (image.shape[0] * image.shape[1]))
    print(f"without text: {len(areas)} images, {wrong} with boxes, {np.mean(areas):.4f} of the area")
    image = image_of("693_J2KR")
    start = time.process_time()
    find(image)
    print(f"512 x 512 without text: {time.process_time() - start:.2f} s")


if __name__ == "__main__":
    main()
