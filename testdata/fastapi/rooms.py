"""Who is in the room, and what has happened there."""

from typing import Any


class Rooms:
    def __init__(self) -> None:
        self.reset()

    def enter(self, user: str) -> None:
        self.log.append(f"{user} enters")
        self.present.add(user)

    def leave(self, user: str, why: str) -> None:
        self.log.append(f"{user} leaves: {why}")
        self.present.discard(user)

    def as_dict(self) -> dict[str, Any]:
        return {"present": sorted(self.present), "log": self.log}

    def reset(self) -> None:
        self.present: set[str] = set()
        self.log: list[str] = []


rooms = Rooms()
