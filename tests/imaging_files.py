"""The real files of pydicom and pydicom-data, and small ones made here."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from streams.imaging.display import modality
from streams.imaging.pixels import Pixels


@cache
def files() -> dict[str, Path]:
    """By the end of their paths, which is their name."""
    found = [Path(one) for one in get_testdata_files("**/*")]
    return {"/".join(one.parts[-3:]): one for one in sorted(set(found)) if one.is_file()}


def path(name: str) -> Path:
    return next(one for key, one in files().items() if key.endswith(f"/{name}"))


def opened(name: str) -> Pixels:
    return Pixels(io.BytesIO(path(name).read_bytes()))


def image(name: str, frame: int = 0) -> NDArray[np.float32]:
    """Values of the modality."""
    pixels = opened(name)
    return np.asarray(modality(pixels.frame(frame), pixels.attributes(frame)), np.float32)


def header(rows: int = 8, columns: int = 8, syntax: str = ExplicitVRLittleEndian, **more: Any) -> Dataset:
    """An image of 16 bits without its pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "2.25.1"
    ds.Modality = "CT"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def saved(ds: Dataset) -> io.BytesIO:
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    out.seek(0)
    return out


def read(name: str) -> Dataset:
    return dcmread(path(name), force=True)
