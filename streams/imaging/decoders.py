"""Decoders that pydicom does not bring together with what is installed: plug-ins of its pixel data decoders.

HTJ2K needs `pylibjpeg` there, of which only the part that decodes (OpenJPEG) is here; JPEG Extended of 12 bits is
refused there, and GDCM gives the very values of DCMTK's `dcmdjpeg` for it. `pixels` registers them.
"""

from __future__ import annotations

from typing import Any

import gdcm
from openjpeg.utils import decode_pixel_data
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

J2K = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys(J2K, ("pylibjpeg-openjpeg>=2.0",)) | {uid.JPEGExtended12Bit: ("gdcm>=3.0",)}


def is_available(syntax: str) -> bool:
    """What pydicom asks of a module of plug-ins."""
    return syntax in DECODER_DEPENDENCIES


def register() -> None:
    """Once a process. The texts of the decoders, which may quote a header, are turned off."""
    for off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        off()
    for syntax in DECODER_DEPENDENCIES:
        name = "decode_jpeg12" if syntax == uid.JPEGExtended12Bit else "decode_j2k"
        get_decoder(syntax).add_plugin(name, (__name__, name))


def decode_j2k(frame: bytes, runner: Any) -> Any:
    """Bytes of one JPEG 2000 or HTJ2K frame, colour by pixel, each sample in the fewest of 1, 2, 4 bytes."""
    samples = decode_pixel_data(frame, version=2)
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")  # PS3.5 8.2.4: the codestream undoes its own transform
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    runner.set_option("planar_configuration", 0)
    return samples


def decode_jpeg12(frame: bytes, runner: Any) -> bytes:
    """Samples of one JPEG Extended frame (Process 4) of 12 bits, in 2 bytes each."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(runner.transfer_syntax))))
    bits = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(runner.samples_per_pixel, runner.bits_allocated, bits, bits - 1, runner.pixel_representation)
    )
    decoded: str = image.GetBuffer()  # bytes, as text
    return decoded.encode("utf-8", "surrogateescape")
