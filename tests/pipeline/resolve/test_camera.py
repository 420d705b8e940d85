"""Persistent ids of a camera's tracklets when late crops regroup them."""

import numpy as np
from sqlalchemy import text

from pipeline.store import Store, roles
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.user_supplied import supplied_url
from schemas.settings import AssociationSettings
from tests.helpers.homes import fresh_settings
from tests.helpers.thin_town import ThinTown, looks

CAMERA = "d1/s1/b1/c1"
#: Crops without a track in the order of their arrival, (second, look in degrees): each late one changes the groups.
ARRIVALS = [
    [(15, 15.2), (24, 33.3), (6, 10.4)],
    [(4, 69.3)],
    [(19, 8.0)],
    [(18, 38.8), (27, 54.8)],
    [(22, 5.2)],
    [(14, 58.9)],
]


def test_an_id_is_not_given_twice_while_its_tracklet_is_current(server: EmbeddedServer) -> None:
    """The last crop regroups earlier tracklets; the one at 27 s is unchanged and keeps an id that they had too."""
    crops = [crop for arrival in ARRIVALS for crop in arrival]
    crowd = looks(*(("c1", at, look) for at, look in crops))
    current = text(
        "SELECT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id "
        "WHERE i.unit = :camera AND r.superseded_at IS NULL"
    )
    with fresh_settings(server) as plain:
        settings = plain.model_copy(update={"association": AssociationSettings(window_s=5)})
        owner = server.connect(roles.OWNER, supplied_url(settings).database or "")
        with Store.open(settings, "pytest") as store:
            town = ThinTown(store, crowd, slope=20, intercept=8.66, transit=0)
            for arrival in ARRIVALS:
                town.take_in(np.array([crops.index(crop) for crop in arrival]))
                with owner, owner.cursor() as cursor:
                    cursor.execute("UPDATE crop SET track = NULL")
                town.resolve([CAMERA])
                with store.begin() as connection:
                    ids = connection.execute(current, {"camera": CAMERA}).scalars().all()
                assert len(set(ids)) == len(ids) > 0
        owner.close()
