"""Files of trained models: written whole or not at all, checked before anything in them is believed, never code.

Tensors go into safetensors, everything else into JSON that says what type every value has.
"""

from countsdiff.model_files._document import FormatVersion, read_document, write_document
from countsdiff.model_files._error import ModelFileError, believing
from countsdiff.model_files._folder import replacing
from countsdiff.model_files._types import check_type
from countsdiff.model_files._values import decode, encode
from countsdiff.model_files._weights import check_weights, read_weights, write_weights

__all__ = [
    "FormatVersion",
    "ModelFileError",
    "believing",
    "check_type",
    "check_weights",
    "decode",
    "encode",
    "read_document",
    "read_weights",
    "replacing",
    "write_document",
    "write_weights",
]
