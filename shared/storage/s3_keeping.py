"""How a bucket is to keep what is written: encrypted, in which storage class, under which tags. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args
from urllib.parse import urlencode

from shared.kernel.errors import Refused

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        CreateMultipartUploadRequestTypeDef,
        HeadObjectOutputTypeDef,
        PutObjectRequestTypeDef,
    )

T = TypeVar("T")

Encryption = Literal["AES256", "aws:kms"]
# Without those that are read only after a restore: what was written is looked at before it is announced.
StorageClass = Literal[
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"
]

OPTIONS = frozenset({"encryption", "kms_key", "storage_class", "tags"})
MAX_TAGS = 10  # S3's own limits, and its letters
_TAG = re.compile(r"(?P<name>[\w .:/+\-@]{1,128})=(?P<value>[\w .:/=+\-@]{0,256})")
_TAGS_HINT = f"tags=team=video,stage=live: at most {MAX_TAGS}, of letters, digits, spaces and . _ : / + - @"


@dataclass(frozen=True, slots=True)
class Keeping:
    """What every object of a store is written with. What is not set is as the bucket is configured."""

    encryption: Encryption | None = None
    kms_key: str | None = None
    storage_class: StorageClass | None = None
    tags: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Keeping:
        """Read the options of an S3 address. Raises Refused, naming the option and what it can be."""
        encryption: Encryption | None = _one_of(get_args(Encryption), options, "encryption")
        kms_key = options.get("kms_key") or None
        if kms_key is not None and encryption != "aws:kms":
            raise Refused(
                "the option kms_key of the S3 address is for encryption=aws:kms", hint="set both, or neither"
            )
        return cls(
            encryption=encryption,
            kms_key=kms_key,
            storage_class=_one_of(get_args(StorageClass), options, "storage_class"),
            tags=_tags(options.get("tags", "")),
        )

    def add_to(self, wanted: PutObjectRequestTypeDef | CreateMultipartUploadRequestTypeDef) -> None:
        """Put it into a request that begins an object."""
        if self.encryption is not None:
            wanted["ServerSideEncryption"] = self.encryption
        if self.kms_key is not None:
            wanted["SSEKMSKeyId"] = self.kms_key
        if self.storage_class is not None:
            wanted["StorageClass"] = self.storage_class
        if self.tags:
            wanted["Tagging"] = urlencode(self.tags)

    def is_obeyed(self, head: HeadObjectOutputTypeDef) -> bool:
        """Say whether an object is encrypted as it was to be: there are servers that pass the wish over."""
        return self.encryption is None or head.get("ServerSideEncryption") == self.encryption


def _one_of(choices: tuple[T, ...], options: Mapping[str, str], name: str) -> T | None:
    text = options.get(name)
    if not text:
        return None
    for choice in choices:
        if choice == text:
            return choice
    possible = ", ".join(map(str, choices))
    raise Refused(f"the option {name} of the S3 address cannot be that", hint=f"one of {possible}")


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    found = [_TAG.fullmatch(tag) for tag in text.split(",")] if text else []
    tags = {match["name"]: match["value"] for match in found if match}
    if not len(tags) == len(found) <= MAX_TAGS:  # one that is none, or twice the same
        raise Refused("the option tags of the S3 address holds no tags", hint=_TAGS_HINT)
    return tuple(tags.items())
