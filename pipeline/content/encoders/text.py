"""Words and pieces of words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.content.corpus import Corpus, key_of
from pipeline.content.item import NOTHING, Content, Features
from pipeline.model.sequence import mix
from pipeline.types import U32, U64, Mask

_GAP = np.uint32(32)


@dataclass(frozen=True, slots=True)
class Text:
    """Hashed words, pairs of neighbouring words, and character n-grams of words, begin and end of a word included.

    A feature counts 1 + log(times); a piece of a word `pieces` of that, so that a misspelt or inflected word is still
    near, but a whole one decides.
    """

    field: str  # "title" or "text"
    pairs: bool = True
    shortest: int = 3
    longest: int = 5
    pieces: float = 0.4
    limit: int = 4000  # characters that are read
    rare: bool = True

    @property
    def name(self) -> str:
        """Its field."""
        return self.field

    def __call__(self, content: Content, corpus: Corpus) -> Features:  # noqa: ARG002
        """The features of the field."""
        codes = plain(getattr(content, self.field), self.limit)
        if not len(codes):
            return NOTHING
        grams = self.longest - self.shortest + 1
        keys, whole = np.empty(len(codes) * (2 + grams), np.uint64), np.empty(len(codes) * (2 + grams), np.bool_)
        seed = np.uint64(key_of("text", self.field))
        n = ngrams(codes, seed, self.pairs, self.shortest, self.longest, keys, whole)
        distinct, first, times = np.unique(keys[:n], return_index=True, return_counts=True)
        shares = np.where(whole[first], 1.0, self.pieces)
        return Features(distinct, ((1 + np.log(times)) * shares).astype(np.float32))


def plain(text: str, limit: int) -> U32:
    """Code points of the words of `text`, in one case and form (NFKC), a blank around each; empty without words."""
    folded = unicodedata.normalize("NFKC", text[:limit]).casefold()
    words = "".join(letter if letter.isalnum() else " " for letter in folded).split()
    joined = f" {' '.join(words)} " if words else ""
    return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)


@njit(cache=True)
def ngrams(codes: U32, seed: np.uint64, pairs: bool, shortest: int, longest: int, keys: U64, whole: Mask) -> int:
    """The keys of the words of `codes` (as `plain` gives them); returns how many. `whole`: a word or pair of words.

    A key is the FNV-1a hash of its code points, begun with what it is a key of. Pieces are those of " word ", but for
    the whole of it.
    """
    prime = np.uint64(0x100000001B3)
    word_seed, pair_seed = mix(seed + np.uint64(1)), mix(seed + np.uint64(2))
    count, begin, last = 0, 0, np.uint64(0)
    for end in range(1, len(codes)):
        if codes[end] != _GAP:
            continue
        word = word_seed
        for at in range(begin + 1, end):
            word = (word ^ np.uint64(codes[at])) * prime
        keys[count], whole[count] = mix(word), True
        count += 1
        if pairs and last != 0:
            keys[count], whole[count] = mix(pair_seed ^ last * prime ^ word), True
            count += 1
        last = word
        for length in range(shortest, min(longest, end - begin) + 1):
            for start in range(begin, end + 2 - length):
                piece = mix(seed + np.uint64(3 + length))
                for at in range(start, start + length):
                    piece = (piece ^ np.uint64(codes[at])) * prime
                keys[count], whole[count] = mix(piece), False
                count += 1
        begin = end
    return count
