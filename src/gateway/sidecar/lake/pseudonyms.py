"""Which keys the pseudonyms of a lake were made with: by their marks, that tell no key.

```
pseudonyms/<16 hex digits>
```

Hosts of one key call a customer alike. Of two keys he is two, and what is told to one host of his
groups is not known of what the other decides.
"""

from __future__ import annotations

import hmac

from pyarrow import fs

from gateway.sidecar.lake.parquet import make_folder, refusal, whole

FOLDER = "pseudonyms"
_MARK_BYTES = 8
_OF = b"the mark of a key in a lake"


class Pseudonyms:
    """Leaves the mark of a key in a lake, once."""

    def __init__(self, filesystem: fs.FileSystem, root: str, key: bytes) -> None:
        self._filesystem = filesystem
        self._folder = f"{root}/{FOLDER}"
        self._mark = mark_of(key)
        self._is_left = False

    def leave(self) -> None:
        """Write the mark where it is not there yet. Raises LakeError."""
        if self._is_left:
            return
        path = f"{self._folder}/{self._mark}"
        try:
            if self._filesystem.get_file_info(path).type is fs.FileType.NotFound:
                make_folder(self._filesystem, self._folder)
                with whole(self._filesystem, path) as sink:
                    sink.write(b"Subjects of this lake go by the key of this mark.\n")
        except OSError as error:
            raise refusal(error, "leave the mark of a key in the lake", path) from error
        self._is_left = True


def mark_of(key: bytes) -> str:
    """Return what tells a key from others, and nothing else of it: no pseudonym either."""
    return hmac.digest(key, _OF, "sha512")[:_MARK_BYTES].hex()


def marks(filesystem: fs.FileSystem, root: str) -> frozenset[str]:
    """Return the marks of a lake's keys; none of a lake that is older. Raises LakeError."""
    folder = f"{root}/{FOLDER}"
    try:
        found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    except OSError as error:
        raise refusal(error, "look for the marks of the lake's keys", folder) from error
    return frozenset(one.base_name for one in found if not one.base_name.startswith("."))
