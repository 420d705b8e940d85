"""From identities down to their crops: all at once finds what each finds alone."""

import numpy as np
from sqlalchemy import text

from pipeline.search.descent import MOST_CROPS, nearest_crops
from pipeline.search.nearest import Probe
from schemas.levels import Level
from schemas.parameters import Period
from tests.helpers.town import Town


def test_identities_that_are_descended_together_have_the_crops_that_each_has_alone(resolved: Town) -> None:
    with resolved.store.signed_in() as connection:
        identities = connection.execute(
            text("SELECT id, persistent_id FROM identity_now WHERE unit = 'd1' ORDER BY key")
        ).all()
        first, last = connection.execute(text("SELECT min(captured_at), max(captured_at) FROM crop")).one()
        rows = connection.scalars(text("SELECT v::text FROM crop_embedding ORDER BY crop_id LIMIT 3")).all()
        counts: set[int] = set()
        for row in rows:
            probe = Probe(connection, resolved.core, resolved.model, np.fromstring(row.strip("[]"), sep=","))
            for period in (Period(), Period(from_time=first, to_time=first + (last - first) / 2)):
                together = nearest_crops(probe, Level.DISTRICT, identities, period)
                assert list(together) == [identity.id for identity in identities]
                for identity in identities:
                    alone = nearest_crops(probe, Level.DISTRICT, [identity], period)[identity.id]
                    assert together[identity.id] == alone
                    assert all(crop.lineage[0] == identity.persistent_id for crop in alone)
                counts |= {len(crops) for crops in together.values()}
    assert 0 in counts and 1 < max(counts) <= MOST_CROPS
