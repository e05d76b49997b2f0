"""Believable items for the synthetic world: titles, creators, tags and prices built from word lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SURNAMES = (
    "Abara",
    "Brandt",
    "Castel",
    "Dorsey",
    "Ekholm",
    "Farah",
    "Grieve",
    "Hoshi",
    "Ibarra",
    "Jansen",
    "Kovač",
    "Lindqvist",
)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What items of one category are called; firsts x seconds titles, more with numerals."""

    category: str
    department: str
    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    tags: tuple[str, ...]
    creators: tuple[str, ...]
    text: str  # of {title}, {creator}, {tag}
    price: float = 0.0  # about; 0 = not for sale
    series: str = ""  # what its sequels are called; "" = it has none

    def item(self, number: int, style: int, part: int) -> dict[str, Any]:
        """The words of the category's item `number`, by creator `style`, `part` (0..2) of its series."""
        first = self.firsts[number % len(self.firsts)]
        second = self.seconds[(number // len(self.firsts) + number % len(self.firsts)) % len(self.seconds)]
        edition = number // (len(self.firsts) * len(self.seconds))
        title = f"{first} {second}" + (f", edition {edition + 1}" if edition else "")
        if part:
            title = f"{title}: {self.series} {part + 1}"
        tag = self.tags[style % len(self.tags)]
        creator = self.creators[style % len(self.creators)]
        made: dict[str, Any] = {
            "title": title,
            "text": self.text.format(title=title, creator=creator, tag=tag),
            "categories": [self.department, self.category],
            "tags": sorted({tag, self.tags[(number + style + 1) % len(self.tags)]}),
            "creator_id": slug(creator),
        }
        if self.price:
            made |= {"price": round(self.price * (6 + number % 9)) / 10, "currency": "EUR"}
        return made


def slug(name: str) -> str:
    """A name as an id."""
    plain = name.lower().replace("č", "c").replace("é", "e").replace("&", "and")
    return "-".join("".join(letter if letter.isalnum() else " " for letter in plain).split())


def _people(*first_names: str) -> tuple[str, ...]:
    return tuple(f"{first} {SURNAMES[(5 * at + len(first)) % len(SURNAMES)]}" for at, first in enumerate(first_names))


SHELVES = (
    Shelf(
        "science-fiction",
        "films",
        ("Silent", "Last", "Borrowed", "Glass", "Distant", "Paper", "Seventh", "Burning", "Hollow", "Quiet"),
        ("Orbit", "Colony", "Signal", "Horizon", "Engine", "Archive", "Meridian", "Passenger", "Gravity", "Station"),
        ("space", "time-travel", "robots", "dystopia"),
        _people("Mira", "Tomas", "Ines", "Kenji"),
        "{creator} tells a story of {tag} that stays with you. A film.",
        series="Part",
    ),
    Shelf(
        "crime",
        "films",
        (
            "The Harbour",
            "The Winter",
            "The Copper",
            "A Stolen",
            "The Second",
            "A Perfect",
            "The Long",
            "The Blue",
            "An Open",
        ),
        ("Witness", "Ledger", "Alibi", "Verdict", "Confession", "Case", "Debt", "Promise", "Informer", "Window"),
        ("detective", "heist", "courtroom", "noir"),
        _people("Ruth", "Elias", "Nadia", "Piet"),
        "A {tag} film by {creator}: nobody in it says all they know.",
        series="Chapter",
    ),
    Shelf(
        "comedy",
        "films",
        ("My Cousin's", "Almost", "Two Weeks of", "A Field Guide to", "Nobody's", "The Wrong", "Late for", "Half a"),
        ("Wedding", "Holiday", "Landlord", "Marriage", "Choir", "Divorce", "Birthday", "Inheritance", "Neighbours"),
        ("romance", "family", "workplace", "satire"),
        _people("Gus", "Amélie", "Odette", "Femi"),
        "{creator}'s warm {tag} comedy.",
        series="Again",
    ),
    Shelf(
        "documentary",
        "films",
        ("Inside", "Beneath", "The Making of", "A Year in", "Saving", "Lost", "Mapping", "After"),
        (
            "the Reef",
            "the Glacier",
            "the Orchestra",
            "the Night Train",
            "the Vineyard",
            "the Market",
            "the Marathon",
            "the Observatory",
        ),
        ("nature", "music", "history", "food"),
        _people("Hanna", "Luis", "Priya"),
        "{creator} looks closely, and about {tag} there is much to see.",
        series="Episode",
    ),
    Shelf(
        "indie",
        "music",
        ("Paper", "Slow", "Velvet", "Northern", "Electric", "Golden", "Sleeping", "Faded", "Small"),
        ("Lanterns", "Harbours", "Tides", "Postcards", "Satellites", "Gardens", "Winters", "Machines", "Rooms"),
        ("guitar", "dream-pop", "lo-fi", "folk"),
        ("The Ferrymen", "Ada & the Owls", "Low Cabin", "Mezzanine Club"),
        "An album by {creator}; {tag}, recorded in a week.",
        series="Vol.",
    ),
    Shelf(
        "jazz",
        "music",
        ("Midnight", "Blue", "Left Bank", "Sunday", "Round", "Smoky", "Five O'Clock", "Tender"),
        ("Sessions", "Standards", "Quartet", "Avenue", "Changes", "Conversations", "Suite", "Moods"),
        ("piano", "trumpet", "vocal", "fusion"),
        ("Solveig Trio", "Marcus Dell", "The Corner Quintet"),
        "{creator} live, mostly {tag}.",
        series="Vol.",
    ),
    Shelf(
        "podcasts",
        "music",
        ("Plain", "Five-Minute", "The Curious", "Unfinished", "Backstage", "The Daily", "Overheard", "Honest"),
        ("Economics", "Physics", "History", "Kitchens", "Cities", "Letters", "Money", "Medicine"),
        ("science", "interviews", "storytelling", "news"),
        ("Radio Kilometre", "Tin Can Audio", "Studio Nord"),
        "{creator} explains; this time {tag}.",
        series="Season",
    ),
    Shelf(
        "fantasy",
        "books",
        (
            "The Crown of",
            "A Song for",
            "The Thief of",
            "Daughters of",
            "The Cartographer of",
            "Ash and",
            "The Well of",
            "Sworn to",
        ),
        ("Thornwood", "Salt", "Ravens", "Emberfall", "Winter", "Glass", "the Deep", "Amber", "Storms"),
        ("dragons", "magic", "court-intrigue", "quest"),
        _people("Isolde", "Bram", "Yusra", "Wren"),
        "{creator} at their best: {tag}, maps and a long night.",
        series="Book",
    ),
    Shelf(
        "cookbooks",
        "books",
        ("The Weeknight", "The Slow", "One-Pot", "The Vegetable", "Grandmother's", "The Bread", "The Spice", "Simple"),
        ("Kitchen", "Table", "Pantry", "Oven", "Garden", "Feast", "Suppers", "Companion"),
        ("baking", "vegan", "italian", "quick"),
        _people("Lucia", "Anders", "Mei"),
        "Eighty {tag} recipes by {creator}.",
        price=28.0,
    ),
    Shelf(
        "strategy",
        "games",
        ("Iron", "Amber", "Lost", "Frontier", "Crimson", "Silver", "Ancient", "Hidden"),
        ("Dominion", "Harvest", "Caravans", "Citadel", "Voyages", "Railways", "Republic", "Isles"),
        ("turn-based", "co-op", "economy", "war"),
        ("Tall Oak Games", "Ninefold", "Pepper Studio"),
        "A {tag} game from {creator}. One more turn.",
        series="Act",
    ),
    Shelf(
        "running",
        "shop",
        ("Trail", "Road", "Summit", "Tempo", "Ridge", "Marathon", "Swift", "Cloud"),
        ("Shoe", "Vest", "Jacket", "Shorts", "Headlamp", "Socks", "Watch", "Belt"),
        ("waterproof", "light", "vegan", "reflective"),
        ("Fjellrun", "Acme Sports", "Stride"),
        "By {creator}: {tag}, and made for long days.",
        price=79.0,
    ),
    Shelf(
        "kitchenware",
        "shop",
        ("Cast-Iron", "Copper", "Everyday", "Ceramic", "Folding", "Chef's", "Enamel", "Oak"),
        ("Skillet", "Kettle", "Knife", "Grinder", "Board", "Casserole", "Scale", "Whisk"),
        ("induction", "handmade", "gift", "dishwasher-safe"),
        ("Smedjan", "Home & Hearth", "Kuro"),
        "{creator} makes it to last; {tag}.",
        price=45.0,
    ),
    Shelf(
        "outdoor",
        "shop",
        ("Alpine", "Two-Person", "Packable", "All-Season", "Titanium", "River", "Basecamp", "Featherweight"),
        ("Tent", "Stove", "Sleeping Bag", "Backpack", "Filter", "Hammock", "Lantern", "Mat"),
        ("camping", "ultralight", "recycled", "winter"),
        ("Tarn", "Boreal Works", "Acme Outdoor"),
        "From {creator}, for {tag}.",
        price=120.0,
    ),
    Shelf(
        "photography",
        "shop",
        ("Compact", "Vintage", "Wide-Angle", "Carbon", "Studio", "Instant", "Leather", "Pocket"),
        ("Camera", "Lens", "Tripod", "Strap", "Flash", "Film Pack", "Light Meter", "Bag"),
        ("analogue", "travel", "portrait", "professional"),
        ("Lumen", "Okular", "Grain & Co"),
        "{creator}: {tag}, nothing superfluous.",
        price=210.0,
    ),
)
