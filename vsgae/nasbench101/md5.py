"""MD5 (RFC 1321) of many texts of one length at once, in numpy's uint32 lanes.

*Words* hold N texts side by side: uint32 ``[W, N]``, column n with four characters of text n a row, little-endian, as
MD5 reads them. A message of B blocks has 16 B rows; it begins as zeros, :func:`write` and :func:`close` fill it.
"""

from __future__ import annotations

import math

import numpy as np

LANES = 32768  # texts at a time: many, to outweigh the cost of a numpy call, but few enough for a core's cache

STATE = np.array([[0x67452301], [0xEFCDAB89], [0x98BADCFE], [0x10325476]], np.uint32)
CONSTANTS = [np.uint32(abs(math.sin(step + 1)) * 2**32) for step in range(64)]
LEFT = [np.uint32(k) for four in ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)) for k in four * 4]
RIGHT = [np.uint32(32 - k) for k in LEFT]
ROWS = [(factor * k + first) % 16 for factor, first in ((1, 0), (5, 1), (3, 5), (7, 0)) for k in range(16)]
TWO_DIGITS = np.frombuffer(bytes(range(2**8)).hex().encode(), "<u2").astype(np.uint32)  # of a byte
DIGITS = (TWO_DIGITS | TWO_DIGITS[:, None] << 16).ravel()  # of two bytes, the first of them the low one


def num_blocks(length: int) -> int:
    """The blocks of a message of ``length`` characters, a closing bit and its length in 8 bytes."""
    return (length + 9 + 63) // 64


def words_of(text: bytes) -> np.ndarray:
    """Words ``[W, 1]`` of one text, zeros behind it."""
    return np.frombuffer(text + bytes(-len(text) % 4), "<u4")[:, None]


def write(words: np.ndarray, at: int, text: np.ndarray) -> None:
    """Put a text, words ``[W, N or 1]``, from character ``at`` on, where all is zero so far."""
    row, shift = at // 4, np.uint32(8 * (at % 4))
    words[row : row + len(text)] |= text << shift
    if shift:  # what is left of each word goes into the next; beyond the end there are only zeros
        words[row + 1 : row + 1 + len(text)] |= (text >> (32 - shift))[: len(words) - row - 1]


def close(words: np.ndarray, length: int) -> None:
    """Complete messages of ``length`` characters."""
    write(words, length, words_of(b"\x80"))
    words[-2] = 8 * length


def hexdigests(words: np.ndarray) -> np.ndarray:
    """Words ``[8, N]``: the 32 hexadecimal digits of N closed messages, words ``[16 B, N]``."""
    digits = np.empty((8, words.shape[1]), np.uint32)
    for low in range(0, words.shape[1], LANES):
        digest = _digests(words[:, low : low + LANES])
        digits[0::2, low : low + LANES] = DIGITS.take(digest & 0xFFFF)
        digits[1::2, low : low + LANES] = DIGITS.take(digest >> 16)
    return digits


def _digests(words: np.ndarray) -> np.ndarray:
    """uint32 ``[4, N]``."""
    state = np.repeat(STATE, words.shape[1], axis=1)
    mixed = np.empty_like(state[0])
    for start in range(0, len(words), 16):
        a, b, c, d = state.copy()
        for step in range(64):
            if step < 16:  # b ? c : d
                np.bitwise_xor(c, d, out=mixed)
                mixed &= b
                mixed ^= d
            elif step < 32:  # d ? b : c
                np.bitwise_xor(b, c, out=mixed)
                mixed &= d
                mixed ^= c
            elif step < 48:
                np.bitwise_xor(b, c, out=mixed)
                mixed ^= d
            else:
                np.invert(d, out=mixed)
                mixed |= b
                mixed ^= c
            a += mixed
            a += words[start + ROWS[step]]
            a += CONSTANTS[step]
            np.left_shift(a, LEFT[step], out=mixed)  # rotate
            a >>= RIGHT[step]
            a |= mixed
            a += b
            a, b, c, d = d, a, b, c
        state += (a, b, c, d)
    return state
