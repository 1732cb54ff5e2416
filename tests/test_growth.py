"""Edits leave a file nearly as large as it was: rows have room for their first one, the change index is small."""

from random import Random

import fieldsync as fs

RECORDS, BATCH, ROUNDS = 4_000, 200, 3


class Thing(fs.Record, table="things"):
    name: str
    place: str
    count: int


def test_overwriting_a_field_of_all_records_lets_a_file_grow_by_a_twentieth_at_most(tmp_path):
    chance, path = Random(3), tmp_path / "a.db"
    rows = [
        {
            "id": f"{chance.getrandbits(96):024x}",
            "name": "n" * chance.randint(40, 60),
            "place": "p" * 90,
            "count": 1_000,
        }
        for _ in range(RECORDS)
    ]
    keys = [row["id"] for row in rows]
    with fs.open(path, Thing, durability="fast") as db:
        db.load(Thing, rows, key="id", scope=lambda _: "s")
    before = path.stat().st_size  # its log is in it: it was closed
    with fs.open(path, Thing, durability="fast") as db:
        for _ in range(ROUNDS):
            chance.shuffle(keys)
            for start in range(0, RECORDS, BATCH):
                with db.write() as tx:
                    for key in keys[start : start + BATCH]:
                        tx.update(Thing, key, name="m" * chance.randint(40, 60))
    assert path.stat().st_size <= before * 1.05
