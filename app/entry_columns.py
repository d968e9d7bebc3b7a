"""The facts of many images as columns: what the entry table is made of, and what is written to a file of them."""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.packed_strings import CODEC, PackedStrings

ROLES = ("normal", "anomalous", "unlabelled", "example")  # by code
NONE = -1  # code of no label, no group
DOCUMENTS_AT_ONCE = 4096  # decoded together; bounds memory


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """The facts of one image that searches and filters need; its metadata is decoded when asked for."""

    pk: int
    image_id: str
    sha256: str
    role: str
    label: str | None
    group: str | None
    metadata_json: str

    @property
    def metadata(self) -> dict[str, Any]:
        """The document; a new one at each look."""
        document: dict[str, Any] = json.loads(self.metadata_json)
        return document


@dataclass(frozen=True, slots=True)
class CodedStrings:
    """Strings that many images share: a code for each image, the place of its value among the sorted values.

    Shapes: codes (n,) int32, -1 for none; values (v,), each once, ascending.
    """

    codes: NDArray[np.int32]
    values: PackedStrings

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> "CodedStrings":
        """These strings, in order."""
        values = sorted({text for text in texts if text is not None})
        code_of: dict[str | None, int] = {text: code for code, text in enumerate(values)}
        codes = np.fromiter((code_of.get(text, NONE) for text in texts), np.int32, len(texts))
        return cls(codes, PackedStrings.of(values))

    @classmethod
    def joined(cls, parts: Sequence["CodedStrings"]) -> "CodedStrings":
        """The strings of all parts, one part after the other; values that nobody has are dropped."""
        if len(parts) == 1:
            return parts[0]
        known = [part.values.take(np.unique(part.codes[part.codes >= 0])).texts() for part in parts]
        values = sorted(set().union(*known))
        code_of = {text: code for code, text in enumerate(values)}
        codes = []
        for part, texts in zip(parts, known, strict=True):
            renumbered = np.full(len(part.values) + 1, NONE, np.int32)  # the last place is that of none
            used = np.unique(part.codes[part.codes >= 0])
            renumbered[used] = [code_of[text] for text in texts]
            codes.append(renumbered[part.codes])
        return cls(np.concatenate(codes), PackedStrings.of(values))

    def take(self, rows: NDArray[np.intp]) -> "CodedStrings":
        """The strings of these rows, in this order."""
        return CodedStrings(self.codes[rows], self.values)

    def __getitem__(self, row: int) -> str | None:
        code = int(self.codes[row])
        return None if code == NONE else self.values[code]

    def at(self, rows: NDArray[np.intp]) -> list[str | None]:
        """The strings of these rows, in this order."""
        chosen = self.codes[rows]
        text_of: dict[int, str | None] = {int(code): self.values[int(code)] for code in np.unique(chosen) if code >= 0}
        return [text_of.get(code) for code in chosen.tolist()]


@dataclass(frozen=True, slots=True)
class EntryColumns:
    """The facts of n images; never changed.

    Shapes: pks (n,) int64; hashes (n, 32) uint8, the sha256; roles (n,) uint8, places in `ROLES`; keys (n,) uint64, see
    `image_key`; key_order (n,), rows by ascending key; metadata: JSON with a comma after each document, so that any
    stretch of them is the inside of a JSON list.
    """

    pks: NDArray[np.int64]
    image_ids: PackedStrings
    hashes: NDArray[np.uint8]
    roles: NDArray[np.uint8]
    labels: CodedStrings
    groups: CodedStrings
    metadata: PackedStrings
    keys: NDArray[np.uint64]
    key_order: NDArray[np.uint32]

    @classmethod
    def of(
        cls,
        pks: Sequence[int],
        image_ids: Sequence[str],
        hashes: Sequence[str],
        roles: Sequence[str],
        labels: Sequence[str | None],
        groups: Sequence[str | None],
        texts: Sequence[str],
    ) -> "EntryColumns":
        """The columns of these images in the order given; `texts` are their metadata as JSON, which is not decoded."""
        code_of = {role: code for code, role in enumerate(ROLES)}
        keys = np.fromiter(map(image_key, image_ids), np.uint64, len(image_ids))
        return cls(
            pks=np.array(pks, np.int64),
            image_ids=PackedStrings.of(image_ids),
            hashes=np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32),
            roles=np.fromiter((code_of[role] for role in roles), np.uint8, len(roles)),
            labels=CodedStrings.of(labels),
            groups=CodedStrings.of(groups),
            metadata=PackedStrings.of(f"{text}," for text in texts),
            keys=keys,
            key_order=np.argsort(keys).astype(np.uint32),
        )

    @classmethod
    def joined(cls, parts: Sequence["EntryColumns"]) -> "EntryColumns":
        """The images of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        keys = np.concatenate([part.keys for part in parts])
        return cls(
            pks=np.concatenate([part.pks for part in parts]),
            image_ids=PackedStrings.joined([part.image_ids for part in parts]),
            hashes=np.concatenate([part.hashes for part in parts]),
            roles=np.concatenate([part.roles for part in parts]),
            labels=CodedStrings.joined([part.labels for part in parts]),
            groups=CodedStrings.joined([part.groups for part in parts]),
            metadata=PackedStrings.joined([part.metadata for part in parts]),
            keys=keys,
            key_order=np.argsort(keys).astype(np.uint32),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "EntryColumns":
        """What `arrays` gave, as views. Raises ValueError when an array is missing or does not fit the others."""
        missing = sorted(set(_LAYOUT) - set(arrays))
        if missing:
            raise ValueError(f"Array `{missing[0]}` of the entries is missing.")
        rows = arrays["pks"].shape[0] if arrays["pks"].ndim else 0
        for name, (dtype, tail) in _LAYOUT.items():
            one = arrays[name]
            if one.dtype != np.dtype(dtype) or one.ndim != 1 + len(tail) or one.shape[1:] != tail:
                raise ValueError(
                    f"Array `{name}` of the entries must be {dtype} of shape (n, *{tail}); got {one.shape}."
                )
            if name in _BY_ROW and one.shape[0] != rows + _BY_ROW[name]:
                raise ValueError(
                    f"Array `{name}` of the entries must have {rows + _BY_ROW[name]} rows; got {len(one)}."
                )

        def strings(name: str) -> PackedStrings:
            offsets = arrays[f"{name}_offsets"]
            if not offsets.size or offsets[0] or offsets[-1] != arrays[f"{name}_bytes"].size:
                raise ValueError(f"Array `{name}_offsets` of the entries must end where its bytes end.")
            return PackedStrings(arrays[f"{name}_bytes"], offsets)

        made = cls(
            pks=arrays["pks"],
            image_ids=strings("image_ids"),
            hashes=arrays["hashes"],
            roles=arrays["roles"],
            labels=CodedStrings(arrays["label_codes"], strings("label_values")),
            groups=CodedStrings(arrays["group_codes"], strings("group_values")),
            metadata=strings("metadata"),
            keys=arrays["keys"],
            key_order=arrays["key_order"],
        )
        if not made.is_ascending:
            raise ValueError("Array `pks` of the entries must be strictly ascending.")
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays that `from_arrays` makes the same columns of."""
        found: dict[str, NDArray[Any]] = {
            "pks": self.pks,
            "hashes": self.hashes,
            "roles": self.roles,
            "label_codes": self.labels.codes,
            "group_codes": self.groups.codes,
            "keys": self.keys,
            "key_order": self.key_order,
        }
        for name, strings in (
            ("image_ids", self.image_ids),
            ("label_values", self.labels.values),
            ("group_values", self.groups.values),
            ("metadata", self.metadata),
        ):
            found[f"{name}_bytes"], found[f"{name}_offsets"] = strings.blob, strings.offsets
        return found

    def __len__(self) -> int:
        return self.pks.size

    @property
    def is_ascending(self) -> bool:
        """Whether every pk is greater than the one before."""
        return bool((self.pks[1:] > self.pks[:-1]).all())

    def take(self, rows: NDArray[np.intp]) -> "EntryColumns":
        """The images at these rows, in this order."""
        keys = self.keys[rows]
        return EntryColumns(
            pks=self.pks[rows],
            image_ids=self.image_ids.take(rows),
            hashes=self.hashes[rows],
            roles=self.roles[rows],
            labels=self.labels.take(rows),
            groups=self.groups.take(rows),
            metadata=self.metadata.take(rows),
            keys=keys,
            key_order=np.argsort(keys).astype(np.uint32),
        )

    def entry(self, row: int) -> ImageEntry:
        """The image at this row."""
        return ImageEntry(
            pk=int(self.pks[row]),
            image_id=self.image_ids[row],
            sha256=self.hashes[row].tobytes().hex(),
            role=ROLES[self.roles[row]],
            label=self.labels[row],
            group=self.groups[row],
            metadata_json=self.metadata[row][:-1],
        )

    def row_of(self, image_id: str, key: int) -> int | None:
        """The row of the image with this id, whose key is given."""
        place = bisect_left(self.key_order, key, key=lambda row: int(self.keys[row]))
        while place < self.key_order.size and int(self.keys[row := int(self.key_order[place])]) == key:
            if self.image_ids[row] == image_id:
                return row
            place += 1
        return None

    def documents(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """All metadata in order, decoded some thousand at a time: the first row of each stretch and its documents."""
        offsets = self.metadata.offsets
        for start in range(0, len(self), DOCUMENTS_AT_ONCE):
            end = min(start + DOCUMENTS_AT_ONCE, len(self))
            inside = self.metadata.blob[offsets[start] : offsets[end] - 1].tobytes().decode(*CODEC)
            yield start, json.loads(f"[{inside}]")


def image_key(image_id: str) -> int:
    """64 bits that depend on the id alone: they choose calibration rows and halves, whatever the order of arrival."""
    return int.from_bytes(hashlib.sha256(image_id.encode(*CODEC)).digest()[:8], "big")


# Every array by name: its type, its shape after the rows, and (by row) how many more it has than there are images.
_LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "pks": ("<i8", ()),
    "hashes": ("u1", (32,)),
    "roles": ("u1", ()),
    "label_codes": ("<i4", ()),
    "group_codes": ("<i4", ()),
    "keys": ("<u8", ()),
    "key_order": ("<u4", ()),
    **{f"{name}_bytes": ("u1", ()) for name in ("image_ids", "label_values", "group_values", "metadata")},
    **{f"{name}_offsets": ("<i8", ()) for name in ("image_ids", "label_values", "group_values", "metadata")},
}
_BY_ROW = {
    **dict.fromkeys(("pks", "hashes", "roles", "label_codes", "group_codes", "keys", "key_order"), 0),
    **dict.fromkeys(("image_ids_offsets", "metadata_offsets"), 1),
}
