"""What the words of the pages mean, for people who have never read about the system."""

WORDS: tuple[tuple[str, str], ...] = (
    ("Person", "What the system believes to be one person: the passages that it put together. It can be wrong."),
    ("Passage", "One person walking by one camera once, with all pictures taken of it."),
    ("Journey", "A person’s passages in the order of time, over all cameras."),
    ("Joined", "Two passages, or two groups of them, that the system holds for one person."),
    ("Kept apart", "Two that it compared and holds for different people."),
    ("Review", "Two that look alike, but not so much that it decides by itself. It asks a person."),
    (
        "Probability",
        "Of 100 pairs with 90 % about 90 show one person, if people here are like those it learned from.",
    ),
    ("Difference", "How unlike two pictures are for the model, from 0 to 2. Small means alike. It is no probability."),
    ("Lead", "A hit of a search that somebody may follow. It is not an identification, and not evidence by itself."),
    ("Confirmed", "Two people looked at a lead, each without the other’s answer, and both saw one person."),
    ("Authorization", "What one person asked for and another approved: whom to look for, where, and in which time."),
    ("Blind", "A camera that saw nothing for a while. That nobody was seen there then means nothing."),
    ("Window", "A few minutes of the city’s time that are decided on together."),
    (
        "Decided again",
        "Pictures came in late, or somebody asked for it: the earlier decision stays, and counts no more.",
    ),
    ("Model", "What turns a picture into numbers that can be compared. A candidate is one that is not in use."),
    ("Audit", "The record of who did and saw what. Rows are only ever added, and each one seals those before it."),
    ("Retention", "How long pictures and people are kept before they are removed by themselves."),
)
