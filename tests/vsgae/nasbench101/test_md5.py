import hashlib

import numpy as np
import pytest

from vsgae.nasbench101 import md5


def hexdigests(texts: list[bytes]) -> list[str]:
    """Of texts of one length, each put in as two pieces that meet at a place of their own."""
    length = len(texts[0])
    words = np.zeros((16 * md5.num_blocks(length), len(texts)), np.uint32)
    middle = length // 3
    for at, pieces in ((0, [text[:middle] for text in texts]), (middle, [text[middle:] for text in texts])):
        md5.write(words, at, np.hstack([md5.words_of(piece) for piece in pieces]))
    md5.close(words, length)
    return np.ascontiguousarray(md5.hexdigests(words).T).view("S32").ravel().astype(str).tolist()


@pytest.mark.parametrize("lanes", [3, 4, 32768])
def test_every_length_up_to_four_blocks_gives_the_digests_of_hashlib(
    lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(md5, "LANES", lanes)
    rng = np.random.default_rng(0)
    for length in range(260):
        texts = [rng.bytes(length) for _ in range(7)]
        assert hexdigests(texts) == [hashlib.md5(text).hexdigest() for text in texts], length
