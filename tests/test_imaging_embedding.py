"""The vector of an image: itself is the nearest of what was done to it; and what `describe` puts together."""

from __future__ import annotations

import dataclasses
import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import BadMessage
from schemas.imaging import DIMENSIONS, Image
from streams.imaging.describe import describe
from streams.imaging.display import Window, display
from streams.imaging.embedding import embed
from tests.imaging_files import files, header, opened, path, saved

KINDS = {  # real images that are not the same, by what they are of
    "693_J2KR.dcm": "CT",
    "bad_sequence.dcm": "CT",
    "explicit_VR-UN.dcm": "CT",
    "J2K_pixelrep_mismatch.dcm": "CT",
    "CT_small.dcm": "CT",
    "eCT_Supplemental.dcm": "CT",
    "MR_small.dcm": "MR",
    "emri_small.dcm": "MR",
    "MR2_UNCI.dcm": "MR",
    "MR-SIEMENS-DICOM-WithOverlays.dcm": "MR",
    "US1_UNCR.dcm": "US",
    "examples_rgb_color.dcm": "US",
    "examples_ybr_color.dcm": "US",
    "JPGLosslessP14SV1_1s_1f_8b.dcm": "US",
    "OBXXXX1A.dcm": "US",
    "gdcm-US-ALOKA-16.dcm": "US",
    "RG1_UNCI.dcm": "CR",
    "RG3_UNCI.dcm": "CR",
    "JPEG2000_UNC.dcm": "NM",
}
Pixels8 = NDArray[np.uint8]


def shown(name: str, window: Window | None = None) -> Pixels8:
    pixels = opened(name)
    return display(pixels.frame(0), pixels.attributes(0), window)


def turned(image: Pixels8, degrees: float, right: float = 0, down: float = 0, scale: float = 1) -> Pixels8:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[:, 2] += right * width, down * height
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)), np.uint8)


def noisy(image: Pixels8, sigma: float) -> Pixels8:
    return np.clip(image + np.random.default_rng(5).normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


CHANGES = {
    "turned": lambda image: turned(image, 4),
    "turned_back": lambda image: turned(image, -6),
    "shifted": lambda image: turned(image, 0, 0.04, -0.03),
    "larger": lambda image: turned(image, 0, scale=1.08),
    "noisy": lambda image: noisy(image, 12),
    "very_noisy": lambda image: noisy(image, 25),
    "brighter": lambda image: (255 * (np.arange(256) / 255) ** 0.6).astype(np.uint8)[image],
    "darker": lambda image: (255 * (np.arange(256) / 255) ** 1.6).astype(np.uint8)[image],
    "other_window": lambda image: np.clip((image.astype(float) - 30) * 1.4, 0, 255).astype(np.uint8),
    "half": lambda image: np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8),
}


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float64]:
    return np.array([embed(shown(name)) for name in KINDS])


def test_what_was_done_to_an_image_leaves_it_the_nearest(vectors: NDArray[np.float64]) -> None:
    nearest = {}
    for change, alter in CHANGES.items():
        found = [int((vectors @ np.array(embed(alter(shown(name))))).argmax()) for name in KINDS]
        nearest[change] = np.mean([place == number for number, place in enumerate(found)])
    assert min(nearest.values()) >= 0.89, nearest  # 17 of 19
    assert np.mean(list(nearest.values())) >= 0.97, nearest


def test_images_of_a_kind_come_before_others(vectors: NDArray[np.float64]) -> None:
    """Mean average precision, beside those of 200 orders by chance."""
    kinds = np.array(list(KINDS.values()))
    like = vectors @ vectors.T
    rng = np.random.default_rng(0)

    def precision(scores: NDArray[np.float64]) -> float:
        means = []
        for number, kind in enumerate(kinds):
            order = [one for one in np.argsort(-scores[number]) if one != number]
            right = kinds[order] == kind
            if right.any():
                means.append(float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean()))
        return float(np.mean(means))

    chance = [precision(rng.normal(size=like.shape)) for _ in range(200)]
    assert precision(like) > np.quantile(chance, 0.95)
    assert precision(like) > np.mean(chance) + 0.1


def test_a_window_changes_little_and_another_image_much() -> None:
    lung, bone = (np.array(embed(shown("explicit_VR-UN.dcm", one))) for one in (Window(40, 400), Window(100, 1000)))
    other = np.array(embed(shown("RG3_UNCI.dcm")))
    assert lung @ bone > 0.9
    assert lung @ other < 0.8


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64), np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.zeros((1, 1), np.uint8),
        np.zeros((1, 3000), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (33, 57, 3), np.uint8),
    ],
)
def test_every_image_has_a_vector_of_length_1(image: Pixels8) -> None:
    vector = embed(image)
    assert len(vector) == DIMENSIONS
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert vector == embed(image.copy())
    assert all(one == round(one, 5) for one in vector)


@pytest.mark.parametrize("name", files())
def test_every_real_file_is_described_or_gives_a_reason(name: str) -> None:
    try:
        found = describe(io.BytesIO(files()[name].read_bytes()))
    except BadMessage as error:
        reasons = ("bad_pixels", "no_pixels")
        found = None
        reason = error.reason
    if found is None:
        assert reason in reasons
        return
    fields = dataclasses.asdict(found.quality)
    assert set(fields) <= set(Image.model_fields)
    assert all(value is None or np.isfinite(value) for value in fields.values())
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-4)
    image = cv2.imdecode(np.frombuffer(found.preview, np.uint8), cv2.IMREAD_UNCHANGED)
    assert max(image.shape[:2]) <= 256


def test_the_middle_frame_is_described_and_its_colours_are_kept() -> None:
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    frames[2, ..., 0] = 200
    ds = header(32, 32, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, NumberOfFrames=5)
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelData = 7, frames.tobytes()
    found = describe(saved(ds))
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(found.preview, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert image[16, 16].tolist() == [200, 0, 0]
    assert found.frames == 5


def test_a_preview_is_small_and_keeps_its_shape() -> None:
    found = describe(io.BytesIO(path("RG1_UNCI.dcm").read_bytes()))
    image = cv2.imdecode(np.frombuffer(found.preview, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (256, round(256 * 1841 / 1955))
    assert image.std() > 10


def test_an_attribute_that_is_no_number_is_a_reason_or_left_out() -> None:
    data = path("CT_small.dcm").read_bytes()
    for tag in (0x00281052, 0x00281053, 0x00280120):  # intercept, slope, padding
        place = data.index(tag.to_bytes(4, "big")[1::-1] + tag.to_bytes(4, "big")[:1:-1]) + 8
        altered = data[:place] + b"x" + data[place + 1 :]
        try:
            assert describe(io.BytesIO(altered)).processing == "done"
        except BadMessage as error:
            assert error.reason == "bad_pixels"  # noqa: PT017
