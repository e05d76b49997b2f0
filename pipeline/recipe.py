"""THE list of parts: what the read path is made of, in order, with parameters. The only file that names parts."""

from __future__ import annotations

from pipeline.arrangers.fatigue import Fatigue
from pipeline.arrangers.newcomers import Newcomers
from pipeline.arrangers.spread_creators import SpreadCreators
from pipeline.content.encoders.creator import Creator
from pipeline.content.encoders.labels import Labels
from pipeline.content.encoders.numbers import Numbers
from pipeline.content.encoders.text import Text
from pipeline.content.encoders.vectors import Vectors
from pipeline.content.encoding import Encoding
from pipeline.features.age import Age
from pipeline.features.backward import Backward
from pipeline.features.content import Content as ContentFeature
from pipeline.features.covisitation import Covisitation as CovisitationFeature
from pipeline.features.entry import Entry as EntryFeature
from pipeline.features.forward import Forward as ForwardFeature
from pipeline.features.last import Last
from pipeline.features.own import Own as OwnFeature
from pipeline.features.popularity import Popularity
from pipeline.features.rank import Rank
from pipeline.features.recency import Recency
from pipeline.features.sequence import Sequence as SequenceFeature
from pipeline.features.trend import Trend
from pipeline.features.user_knn import UserKnn as UserKnnFeature
from pipeline.features.vs_knn import VsKnn as VsKnnFeature
from pipeline.filters.available import Available
from pipeline.filters.in_market import InMarket
from pipeline.filters.not_blocked import NotBlocked
from pipeline.filters.not_consumed import NotConsumed
from pipeline.filters.not_expired import NotExpired
from pipeline.filters.not_muted import NotMuted
from pipeline.filters.safe import Safe
from pipeline.ranking import Learned
from pipeline.retrieval import Filter, Recipe
from pipeline.sources.content import Content
from pipeline.sources.covisitation import Covisitation
from pipeline.sources.entry import Entry
from pipeline.sources.forward import Forward
from pipeline.sources.fresh import Fresh
from pipeline.sources.own import Own
from pipeline.sources.sequence import Sequence
from pipeline.sources.trending import Trending
from pipeline.sources.user_knn import UserKnn
from pipeline.sources.vs_knn import VsKnn

# What an item's content vector is made of, and how much each side of it weighs: see pipeline.content.encoding.
ENCODING = Encoding(
    (
        (Text("title"), 0.4),
        (Text("text"), 0.6),
        (Labels("categories"), 1.0),
        (Labels("tags"), 0.7),
        (Labels("attributes"), 0.4),
        (Creator(), 0.5),
        (Numbers(), 1.0),
        (Vectors(), 1.0),
    )
)

# Proposals of a source that says the same to everyone. A second hundred makes two fifths more candidates to rank; where
# trends decide most it changed recall@10 by nothing, though .03 more of the chosen items were among the candidates.
SHARED = 100
NEAR = 50  # young items by their content; with 200 a list is two fifths longer and no better

SOURCES = (
    Sequence(),
    Covisitation(),
    Forward(),
    VsKnn(),
    UserKnn(),
    Content(limit=NEAR),
    Trending(half_life=0, limit=SHARED),
    Trending(half_life=1, limit=SHARED),
    Trending(half_life=2, limit=SHARED),
    Trending(half_life=3, limit=SHARED),
    Entry(),
    Fresh(limit=SHARED),
)
FILTERS: tuple[Filter, ...] = (Available(), NotExpired(), NotBlocked(), NotMuted(), InMarket())
# Hand weights serve until the ranker has learned, which begins at them: decision 24. Content weighs as much as it does
# because its columns are small: differences of a few hundredths.
HAND = (
    ("sequence", 0.5),
    ("covisitation", 0.4),
    ("forward", 0.1),
    ("last", 0.1),
    ("popularity", 0.1),
    ("trend_0", 0.05),
    ("trend_2", 0.15),
    ("own", 1.2),
    ("own_gap", 0.3),
    ("own_count", 1.6),
    ("own_last", 0.8),
    ("own_before_last", 0.8),
    ("content_profile", 1.0),
    ("content_last", 0.2),
    ("rank_sequence", 0.1),
    ("rank_user_knn", 0.1),
)
RANKER = Learned(
    features=(
        SequenceFeature(),
        CovisitationFeature(),
        Backward(),
        ForwardFeature(),
        Last(),
        VsKnnFeature(),
        UserKnnFeature(),
        Popularity(),
        Trend(),
        Recency(),
        Age(),
        EntryFeature(),
        OwnFeature(),
        ContentFeature(),
        Rank("sequence", "sequence"),
        Rank("covisitation", "covisitation"),
        Rank("vs_knn", "vs_knn"),
        Rank("user_knn", "user_knn"),
        Rank("trending", "trend"),
    ),
    hand=HAND,
    below=("sequence", "covisitation", "vs_knn", "user_knn", "last", "trend_2"),
)
LEAN_SOURCES = tuple(source for source in SOURCES if source.name not in ("vs_knn", "user_knn", "content"))
LEAN_RANKER = Learned(
    features=(
        SequenceFeature(),
        CovisitationFeature(),
        ForwardFeature(),
        Popularity(),
        Trend(),
        OwnFeature(),
    ),
    hand=(("sequence", 0.5), ("covisitation", 0.5), ("forward", 0.2), ("popularity", 0.1), ("trend_2", 0.2)),
)
GUARDS = (Safe(),)
ARRANGERS = (SpreadCreators(), Newcomers(), Fatigue())  # what a user is tired of is not lifted again


def home(size: int = 10, repeats: bool = False) -> Recipe:
    """The feed of a start page. `repeats`: consumed items may come again."""
    filters = FILTERS if repeats else (*FILTERS, NotConsumed())
    sources = (*SOURCES, Own()) if repeats else SOURCES
    return Recipe("home", sources, filters, RANKER, GUARDS, ARRANGERS, size)


def lean(size: int = 10, repeats: bool = False) -> Recipe:
    """A start page for half the CPU: no neighbourhoods and no content in it, and a ranker of a few columns."""
    filters = FILTERS if repeats else (*FILTERS, NotConsumed())
    sources = (*LEAN_SOURCES, Own()) if repeats else LEAN_SOURCES
    return Recipe("lean", sources, filters, LEAN_RANKER, GUARDS, ARRANGERS, size)


RECIPES = {"home": home, "lean": lean}
