"""Four colour maps, from cold to hot.

Owns their tables. Never needs matplotlib. Invariant: each is 256 colours, and no value of theirs is
more than 2 of 255 from that of matplotlib's map of the same name.

turbo is by Anton Mikhailov (Google, 2019), viridis and inferno by Smith and van der Walt (2015).
Each is written down at 33 places, and drawn straight between them.
"""

from __future__ import annotations

import numpy as np

COLOURS = 256


def colormap(name: str) -> np.ndarray:
    """Return the colours of a map, shape (256, 3), as bytes."""
    where = np.linspace(0, 1, COLOURS)
    if name == "jet":
        corners = [np.array(points) for points in JET]
        channels = [np.interp(where, xy[:, 0], xy[:, 1]) * 255 for xy in corners]
    else:
        table = _points(POINTS[name])
        places = np.linspace(0, 1, len(table))
        channels = [np.interp(where, places, column) for column in table.T]
    return (np.stack(channels, axis=1) + 0.5).astype(np.uint8)


def _points(text: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(colour)) for colour in text.split()], dtype=np.float64)


POINTS = {
    "turbo": (
        "30123b 392a73 4040a1 4456c7 466be3 467ff6 4293ff 37a7fa 29bbec 1dcdd8 18dcc3 "
        "1ee8b0 31f299 4cf97e 6bfd64 8aff4d a3fd3c b8f735 cced34 dee037 edd03a f8c03a "
        "fdae35 fe982c fb8022 f56817 ec520f e04009 d23105 c02302 ac1701 950d01 7a0403"
    ),
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453681 424086 3f4989 3b528b 375a8d 33638d "
        "2f6a8e 2c728e 297a8e 26818e 23898e 21908c 1f988b 1f9f88 21a685 28ae80 31b57b "
        "3ebc74 4cc26c 5dc963 6ece58 82d34c 96d83f abdc32 c0df24 d5e21a eae51a fde725"
    ),
    "inferno": (
        "000004 040312 0b0724 150b37 210c4a 2e0a5a 3c0965 4a0c6b 57106d 63146e 70196e "
        "7d1e6d 89226a 962766 a32b61 af315c bb3755 c63e4d d14644 db4f3b e35932 eb6528 "
        "f1711e f67f14 f98d0a fb9c06 fcab0f fbba1f f9ca32 f5d949 f2e865 f3f586 fcffa4"
    ),
}

# Red, green and blue, each drawn straight between (place, brightness).
JET = (
    ((0, 0), (0.35, 0), (0.66, 1), (0.89, 1), (1, 0.5)),
    ((0, 0), (0.125, 0), (0.375, 1), (0.64, 1), (0.91, 0), (1, 0)),
    ((0, 0.5), (0.11, 1), (0.34, 1), (0.65, 0), (1, 0)),
)
